import { createRemoteJWKSet, customFetch, decodeJwt, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
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
        strength: 'full',
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
