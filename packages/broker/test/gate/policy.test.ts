import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { formatBundle, generateSigningKey, parseBundle, UNKNOWN_FACTS } from '@bagcheck/attest'
import { openBroker } from '../../src/broker.ts'
import { createApp } from '../../src/app.ts'
import { allowedDecisions, bodyOf, expectRefusal, lastLoggedCode } from './answers.ts'
import {
  attestedClosure,
  createInstallation,
  exchangeForm,
  AUDIENCE,
  START,
} from './installation.ts'
import type { Installation } from './installation.ts'

let self: Installation
beforeEach(async () => {
  self = await createInstallation()
})
afterEach(() => self[Symbol.asyncDispose]())

const iso = (seconds: number): string => `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`

describe('deciding', () => {
  test('without a policy nothing is issued', async () => {
    const node = await self.enrol()
    await expectRefusal(await self.token(await self.evidence(node)), 503, 'POLICY_MISSING')
  })

  test('without an attestation an approved closure is denied', async () => {
    await self.publish()
    const node = await self.enrol()
    await expectRefusal(await self.token(await self.evidence(node)), 403, 'ATTESTATION_MISSING')
  })

  test('a denial by policy is logged, says why, and names its entry', async () => {
    await self.ready()
    const node = await self.enrol()
    const evidence = await self.evidence(node, { edit: (e) => (e.facts.unit.name = 'other') })
    const problem = await expectRefusal(await self.token(evidence), 403, 'ROLE_UNKNOWN')
    expect(problem).toMatchObject({
      error: 'access_denied',
      reasons: [{ code: 'ROLE_UNKNOWN', message: expect.any(String) }],
      decision: expect.any(String),
      log_index: expect.any(Number),
    })
    const entry = await bodyOf(await self.request('GET', `/v1/log/entries/${problem['log_index']}`))
    expect(entry).toMatchObject({ kind: 'decision', ref: problem['decision'] })
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test('an expired policy denies; the next version allows again', async () => {
    await self.publish({ expires: iso(START + 100) })
    await self.request('POST', '/v1/attestations', self.closure.request)
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    self.nowMs += 100_000
    await expectRefusal(await self.token(await self.evidence(node)), 403, 'POLICY_NOT_IN_FORCE')
    const { sha256 } = self.policy({ expires: iso(START + 100) })
    expect((await self.publish({ version: 2, prev: sha256 })).status).toBe(200)
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })

  test('a closure that is revoked in the next version is denied at the next request', async () => {
    await self.ready()
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    await self.publish({ version: 2, prev: self.policy().sha256, state: 'revoked' })
    await expectRefusal(await self.token(await self.evidence(node)), 403, 'CLOSURE_REVOKED')
  })

  test('policy that changes between evaluation and commit decides anew', async () => {
    await self.ready()
    const node = await self.enrol()
    // A second broker on the same store publishes; the first still holds version 1 in memory.
    const config = { ...self.config, adminSocket: `${self.dir}/other.sock` }
    const { logger } = self.broker
    const other = await openBroker(config, { wall: () => self.nowMs, logger })
    const next = self.policy({ version: 2, prev: self.policy().sha256, state: 'revoked' })
    await other.policy.publish(next, new Date(self.nowMs))
    expect(self.broker.policy.installed().version).toBe(1)
    await expectRefusal(await self.token(await self.evidence(node)), 403, 'CLOSURE_REVOKED')
    expect(self.broker.policy.installed().version).toBe(2)
    expect(await allowedDecisions(self, node)).toBe(0)
    await other.close()
  })

  test('a node that another broker banned gets nothing from this one', async () => {
    await self.ready()
    const node = await self.enrol()
    const evidence = await self.evidence(node)
    const other = await openBroker(self.config, {
      wall: () => self.nowMs,
      logger: self.broker.logger,
    })
    const app = createApp(other, 'admin')
    const ban = await app.request(`/v1/nodes/${node.id}/ban`, {
      method: 'POST',
      body: '{"reason":"stolen"}',
      headers: { 'content-type': 'application/json' },
    })
    expect(ban.status).toBe(200)
    await expectRefusal(await self.token(evidence), 401, 'NODE_BANNED')
    await other.close()
  })

  test('what one broker enrolled and took in, another one serves', async () => {
    const other = await openBroker(self.config, {
      wall: () => self.nowMs,
      logger: self.broker.logger,
    })
    await self.ready()
    const node = await self.enrol()
    await other.policy.reload()
    const response = await createApp(other, 'public').request('/token', {
      method: 'POST',
      body: exchangeForm(await self.evidence(node), AUDIENCE),
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    })
    expect(response.status).toBe(200)
    await other.close()
  })
})

describe('publishing', () => {
  test('takes version 1, then 2, and the installed one again without a second entry', async () => {
    const first = await bodyOf(await self.publish())
    expect(first).toMatchObject({ version: 1, logIndex: 0, known: false })
    expect(await bodyOf(await self.publish())).toEqual({ ...first, known: true })
    const next = await bodyOf(await self.publish({ version: 2, prev: first.sha256 }))
    expect(next).toMatchObject({ version: 2, logIndex: 1, known: false })
  })

  test('refuses a policy that too few keys signed', async () => {
    const [key] = self.policyKeys
    await expectRefusal(await self.publish({ keys: [key!] }), 400, 'POLICY_SIGNATURES')
    expect(self.broker.policy.current()).toBeNull()
  })

  test('refuses a policy that strangers signed', async () => {
    const keys = [generateSigningKey().signing, generateSigningKey().signing]
    await expectRefusal(await self.publish({ keys }), 400, 'POLICY_SIGNATURES')
  })

  test('refuses an older, a skipping and a branching version', async () => {
    await self.publish()
    const { sha256 } = self.policy()
    await self.publish({ version: 2, prev: sha256 })
    await expectRefusal(await self.publish(), 400, 'POLICY_ROLLBACK')
    await expectRefusal(
      await self.publish({ version: 4, prev: sha256 }),
      400,
      'POLICY_VERSION_SKIPPED',
    )
    await expectRefusal(await self.publish({ version: 3, prev: sha256 }), 400, 'POLICY_PREVIOUS')
  })

  test('refuses a policy that has expired', async () => {
    await expectRefusal(await self.publish({ expires: iso(START) }), 400, 'POLICY_EXPIRED')
  })

  test('lets one of two next versions win that arrive at the same instant', async () => {
    await self.publish()
    const prev = self.policy().sha256
    const responses = await Promise.all([
      self.publish({ version: 2, prev }),
      self.publish({ version: 2, prev, state: 'revoked' }),
    ])
    const statuses = responses.map(({ status }) => status)
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, 400])
  })

  test('survives a restart', async () => {
    await self.ready()
    await self.restart()
    const answer = await bodyOf(await self.request('GET', '/v1/policy'))
    expect(answer).toMatchObject({ version: 1, sha256: self.policy().sha256, logIndex: 0 })
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })
})

