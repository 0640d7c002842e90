import { createRemoteJWKSet, customFetch, decodeJwt, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { evaluate } from '@bagcheck/policy'
import type { Attested } from '../../src/closures.ts'
import { logAllow } from '../../src/decision.ts'
import { checkEvidence, identifyEvidence } from '../../src/evidence.ts'
import { mintToken } from '../../src/token.ts'
import {
  attestedClosure,
  AUDIENCE,
  BEARER_AUDIENCE,
  createInstallation,
  ISSUER,
  START,
  type Installation,
} from './installation.ts'

let self: Installation

beforeEach(async () => {
  self = await createInstallation()
  await self.ready()
})
afterEach(() => self[Symbol.asyncDispose]())

const body = async (response: Response): Promise<any> => response.json() // oxlint-disable-line typescript/no-explicit-any

describe('a token', () => {
  test('is minted for approved evidence and verifies through discovery and JWKS', async () => {
    const node = await self.enrol()
    const response = await self.token(await self.evidence(node))
    const answer = await body(response)
    expect([response.status, answer]).toMatchObject([200, { token_type: 'DPoP', expires_in: 300 }])
    expect(response.headers.get('cache-control')).toBe('no-store')

    const metadata = await body(await self.request('GET', '/.well-known/openid-configuration'))
    const jwks = createRemoteJWKSet(new URL(metadata.jwks_uri), {
      [customFetch]: (url: string) => self.request('GET', new URL(url).pathname),
    })
    const { payload, protectedHeader } = await jwtVerify(answer.access_token, jwks, {
      issuer: ISSUER,
      audience: AUDIENCE,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      currentDate: new Date(self.nowMs),
    })
    expect(protectedHeader).toEqual({ typ: 'at+jwt', alg: 'ES256', kid: protectedHeader.kid })
    const policy = self.policy()
    expect(payload).toEqual({
      iss: ISSUER,
      sub: 'spiffe://demo.bagcheck.test/role/orders',
      aud: AUDIENCE,
      iat: START,
      nbf: START - 10,
      exp: START + 300,
      jti: answer.decision,
      client_id: 'spiffe://demo.bagcheck.test/role/orders',
      cnf: { jkt: 'wOrKlOaDkEyThUmBpRiNt0000000000000000000000' },
      'https://bagcheck.dev/att': {
        root: self.closure.manifest.root,
        closure: self.closure.manifest.digest,
        policy: { v: 1, sha256: policy.sha256 },
        dec: answer.log_index,
        ev: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
        tier: 0,
        strength: 'incremental',
      },
      bagcheck_closure: self.closure.manifest.digest,
      bagcheck_role: 'orders',
      bagcheck_tier: '0',
    })
  })

  test('is a bearer token where the profile says so, whatever key came along', async () => {
    const node = await self.enrol()
    const evidence = await self.evidence(node, {
      edit: (e) => Object.assign(e.facts, { audience: BEARER_AUDIENCE }),
    })
    const answer = await body(await self.token(evidence, BEARER_AUDIENCE))
    expect(answer.token_type).toBe('Bearer')
    expect(decodeJwt(answer.access_token)).not.toHaveProperty('cnf')
  })
})

test('an approval and a logged decision can be used once each', async () => {
  const node = await self.enrol()
  const { broker } = self
  const nowSeconds = Math.floor(self.nowMs / 1000)
  const { nonces, nodes, closures } = broker
  const identified = await identifyEvidence(await self.evidence(node), {
    nonces,
    nodes,
    nowSeconds,
  })
  const verified = checkEvidence(identified, {
    issuer: ISSUER,
    installation: 'demo',
    trustRoot: self.pin,
    audience: AUDIENCE,
    workloadKey: null,
    nowSeconds,
  })
  const { version, sha256, verified: policy } = broker.policy.installed()
  const decision = evaluate(policy, verified.content.facts, {
    nodeClass: 'demo',
    tier: 0,
    now: new Date(self.nowMs),
    workloadKey: verified.content.workloadKey,
    profile: null,
    type: 'access_token',
    host: verified.content.host,
    closures,
  })
  if (!decision.allow) throw new Error('expected an allow')
  const frame = { id: 'an-id', at: nowSeconds, policy: { version, sha256 } }
  // A newer attestation comes in between: the log names the one that was evaluated.
  const digest = verified.content.facts.roots[0]?.closureDigest ?? ''
  const statement = (): string => closures.get(digest)?.attestation.statementDigest ?? ''
  const evaluated = statement()
  const newer = attestedClosure(self.ci, 'service', {
    substituters: { value: ['https://cache.example.org'], source: 'test' },
  })
  expect((await self.request('POST', '/v1/attestations', newer.request)).status).toBe(200)
  expect(statement()).not.toBe(evaluated)
  const asked: string[][] = []
  const signer = { keyId: self.ci.keyId }
  const attestationOf = (closure: string, attested: Attested): string => {
    asked.push([closure, attested.statementDigest])
    return closures.envelopeSha256(closure, attested)
  }
  const logged = await logAllow(broker.log, frame, verified, decision.approval, attestationOf)
  expect(asked).toEqual([[digest, evaluated]])
  expect(closures.envelopeSha256(digest, { statementDigest: evaluated, signer })).not.toBe(
    closures.envelopeSha256(digest, { statementDigest: statement(), signer }),
  )
  expect(() => decision.approval.use()).toThrow(TypeError)
  expect(mintToken(logged, ISSUER, broker.keys.token).jti).toBe('an-id')
  expect(() => mintToken(logged, ISSUER, broker.keys.token)).toThrow(TypeError)
})
