// Every way to get a token with evidence that is not this node's, of now, for this broker. Each has its
// own code; none leaves an allowed decision behind.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { allowedDecisions, bodyOf, expectRefusal, lastLoggedCode } from './answers.ts'
import { signJws } from '@bagcheck/testkit'
import { createInstallation, type Installation, type TestNode } from './installation.ts'

let self: Installation
let node: TestNode

// One broker for all of them: a store takes a third of a second to open.
beforeAll(async () => {
  self = await createInstallation()
  await self.ready()
})
beforeEach(async () => {
  node = await self.enrol()
})
afterAll(() => self[Symbol.asyncDispose]())

describe('nonces', () => {
  test('evidence that got a token gets no second one', async () => {
    const evidence = await self.evidence(node)
    expect((await self.token(evidence)).status).toBe(200)
    await expectRefusal(await self.token(evidence), 400, 'NONCE_REUSED')
    expect(await allowedDecisions(self, node)).toBe(1)
  })

  test('evidence that got a token gets no second one after a restart', async () => {
    const evidence = await self.evidence(node)
    expect((await self.token(evidence)).status).toBe(200)
    await self.restart()
    await expectRefusal(await self.token(evidence), 400, 'NONCE_REUSED')
    expect(await allowedDecisions(self, node)).toBe(1)
  })

  test('of ten requests that race one nonce, one gets a token', async () => {
    const evidence = await self.evidence(node)
    const responses = await Promise.all(Array.from({ length: 10 }, () => self.token(evidence)))
    expect(responses.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(await allowedDecisions(self, node)).toBe(1)
  })

  test('a nonce under fresh evidence is refused when it was used', async () => {
    const nonce = await self.challenge(node.id)
    expect((await self.token(await self.evidence(node, { nonce }))).status).toBe(200)
    const again = await self.evidence(node, { nonce })
    await expectRefusal(await self.token(again), 400, 'NONCE_REUSED')
  })

  test('a nonce is used up by evidence that does not verify', async () => {
    const nonce = await self.challenge(node.id)
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const forged = await self.evidence(node, { nonce, key: privateKey })
    await expectRefusal(await self.token(forged), 401, 'EVIDENCE_SIGNATURE')
    const honest = await self.evidence(node, { nonce })
    await expectRefusal(await self.token(honest), 400, 'NONCE_REUSED')
  })

  test('a nonce expires after 60 seconds', async () => {
    const late = await self.evidence(node)
    self.nowMs += 60_000
    await expectRefusal(await self.token(late), 400, 'NONCE_EXPIRED')
  })

  test("another node's nonce is refused", async () => {
    const other = await self.enrol()
    const evidence = await self.evidence(node, { nonce: await self.challenge(other.id) })
    await expectRefusal(await self.token(evidence), 400, 'NONCE_INVALID')
  })

  test('a nonce for another purpose is refused', async () => {
    const nonce = await self.challenge(node.id, 'renew')
    await expectRefusal(
      await self.token(await self.evidence(node, { nonce })),
      400,
      'NONCE_INVALID',
    )
  })

  test.each([
    ['random bytes', () => randomBytes(32).toString('base64url')],
    ['too short', () => randomBytes(31).toString('base64url')],
    ['another spelling of the same bytes', () => `${'A'.repeat(42)}B`],
  ])('a nonce that is %s is refused', async (_, nonce) => {
    const evidence = await self.evidence(node, { nonce: nonce() })
    await expectRefusal(await self.token(evidence), 400, 'NONCE_INVALID')
  })

  test('every nonce is another one', async () => {
    const nonces = await Promise.all(Array.from({ length: 500 }, () => self.challenge(node.id)))
    expect(new Set(nonces).size).toBe(500)
  })
})

describe('who signed', () => {
  test("evidence in a node's name, signed by another node, is refused", async () => {
    const other = await self.enrol()
    const evidence = await self.evidence(node, { key: other.key })
    await expectRefusal(await self.token(evidence), 401, 'EVIDENCE_SIGNATURE')
  })

  test("evidence that names another key's thumbprint is refused", async () => {
    const other = await self.enrol()
    const evidence = await self.evidence(node, {
      key: other.key,
      header: { kid: other.thumbprint },
    })
    await expectRefusal(await self.token(evidence), 401, 'EVIDENCE_KEY')
  })

  test('a node that is not enrolled gets no nonce', async () => {
    const body = { node: 'demo-000000000000', purpose: 'issue' }
    await expectRefusal(await self.request('POST', '/v1/challenge', body), 401, 'NODE_UNKNOWN')
  })

  test('a node whose enrolment expired gets neither nonce nor token', async () => {
    self.nowMs += 7 * 86_400_000 - 10_000
    const evidence = await self.evidence(node)
    self.nowMs += 10_000
    await expectRefusal(await self.token(evidence), 401, 'NODE_EXPIRED')
    const body = { node: node.id, purpose: 'issue' }
    await expectRefusal(await self.request('POST', '/v1/challenge', body), 401, 'NODE_EXPIRED')
  })

  test.each([
    ['alg none', { alg: 'none' }],
    ['a symmetric alg', { alg: 'HS256' }],
    ['a key of its own', { jwk: { kty: 'EC' } }],
    ['a key to fetch', { jku: 'https://evil.test/jwks' }],
    ['critical extensions', { crit: ['exp'] }],
    ['another type', { typ: 'at+jwt' }],
  ])('a header with %s is refused', async (_, header) => {
    const evidence = await self.evidence(node, { header })
    await expectRefusal(await self.token(evidence), 400, 'EVIDENCE_HEADER')
  })

  test('what was not signed by a node is counted and not logged', async () => {
    const { store, metrics } = self.broker
    const { size } = await store.head()
    const counted = metrics.evidenceRefused.get('EVIDENCE_HEADER')
    await self.token(await self.evidence(node, { header: { alg: 'none' } }))
    expect((await store.head()).size).toBe(size)
    expect(metrics.evidenceRefused.get('EVIDENCE_HEADER')).toBe(counted + 1)
  })
})

describe('form', () => {
  test('evidence cut short anywhere is refused with a code', async () => {
    const evidence = await self.evidence(node)
    const step = Math.ceil(evidence.length / 60)
    for (let length = 1; length < evidence.length; length += step) {
      const response = await self.token(evidence.slice(0, length))
      expect([400, 401]).toContain(response.status)
      expect((await bodyOf(response)).code).toMatch(/^(EVIDENCE|NONCE)_/)
    }
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test('evidence with one bit flipped is refused with a code', async () => {
    const evidence = Buffer.from(await self.evidence(node))
    const step = Math.ceil(evidence.length / 60)
    for (let at = 0; at < evidence.length; at += step) {
      const flipped = Buffer.from(evidence)
      flipped[at]! ^= 1
      const response = await self.token(flipped.toString('latin1'))
      expect(response.status).toBeGreaterThanOrEqual(400)
      expect((await bodyOf(response)).code).toMatch(/^(EVIDENCE|NONCE|NODE|REQUEST)_/)
    }
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test('a payload with a member twice is refused before anything in it is believed', async () => {
    const [header, payload] = (await self.evidence(node)).split('.')
    const text = Buffer.from(payload!, 'base64url').toString()
    const doubled = text.replace('{', `{"iss":"${node.id}",`)
    const evidence = `${header}.${Buffer.from(doubled).toString('base64url')}.${'A'.repeat(86)}`
    await expectRefusal(await self.token(evidence), 400, 'EVIDENCE_MALFORMED')
  })

  test('evidence beyond 1 MiB is refused unread', async () => {
    await expectRefusal(await self.token('a'.repeat(1024 * 1024 + 1)), 413, 'EVIDENCE_TOO_LARGE')
  })

  test.each([
    ['an unknown member', (e: any) => (e.tier = 3)], // oxlint-disable-line typescript/no-explicit-any
    ['a missing member', (e: any) => delete e.facts.roots], // oxlint-disable-line typescript/no-explicit-any
    ['a negative counter', (e: any) => (e.counter = -1)], // oxlint-disable-line typescript/no-explicit-any
    ['NUL in a name', (e: any) => (e.facts.unit.name = 'a\0b')], // oxlint-disable-line typescript/no-explicit-any
    ['half a surrogate', (e: any) => (e.facts.unit.name = '\ud800')], // oxlint-disable-line typescript/no-explicit-any
  ])('signed evidence with %s is a logged refusal', async (_, edit) => {
    const evidence = await self.evidence(node, { edit })
    const problem = await expectRefusal(await self.token(evidence), 400, 'EVIDENCE_SCHEMA')
    expect(problem).toMatchObject({ error: 'invalid_grant', decision: expect.any(String) })
    expect(await lastLoggedCode(self)).toBe('EVIDENCE_SCHEMA')
  })
})

// Signed by the right node over the right nonce, and still not for us, now.
describe('what evidence is for', () => {
  const hex = 'a'.repeat(64)
  // oxlint-disable-next-line typescript/no-explicit-any
  const cases: [string, string, (evidence: any) => void][] = [
    ['another broker', 'EVIDENCE_ISSUER', (e) => (e.aud = 'https://other.test')],
    ['another installation', 'EVIDENCE_INSTALLATION', (e) => (e.installation = 'prod')],
    ['another trust root', 'EVIDENCE_TRUST_ROOT', (e) => (e.trustRoot = hex)],
    ['31 seconds ago', 'EVIDENCE_TIME', (e) => (e.iat -= 31)],
    ['31 seconds ahead', 'EVIDENCE_TIME', (e) => (e.iat += 31)],
    ['a renewal of nothing', 'EVIDENCE_PURPOSE', (e) => (e.previousDecision = 'x')],
  ]
  test.each(cases)('evidence for %s is refused as %s and logged', async (_, code, edit) => {
    const problem = await expectRefusal(
      await self.token(await self.evidence(node, { edit })),
      400,
      code,
    )
    expect(problem['log_index']).toEqual(expect.any(Number))
    expect(await lastLoggedCode(self)).toBe(code)
  })

  test('evidence for one audience gets no token for another', async () => {
    const evidence = await self.evidence(node)
    const problem = await expectRefusal(
      await self.token(evidence, 'https://other.test'),
      400,
      'EVIDENCE_AUDIENCE',
    )
    expect(problem['error']).toBe('invalid_target')
    expect(await lastLoggedCode(self)).toBe('EVIDENCE_AUDIENCE')
  })

  test("nobody else's evidence of the same shape is taken for a node's", async () => {
    const evidence = await self.evidence(node)
    const payload = JSON.parse(Buffer.from(evidence.split('.')[1]!, 'base64url').toString())
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    const header = { typ: 'bagcheck-evidence+jwt', kid: node.thumbprint }
    await expectRefusal(
      await self.token(signJws(header, payload, stranger)),
      401,
      'EVIDENCE_SIGNATURE',
    )
  })
})

describe('a cloned node key', () => {
  test('shows by a counter used twice: the node is banned, and that is logged', async () => {
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    const clone = await self.evidence({ ...node, counter: node.counter - 1 })
    await expectRefusal(await self.token(clone), 401, 'NODE_KEY_CLONED')

    const { size } = await self.broker.store.head()
    const last = await self.broker.store.entry(size - 1)
    expect(last).toMatchObject({ kind: 'ban', ref: node.id })
    const { nodes } = await bodyOf(await self.request('GET', '/v1/nodes', undefined, true))
    expect(nodes.at(-1)).toMatchObject({ node: node.id, banned: true })
  })

  test('keeps the node banned, for nonces and for tokens, over a restart', async () => {
    const nonce = await self.challenge(node.id)
    await self.token(await self.evidence(node))
    await self.token(await self.evidence({ ...node, counter: node.counter - 1 }))
    for (let round = 0; round < 2; round++) {
      await expectRefusal(
        await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'issue' }),
        401,
        'NODE_BANNED',
      )
      const evidence = await self.evidence(node, { nonce })
      const { code } = await bodyOf(await self.token(evidence))
      expect(['NODE_BANNED', 'NONCE_REUSED']).toContain(code)
      await self.restart()
    }
    expect(await allowedDecisions(self, node)).toBe(1)
  })

  test('is not suspected where a nonce is replayed with its counter', async () => {
    const evidence = await self.evidence(node)
    await self.token(evidence)
    await self.restart()
    await expectRefusal(await self.token(evidence), 400, 'NONCE_REUSED')
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })
})