describe('reading', () => {
  test('answers 304 to the ETag of the installed version', async () => {
    await self.publish()
    const first = await self.request('GET', '/v1/policy')
    const etag = first.headers.get('etag') ?? ''
    const app = createApp(self.broker, 'public')
    const again = await app.request('/v1/policy', { headers: { 'if-none-match': etag } })
    expect([again.status, again.headers.get('etag')]).toEqual([304, etag])
  })

  test('a long poll answers as soon as the next version is installed', async () => {
    await self.publish()
    const { sha256 } = self.policy()
    const app = createApp(self.broker, 'public')
    const poll = app.request('/v1/policy?wait=30', { headers: { 'if-none-match': `"${sha256}"` } })
    await self.publish({ version: 2, prev: sha256 })
    expect(await bodyOf(await poll)).toMatchObject({ version: 2 })
  })

  test('a long poll ends when the server stops', async () => {
    await self.publish()
    const { sha256 } = self.policy()
    const stop = new AbortController()
    const app = createApp(self.broker, 'public', { stop: stop.signal })
    const poll = app.request('/v1/policy?wait=30', { headers: { 'if-none-match': `"${sha256}"` } })
    stop.abort()
    expect((await poll).status).toBe(304)
  })
})

describe('attestations', () => {
  test('are refused before a policy names a signer', async () => {
    await expectRefusal(
      await self.request('POST', '/v1/attestations', self.closure.request),
      409,
      'ATTESTATION_SIGNER_UNKNOWN',
    )
  })

  test('by a key that no policy names are refused', async () => {
    await self.publish()
    const { request } = attestedClosure(generateSigningKey().signing)
    await expectRefusal(
      await self.request('POST', '/v1/attestations', request),
      400,
      'SIGNATURE_INVALID',
    )
  })

  test('with another manifest or file list are refused', async () => {
    await self.publish()
    const { request } = self.closure
    const other = attestedClosure(self.ci, 'another service').request
    for (const mixed of [
      { ...request, manifest: other.manifest },
      { ...request, files: other.files },
    ])
      await expectRefusal(
        await self.request('POST', '/v1/attestations', mixed),
        400,
        'ATTESTATION_CONTENT',
      )
  })

  test('are taken once and can be read by closure digest', async () => {
    await self.publish()
    const submit = () => self.request('POST', '/v1/attestations', self.closure.request)
    const first = await bodyOf(await submit())
    const { digest } = self.closure.manifest
    expect(first).toMatchObject({ closureDigest: digest, known: false, logIndex: 1 })
    expect(await bodyOf(await submit())).toEqual({ ...first, known: true })
    expect(await bodyOf(await self.request('GET', `/v1/attestations/${digest}`))).toEqual({
      root: self.closure.manifest.root,
      closureDigest: digest,
      logIndex: 1,
      ...self.closure.request,
    })
    await expectRefusal(
      await self.request('GET', `/v1/attestations/${'0'.repeat(64)}`),
      404,
      'NOT_FOUND',
    )
  })
})

