import { allowedDecisionSchema } from '@bagcheck/api'
import { canonicalize, parseCanonical, sha256Hex, VSA_TOKEN_V1 } from '@bagcheck/attest'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseDecision, readEnvelopeText } from '../../src/audit.ts'
import { bodyOf, expectRefusal } from './answers.ts'
import { BEARER_AUDIENCE, createInstallation, type Installation } from './installation.ts'
import { generateSigningKey } from '@bagcheck/attest'
import { attestedClosure } from './installation.ts'
import { hashedRekordLeaf, parseEnvelope, verifyEnvelope } from '@bagcheck/attest'
import { leafHash, openCheckpoint, verifyInclusion } from '@bagcheck/log'

let self: Installation
beforeAll(async () => {
  self = await createInstallation()
  await self.ready()
})
afterAll(() => self[Symbol.asyncDispose]())

// oxlint-disable-next-line typescript/no-explicit-any
async function exportOf(jti: string): Promise<any> {
  const response = await self.request('GET', `/v1/evidence/${jti}`, undefined, true)
  expect(response.headers.get('content-type')).toBe('application/vnd.bagcheck.evidence.v1+json')
  return parseCanonical(await response.text())
}

describe('an evidence bundle', () => {
  test('holds everything a token rests on, each entry proved to the one checkpoint', async () => {
    const node = await self.enrol()
    const evidence = await self.evidence(node)
    const answer = await bodyOf(await self.token(evidence))
    const bundle = await exportOf(answer.decision)
    const { iss, sub, aud, iat, exp, jti, cnf } = decodeJwt(answer.access_token)
    expect(bundle.token).toMatchObject({ iss, sub, aud, iat, exp, jti, cnf, sha256: null })
    expect(bundle.evidence).toBe(evidence)
    const { manifest, files } = self.closure.request
    expect(bundle.attestation).toMatchObject({ manifest, files })
    expect(sha256Hex(bundle.policy.json)).toBe(self.policy().sha256)

    const { root } = self.broker
    const checkpoint = openCheckpoint(bundle.checkpoint, root.log.keys)
    const signers = {
      decision: root.roles.broker.keys,
      enrolment: root.roles.broker.keys,
      policy: root.roles.policy.keys,
      attestation: [self.ci],
    }
    for (const [part, keys] of Object.entries(signers)) {
      const { envelope: text, leafIndex: index, proof } = bundle[part]
      const envelope = parseEnvelope(Buffer.from(text))
      const first = { ...envelope, signatures: envelope.signatures.slice(0, 1) }
      const [signer] = verifyEnvelope(first, keys, 1).signers
      verifyInclusion({
        leafHash: leafHash(hashedRekordLeaf(envelope, 0, signer!)),
        index,
        size: checkpoint.size,
        root: checkpoint.root,
        proof: proof.map((one: string) => Buffer.from(one, 'base64')),
      })
    }
  })

  test('of a bearer token names no key', async () => {
    const node = await self.enrol()
    const evidence = await self.evidence(node, {
      edit: (e) => (e.facts.audience = BEARER_AUDIENCE),
    })
    const { decision } = await bodyOf(await self.token(evidence, BEARER_AUDIENCE))
    expect((await exportOf(decision)).token).toMatchObject({ aud: BEARER_AUDIENCE, cnf: null })
  })

  test('rests on decisions that are whole: one that lacks a part is read as such or not at all', async () => {
    const node = await self.enrol()
    const { decision } = await bodyOf(await self.token(await self.evidence(node)))
    const row = await self.broker.store.decision(decision)
    const text = await readEnvelopeText(self.broker, row!.entryIndex)
    const envelope = JSON.parse(text)
    const statement = JSON.parse(Buffer.from(envelope.payload, 'base64').toString())
    const write = (sub: unknown): string => {
      statement.predicate[VSA_TOKEN_V1].sub = sub
      const payload = Buffer.from(canonicalize(statement)).toString('base64')
      return JSON.stringify({ ...envelope, payload })
    }
    expect(parseDecision(write('spiffe://x/role/y')).content.sub).toBe('spiffe://x/role/y')
    const corrupt = expect.objectContaining({ code: 'LOG_CORRUPT' })
    expect(() => parseDecision(write(7))).toThrow(corrupt)
    const { content } = parseDecision(write(null))
    expect(allowedDecisionSchema.safeParse(content).success).toBe(false)
    expect(allowedDecisionSchema.safeParse(parseDecision(write('')).content).success).toBe(false)
  })

  test('exists for tokens only', async () => {
    const node = await self.enrol()
    const denied = await self.evidence(node, { edit: (e) => (e.facts.unit.name = 'other') })
    const { decision } = await bodyOf(await self.token(denied))
    for (const id of [decision, 'no-such-id'])
      await expectRefusal(
        await self.request('GET', `/v1/evidence/${id}`, undefined, true),
        404,
        'NOT_FOUND',
      )
  })

  test('names the attestation by the signer that the role trusts, whoever else attested', async () => {
    // Another signer is not in the policy, so its attestation is refused and cannot get in the way.
    const { request } = attestedClosure(generateSigningKey().signing)
    expect((await self.request('POST', '/v1/attestations', request)).status).toBe(400)
    const node = await self.enrol()
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })
})
