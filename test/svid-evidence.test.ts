// The evidence of an SVID, exported by a broker and verified offline by the command line: two packages, which
// only meet in a file.
import { createPublicKey, X509Certificate } from 'node:crypto'
import { canonicalize, parseCanonical } from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import { nodeKey } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  createInstallation,
  JWT_AUDIENCE,
  SVID_AUDIENCE,
  type Installation,
} from '../packages/broker/test/gate/installation.ts'
import { explainBundle } from '../packages/cli/src/evidence/explain.ts'
import { verifyEvidenceBundle } from '../packages/cli/src/evidence/verify.ts'

type Json = any // oxlint-disable-line typescript/no-explicit-any

let self: Installation
const key = nodeKey()
const publicKey = createPublicKey(key.key).export({ type: 'spki', format: 'der' })
beforeAll(async () => {
  self = await createInstallation({ svids: true })
  await self.ready()
})
afterAll(() => self[Symbol.asyncDispose]())

async function issue(type: 'x509' | 'jwt'): Promise<Json> {
  const node = await self.enrol()
  const evidence = await self.evidence(node, {
    edit: (one) => {
      one.facts.audience = type === 'x509' ? SVID_AUDIENCE : JWT_AUDIENCE
      one.workloadKey = key.thumbprint
    },
  })
  const body = type === 'x509' ? { publicKey: publicKey.toString('base64') } : {}
  const response = await self.request('POST', '/v1/svids', { type, evidence, ...body })
  expect(response.status).toBe(200)
  return response.json()
}
const exported = async (decision: string): Promise<string> =>
  (await self.request('GET', `/v1/evidence/${decision}`, undefined, true)).text()
const verify = (text: string) =>
  verifyEvidenceBundle(Buffer.from(text), { trust: self.pin as Sha256 })

describe('the evidence of an SVID', () => {
  test('is found by the serial number of the certificate alone, and verifies', async () => {
    const answer = await issue('x509')
    const leaf = new X509Certificate(Buffer.from(answer.certificates[0], 'base64'))
    const digits = leaf.serialNumber.toLowerCase().padStart(32, '0')
    const id = digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5')
    const bundle = verify(await exported(id))
    expect(bundle).toMatchObject({
      authenticated: true,
      token: { sub: answer.spiffe_id, aud: SVID_AUDIENCE, cnf: { jkt: key.thumbprint } },
      decision: { type: 'x509_svid', keyThumbprint: key.thumbprint, expiresAt: answer.expires_at },
    })
    expect(explainBundle(bundle).join('\n')).toMatch(/The certificate is of the workload's key/)
  })

  test('of a JWT-SVID verifies, and says that it is a bearer token', async () => {
    const answer = await issue('jwt')
    const bundle = verify(await exported(answer.decision))
    expect(bundle).toMatchObject({
      token: { jti: answer.decision, aud: JWT_AUDIENCE, cnf: null },
      decision: { type: 'jwt_svid' },
    })
    expect(explainBundle(bundle).join('\n')).toMatch(/bearer token/)
  })

  test.each<[string, (token: Json) => void]>([
    ['a longer life', (token) => (token.exp += 1)],
    ['another authority', (token) => (token.kid = 'a'.repeat(40))],
    ['another key', (token) => (token.cnf.jkt = 'a'.repeat(43))],
    ['no key', (token) => (token.cnf = null)],
    ['another audience', (token) => (token.aud = JWT_AUDIENCE)],
  ])('with %s does not verify', async (_, change) => {
    const bundle = parseCanonical(await exported((await issue('x509')).decision)) as Json
    change(bundle.token)
    expect(() => verify(canonicalize(bundle))).toThrow(/token: /)
  })
})