describe('a closure that is attested again by the same signer', () => {
  // As the first attempt of a newcomer: attested without --pure, so that the policy cannot accept it.
  const unknown = { impure: UNKNOWN_FACTS.build.impure }

  test('is judged by the newest attestation, at once and after a restart', async () => {
    await self.publish()
    const first = attestedClosure(self.ci, 'service', unknown)
    await self.request('POST', '/v1/attestations', first.request)
    const node = await self.enrol()
    const denied = await bodyOf(await self.token(await self.evidence(node)))
    expect(denied).toMatchObject({ reasons: [{ code: 'BUILD_FACT_UNKNOWN' }] })

    await self.request('POST', '/v1/attestations', self.closure.request)
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    const { digest } = self.closure.manifest
    expect(await bodyOf(await self.request('GET', `/v1/attestations/${digest}`))).toMatchObject(
      self.closure.request,
    )
    await self.restart()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })

  test('is denied again when the newest attestation lacks what the older one had', async () => {
    await self.ready()
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    const withdrawn = attestedClosure(self.ci, 'service', unknown)
    await self.request('POST', '/v1/attestations', withdrawn.request)
    const denied = await bodyOf(await self.token(await self.evidence(node)))
    expect(denied).toMatchObject({ reasons: [{ code: 'BUILD_FACT_UNKNOWN' }] })
  })

  test('keeps its newest attestation when an older one is submitted again', async () => {
    await self.publish()
    const first = attestedClosure(self.ci, 'service', unknown)
    for (const { request } of [first, self.closure, first])
      await self.request('POST', '/v1/attestations', request)
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })

  test('is not judged by the old one again, in whatever spelling its signature comes back', async () => {
    await self.ready()
    const withdrawn = attestedClosure(self.ci, 'service', unknown)
    await self.request('POST', '/v1/attestations', withdrawn.request)
    const node = await self.enrol()
    const { bundle } = self.closure.request
    const envelope = parseBundle(Buffer.from(bundle))
    const [first] = envelope.signatures
    const twin = {
      ...envelope,
      signatures: [{ sig: twinSignature(first?.sig ?? new Uint8Array()) }],
    }
    const again = await self.request('POST', '/v1/attestations', {
      ...self.closure.request,
      bundle: formatBundle(twin),
    })
    expect([again.status, (await bodyOf(again)).known]).toEqual([200, true])
    const denied = await bodyOf(await self.token(await self.evidence(node)))
    expect(denied).toMatchObject({ reasons: [{ code: 'BUILD_FACT_UNKNOWN' }] })
    await self.restart()
    const still = await bodyOf(await self.token(await self.evidence(node)))
    expect(still).toMatchObject({ reasons: [{ code: 'BUILD_FACT_UNKNOWN' }] })
  })
})

