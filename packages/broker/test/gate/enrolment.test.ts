import { generateSigningKey } from '@bagcheck/attest'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bodyOf, expectRefusal } from './answers.ts'
import { signJws } from '@bagcheck/testkit'
import { createInstallation, enrolProof, newNode, START } from './installation.ts'
import type { Installation } from './installation.ts'

let self: Installation
beforeAll(async () => {
  self = await createInstallation()
  await self.ready()
})
afterAll(() => self[Symbol.asyncDispose]())

const enrol = (joinToken: string, proof: string) =>
  self.request('POST', '/v1/nodes', { joinToken, proof })

describe('enrolment', () => {
  test('makes a node and logs it, with the join token kept', async () => {
    const node = newNode()
    const joinToken = self.joinToken()
    const response = await enrol(joinToken, enrolProof(node, joinToken))
    const answer = await bodyOf(response)
    expect([response.status, answer]).toMatchObject([
      201,
      { nodeClass: 'demo', expiresAt: START + 7 * 86_400 },
    ])
    const entry = await bodyOf(await self.request('GET', `/v1/log/entries/${answer.logIndex}`))
    expect(entry).toMatchObject({ kind: 'enrolment', ref: answer.node })
    const stored = await self.broker.store.node(answer.node)
    const kept = await self.broker.store.body({
      entryIndex: answer.logIndex,
      part: 'join-token',
      sha256: stored!.joinToken.bodySha256,
    })
    expect(Buffer.from(kept!).toString()).toBe(joinToken)
  })

  test('of two nodes with one join token at the same instant, one is enrolled', async () => {
    const joinToken = self.joinToken()
    const responses = await Promise.all(
      [newNode(), newNode()].map((node) => enrol(joinToken, enrolProof(node, joinToken))),
    )
    const [won, lost] = responses.toSorted((a, b) => a.status - b.status)
    expect(won!.status).toBe(201)
    await expectRefusal(lost!, 409, 'JOIN_TOKEN_USED')
  })

  test('takes a join token once, also after a restart', async () => {
    const joinToken = self.joinToken()
    expect((await enrol(joinToken, enrolProof(newNode(), joinToken))).status).toBe(201)
    await self.restart()
    await expectRefusal(
      await enrol(joinToken, enrolProof(newNode(), joinToken)),
      409,
      'JOIN_TOKEN_USED',
    )
  })

  test('asked for again by the same key and join token is the same, without a second entry', async () => {
    const node = newNode()
    const joinToken = self.joinToken()
    const first = await bodyOf(await enrol(joinToken, enrolProof(node, joinToken)))
    const again = await enrol(joinToken, enrolProof(node, joinToken))
    expect([again.status, await bodyOf(again)]).toEqual([201, first])
    const stranger = newNode()
    await expectRefusal(
      await enrol(joinToken, enrolProof(stranger, joinToken)),
      409,
      'JOIN_TOKEN_USED',
    )
  })

  test('asked for again is the same although the join token has expired since', async () => {
    await using other = await createInstallation()
    await other.ready()
    const ask = (node: ReturnType<typeof newNode>, joinToken: string) => {
      const proof = enrolProof(node, joinToken, undefined, other.nowMs)
      return other.request('POST', '/v1/nodes', { joinToken, proof })
    }
    const node = newNode()
    const joinToken = other.joinToken({ expires: '2026-11-24T08:10:00Z' })
    const first = await bodyOf(await ask(node, joinToken))
    other.nowMs += 3_600_000
    const again = await ask(node, joinToken)
    expect([again.status, await bodyOf(again)]).toEqual([201, first])
    // Nobody else gets in by it.
    await expectRefusal(await ask(newNode(), joinToken), 400, 'JOIN_TOKEN_EXPIRED')
  })

  test('of one key twice at the same instant, one is enrolled, and never a second time', async () => {
    const node = newNode()
    const tokens = [self.joinToken(), self.joinToken()]
    const responses = await Promise.all(tokens.map((one) => enrol(one, enrolProof(node, one))))
    expect(responses.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 409])
    const later = self.joinToken()
    await expectRefusal(await enrol(later, enrolProof(node, later)), 409, 'NODE_KEY_KNOWN')
  })

  test('refuses join tokens that are expired, foreign or altered', async () => {
    const expired = self.joinToken({ expires: '2026-11-24T07:59:30Z' })
    await expectRefusal(
      await enrol(expired, enrolProof(newNode(), expired)),
      400,
      'JOIN_TOKEN_EXPIRED',
    )
    const foreign = self.joinToken({ key: generateSigningKey().signing })
    await expectRefusal(
      await enrol(foreign, enrolProof(newNode(), foreign)),
      400,
      'JOIN_TOKEN_SIGNATURE',
    )
    const altered = self.joinToken().replace('"payload":"e', '"payload":"f')
    await expectRefusal(
      await enrol(altered, enrolProof(newNode(), altered)),
      400,
      'JOIN_TOKEN_SIGNATURE',
    )
  })

  test.each([
    ['for another join token', { joinToken: 'b'.repeat(64) }],
    ['for another broker', { aud: 'https://other.test' }],
    ['of yesterday', { iat: START - 86_400 }],
    ['with a member too many', { extra: 1 }],
  ])('refuses a proof %s', async (_, change) => {
    const node = newNode()
    const joinToken = self.joinToken()
    const good = enrolProof(node, joinToken)
    const payload = JSON.parse(Buffer.from(good.split('.')[1]!, 'base64url').toString())
    const header = { typ: 'bagcheck-enrol+jwt', jwk: node.jwk }
    const proof = signJws(header, { ...payload, ...change }, node.key)
    await expectRefusal(await enrol(joinToken, proof), 400, 'ENROL_PROOF')
  })

  test.each([
    ['of another key', { jwk: newNode().jwk }],
    [
      'that is no point',
      { jwk: { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) } },
    ],
    ['with a private part', { jwk: { ...newNode().jwk, d: 'A'.repeat(43) } }],
    ['without a key', { jwk: null }],
    ['of another type', { typ: 'dpop+jwt' }],
  ])('refuses a proof %s in its header', async (_, change) => {
    const node = newNode()
    const joinToken = self.joinToken()
    const good = enrolProof(node, joinToken)
    const payload = JSON.parse(Buffer.from(good.split('.')[1]!, 'base64url').toString())
    const header = { typ: 'bagcheck-enrol+jwt', jwk: node.jwk, ...change }
    await expectRefusal(
      await enrol(joinToken, signJws(header, payload, node.key)),
      400,
      'ENROL_PROOF',
    )
  })

  test('a refused proof does not use the join token up', async () => {
    const joinToken = self.joinToken()
    const node = newNode()
    await enrol(joinToken, 'a.b.c')
    expect((await enrol(joinToken, enrolProof(node, joinToken))).status).toBe(201)
  })
})

describe('banning', () => {
  test('by an administrator is logged once and stops nonces and tokens', async () => {
    const node = await self.enrol()
    const evidence = await self.evidence(node)
    const ban = () => self.request('POST', `/v1/nodes/${node.id}/ban`, { reason: 'stolen' }, true)
    const first = await bodyOf(await ban())
    expect(await bodyOf(await ban())).toEqual(first)
    const entry = await bodyOf(await self.request('GET', `/v1/log/entries/${first.logIndex}`))
    expect(entry).toMatchObject({ kind: 'ban', ref: node.id })
    await expectRefusal(await self.token(evidence), 401, 'NODE_BANNED')
  })

  test('of a node that nobody enrolled is refused', async () => {
    const body = { reason: 'stolen' }
    await expectRefusal(
      await self.request('POST', '/v1/nodes/demo-x/ban', body, true),
      401,
      'NODE_UNKNOWN',
    )
  })
})