/** The other signature that says the same: (r, n − s). Everybody can compute it (SEC 1, 4.1.4). */
function twinSignature(der: Uint8Array): Uint8Array {
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
  const length = der[3] ?? 0
  const r = Buffer.from(der).subarray(2, 4 + length)
  const s = BigInt(
    `0x${Buffer.from(der)
      .subarray(6 + length)
      .toString('hex')}`,
  )
  const hex = (order - s).toString(16)
  const digits = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')
  const bytes = (digits[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), digits]) : digits
  return Buffer.concat([
    Buffer.of(0x30, r.length + 2 + bytes.length),
    r,
    Buffer.of(2, bytes.length),
    bytes,
  ])
}

test('decisions are listed with their reasons, newest first, page by page both ways', async () => {
  await self.ready()
  const node = await self.enrol()
  await self.token(await self.evidence(node))
  await self.token(await self.evidence(node, { edit: (e) => (e.facts.unit.name = 'other') }))
  const list = (query: string) => self.request('GET', `/v1/decisions${query}`, undefined, true)
  const all = await bodyOf(await list(''))
  expect(all).toMatchObject({
    decisions: [
      { allow: false, role: null, reasons: [{ code: 'ROLE_UNKNOWN' }] },
      { allow: true, role: 'orders', reasons: [], unit: 'orders' },
    ],
    next: null,
  })
  const [denied, allowed] = all.decisions
  const newest = await bodyOf(await list('?limit=1'))
  expect(newest).toEqual({ decisions: [denied], next: denied.logIndex })
  const older = await bodyOf(await list(`?limit=2&before=${newest.next}`))
  expect(older).toEqual({ decisions: [allowed], next: null })
  const oldest = await bodyOf(await list('?limit=1&after=0'))
  expect(oldest).toEqual({ decisions: [allowed], next: allowed.logIndex })
  const later = await bodyOf(await list(`?after=${oldest.next}`))
  expect(later).toEqual({ decisions: [denied], next: null })
  expect((await bodyOf(await list('?allow=false'))).decisions).toEqual([denied])
  expect((await bodyOf(await list('?unit=orders'))).decisions).toEqual([allowed])
  const one = await self.request('GET', `/v1/decisions/${all.decisions[0].id}`, undefined, true)
  expect(await bodyOf(one)).toEqual(all.decisions[0])
  expect(await lastLoggedCode(self)).toBe('ROLE_UNKNOWN')
  // Of evidence that did not verify nothing is believed, and nothing is said in its name.
  await self.token(await self.evidence(node, { edit: (e) => (e.iat -= 3600) }))
  expect((await bodyOf(await list('?limit=1'))).decisions).toMatchObject([
    {
      allow: false,
      node: node.id,
      unit: null,
      audience: null,
      reasons: [{ code: 'EVIDENCE_TIME' }],
    },
  ])
})
