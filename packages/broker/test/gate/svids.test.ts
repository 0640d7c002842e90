// SVIDs, end to end in one process: evidence in, certificates and JWTs out, and everything by which somebody
// could get one without deserving it.
import { execFileSync } from 'node:child_process'
import {
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  verify,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nodeKey, type NodeKey } from '@bagcheck/testkit'
import { createRemoteJWKSet, customFetch, decodeJwt, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseDecision, readEnvelopeText } from '../../src/audit.ts'
import { allowedDecisions, bodyOf, expectRefusal, lastLoggedCode } from './answers.ts'
import {
  AUDIENCE,
  createInstallation,
  ISSUER,
  JWT_AUDIENCE,
  START,
  SVID_AUDIENCE,
  TRUST_DOMAIN,
  type EvidenceChange,
  type Installation,
  type TestNode,
} from './installation.ts'

const SPIFFE_ID = `spiffe://${TRUST_DOMAIN}/role/orders`

let self: Installation
let node: TestNode
let key: NodeKey

beforeEach(async () => {
  self = await createInstallation({ svids: true })
  await self.ready()
  node = await self.enrol()
  key = nodeKey()
})
afterEach(() => self[Symbol.asyncDispose]())

const spki = (of: KeyObject): string => {
  const publicKey = of.type === 'public' ? of : createPublicKey(of)
  return publicKey.export({ type: 'spki', format: 'der' }).toString('base64')
}
const post = (body: object): Promise<Response> => self.request('POST', '/v1/svids', body)

/** Evidence for an audience, measured with the workload's key. */
const evidenceFor = (audience: string, change: EvidenceChange = {}): Promise<string> =>
  self.evidence(node, {
    ...change,
    edit: (evidence) => {
      evidence.facts.audience = audience
      evidence.workloadKey = key.thumbprint
      change.edit?.(evidence)
    },
  })
const x509 = async (evidence?: string, publicKey = spki(key.key)): Promise<Response> =>
  post({ type: 'x509', evidence: evidence ?? (await evidenceFor(SVID_AUDIENCE)), publicKey })
const jwt = async (evidence?: string): Promise<Response> =>
  post({ type: 'jwt', evidence: evidence ?? (await evidenceFor(JWT_AUDIENCE)) })
const bundle = async (): Promise<any> => bodyOf(await self.request('GET', '/bundle')) // oxlint-disable-line typescript/no-explicit-any

/** The X.509 authorities of the bundle. */
const authorities = async (): Promise<X509Certificate[]> =>
  (await bundle()).keys
    .filter((one: { use: string }) => one.use === 'x509-svid')
    .map(({ x5c }: { x5c: string[] }) => new X509Certificate(Buffer.from(x5c[0]!, 'base64')))

describe('an X.509-SVID', () => {
  test('certifies the key that was measured, for the role, and verifies against the bundle', async () => {
    const response = await x509()
    const answer = await bodyOf(response)
    expect([response.status, answer.spiffe_id]).toEqual([200, SPIFFE_ID])
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(answer.expires_at).toBe(START + 600)
    expect(answer.certificates).toHaveLength(1)
    const leaf = new X509Certificate(Buffer.from(answer.certificates[0], 'base64'))
    const [authority] = await authorities()
    expect(leaf.checkIssued(authority!) && leaf.verify(authority!.publicKey)).toBe(true)
    expect(leaf.publicKey.equals(createPublicKey(key.key))).toBe(true)
    expect(leaf.subjectAltName).toBe(`URI:${SPIFFE_ID}`)
    expect(leaf.ca).toBe(false)
    expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
    expect(leaf.validFromDate).toEqual(new Date((START - 10) * 1000))
    expect(leaf.validToDate).toEqual(new Date((START + 600) * 1000))
    // The serial number is the decision: whoever has the certificate finds its evidence.
    expect(BigInt(`0x${leaf.serialNumber}`)).toBe(
      BigInt(`0x${answer.decision.replaceAll('-', '')}`),
    )
    expect(authority!.subjectAltName).toBe(`URI:spiffe://${TRUST_DOMAIN}`)
    expect(authority!.ca).toBe(true)
    const { content } = parseDecision(await readEnvelopeText(self.broker, answer.log_index))
    expect(content).toMatchObject({
      type: 'x509_svid',
      keyThumbprint: key.thumbprint,
      expiresAt: answer.expires_at,
      id: answer.decision,
    })
  })

  test.skipIf(!existsSync('/usr/bin/openssl'))(
    'is what OpenSSL takes for one, also as client and as server',
    async () => {
      const answer = await bodyOf(await x509())
      const leaf = new X509Certificate(Buffer.from(answer.certificates[0], 'base64'))
      const [authority] = await authorities()
      const [leafFile, rootFile] = ['leaf.pem', 'root.pem'].map((name) => join(self.dir, name))
      writeFileSync(leafFile!, leaf.toString())
      writeFileSync(rootFile!, authority!.toString())
      const openssl = (...args: string[]): string =>
        execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
      for (const purpose of ['sslclient', 'sslserver']) {
        const said = openssl(
          ...['verify', '-x509_strict', '-purpose', purpose, '-attime', String(START)],
          ...['-CAfile', rootFile!, leafFile!],
        )
        expect(said).toContain('OK')
      }
      const text = openssl('x509', '-in', leafFile!, '-noout', '-text')
      expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/)
      expect(text).toMatch(/Key Usage: critical\s+Digital Signature\s/)
      expect(text).toMatch(/TLS Web Server Authentication, TLS Web Client Authentication/)
      const ofRoot = openssl('x509', '-in', rootFile!, '-noout', '-text')
      expect(ofRoot).toMatch(/Basic Constraints: critical\s+CA:TRUE, pathlen:0/)
      expect(ofRoot).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign\s/)
    },
  )

  test('is refused for a key that is not in the evidence, and the log says so', async () => {
    const other = nodeKey()
    const evidence = await evidenceFor(SVID_AUDIENCE)
    await expectRefusal(await x509(evidence, spki(other.key)), 400, 'EVIDENCE_WORKLOAD_KEY')
    expect(await lastLoggedCode(self)).toBe('EVIDENCE_WORKLOAD_KEY')
    // The evidence is used up: the right key cannot come later.
    await expectRefusal(await x509(evidence), 400, 'NONCE_REUSED')
    const keyless = await evidenceFor(SVID_AUDIENCE, { edit: (e) => (e.workloadKey = null) })
    await expectRefusal(await x509(keyless), 400, 'EVIDENCE_WORKLOAD_KEY')
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test.each<[string, () => string]>([
    ['nothing', () => ''],
    ['bytes', () => randomBytes(91).toString('base64')],
    ['an RSA key', () => spki(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey)],
    ['a key on P-384', () => spki(generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey)],
    [
      'a key on secp256k1',
      () => spki(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey),
    ],
    ['an Ed25519 key', () => spki(generateKeyPairSync('ed25519').publicKey)],
    [
      'bytes after the key',
      () => Buffer.concat([Buffer.from(spki(key.key), 'base64'), Buffer.of(0)]).toString('base64'),
    ],
    ['other base64 of the key', () => `${spki(key.key).slice(0, -1)}`],
    [
      'a point off the curve',
      () => Buffer.from(spki(key.key), 'base64').fill(1, 60).toString('base64'),
    ],
    ['explicit parameters', () => explicitParameters()],
    ['a compressed point', () => compressedPoint(key.key)],
  ])(
    'is refused for %s instead of a P-256 key, before the evidence is used up',
    async (_, make) => {
      const evidence = await evidenceFor(SVID_AUDIENCE)
      const response = await x509(evidence, make())
      const { code } = await bodyOf(response)
      expect([response.status, ['SVID_KEY', 'REQUEST_INVALID'].includes(code)]).toEqual([400, true])
      expect((await x509(evidence)).status).toBe(200)
    },
  )

  test('is refused for a key of a megabyte', async () => {
    const evidence = await evidenceFor(SVID_AUDIENCE)
    const response = await x509(evidence, 'A'.repeat(1024 * 1024))
    expect([400, 413]).toContain(response.status)
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test('is renewed with another certificate for the same key, and replayed never', async () => {
    const evidence = await evidenceFor(SVID_AUDIENCE)
    const first = await bodyOf(await x509(evidence))
    await expectRefusal(await x509(evidence), 400, 'NONCE_REUSED')
    const second = await bodyOf(await x509())
    expect(second.certificates[0]).not.toBe(first.certificates[0])
    expect(second.decision).not.toBe(first.decision)
  })
})

describe('a JWT-SVID', () => {
  test('is for one audience and verifies by the bundle alone', async () => {
    const response = await jwt()
    const answer = await bodyOf(response)
    expect([response.status, answer.spiffe_id]).toEqual([200, SPIFFE_ID])
    const [header, payload, signature] = answer.svid.split('.')
    const { keys } = await bundle()
    const head = JSON.parse(Buffer.from(header, 'base64url').toString())
    const jwk = keys.find((one: { kid?: string }) => one.kid === head.kid)
    expect(head).toEqual({ typ: 'JWT', alg: 'ES256', kid: jwk.kid })
    const { kty, crv, x, y } = jwk
    const verified = verify(
      'sha256',
      Buffer.from(`${header}.${payload}`),
      { key: { kty, crv, x, y }, format: 'jwk', dsaEncoding: 'ieee-p1363' },
      Buffer.from(signature, 'base64url'),
    )
    expect(verified).toBe(true)
    const claims = decodeJwt(answer.svid)
    expect(claims).toMatchObject({
      iss: ISSUER,
      sub: SPIFFE_ID,
      aud: [JWT_AUDIENCE],
      iat: START,
      nbf: START - 10,
      exp: START + 300,
      jti: answer.decision,
      bagcheck_role: 'orders',
    })
    expect(answer.svid.length).toBeLessThan(4096)
    expect(answer.expires_at).toBe(START + 300)
  })

  test('verifies by discovery and JWKS too, under another key than access tokens', async () => {
    const { svid } = await bodyOf(await jwt())
    const fetch = async (url: string) => self.request('GET', new URL(url).pathname)
    const jwks = createRemoteJWKSet(new URL(`${ISSUER}/jwks`), { [customFetch]: fetch })
    const { protectedHeader } = await jwtVerify(svid, jwks, {
      ...{ issuer: ISSUER, audience: JWT_AUDIENCE, typ: 'JWT', algorithms: ['ES256'] },
      currentDate: new Date(self.nowMs),
    })
    expect(protectedHeader.kid).not.toBe(self.broker.keys.token.kid)
    const { keys } = await bundle()
    expect(keys.map(({ kid }: { kid?: string }) => kid)).not.toContain(self.broker.keys.token.kid)
  })
})

describe('evidence', () => {
  test('for an access token makes no SVID, and for an SVID no access token', async () => {
    for (const [make, code] of [
      [async () => jwt(await evidenceFor(AUDIENCE)), 'TOKEN_TYPE_MISMATCH'],
      [async () => x509(await evidenceFor(AUDIENCE)), 'EVIDENCE_AUDIENCE'],
      [async () => jwt(await evidenceFor(SVID_AUDIENCE)), 'TOKEN_TYPE_MISMATCH'],
      [async () => x509(await evidenceFor(JWT_AUDIENCE)), 'EVIDENCE_AUDIENCE'],
      [
        async () => self.token(await evidenceFor(SVID_AUDIENCE), SVID_AUDIENCE),
        'TOKEN_TYPE_MISMATCH',
      ],
      [
        async () => self.token(await evidenceFor(JWT_AUDIENCE), JWT_AUDIENCE),
        'TOKEN_TYPE_MISMATCH',
      ],
    ] as const) {
      const response = await make()
      const answer = await bodyOf(response)
      expect(answer).toEqual(expect.objectContaining({ code }))
      expect(answer).not.toHaveProperty('svid')
      expect(answer).not.toHaveProperty('certificates')
      expect(answer).not.toHaveProperty('access_token')
      expect(response.status).toBeGreaterThanOrEqual(400)
      expect(await lastLoggedCode(self)).toBe(code)
    }
    expect(await allowedDecisions(self, node)).toBe(0)
  })

  test.each([
    ['another trust domain', 'spiffe://other.test', 'EVIDENCE_AUDIENCE'],
    ['the trust domain in another spelling', `spiffe://${TRUST_DOMAIN}/`, 'EVIDENCE_AUDIENCE'],
    ['an audience that the role does not have', 'https://evil.test', 'EVIDENCE_AUDIENCE'],
  ])('for %s makes no X.509-SVID', async (_, audience, code) => {
    const response = await x509(await evidenceFor(audience))
    expect((await bodyOf(response)).code).toBe(code)
    expect(await lastLoggedCode(self)).toBe(code)
  })

  test('for an audience that the role does not have makes no JWT-SVID', async () => {
    await expectRefusal(
      await jwt(await evidenceFor('https://evil.test')),
      403,
      'AUDIENCE_NOT_ALLOWED',
    )
  })

  test('of a file with other bytes makes no SVID of either type', async () => {
    // oxlint-disable-next-line typescript/no-explicit-any
    const edit = (e: any): void => {
      e.facts.processes[0].files.push({
        ...e.facts.processes[0].executable,
        sha256: '0'.repeat(64),
      })
    }
    await expectRefusal(
      await x509(await evidenceFor(SVID_AUDIENCE, { edit })),
      403,
      'CONTENT_MISMATCH',
    )
    await expectRefusal(
      await jwt(await evidenceFor(JWT_AUDIENCE, { edit })),
      403,
      'CONTENT_MISMATCH',
    )
  })
})

describe('a request for an SVID', () => {
  test.each([
    ['of another type', { type: 'wit', evidence: 'e' }],
    ['of no type', { evidence: 'e' }],
    ['without a key where one is certified', { type: 'x509', evidence: 'e' }],
    ['with a key where none is', { type: 'jwt', evidence: 'e', publicKey: 'AAAA' }],
    ['with a wish of its own', { type: 'jwt', evidence: 'e', audience: ['a', 'b'] }],
  ])('%s is malformed', async (_, body) => {
    await expectRefusal(await post(body), 400, 'REQUEST_INVALID')
  })
})

/** The key with its curve spelled out, which OpenSSL would take for P-256 all the same. */
function explicitParameters(): string {
  const { publicKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    paramEncoding: 'explicit',
  })
  return spki(publicKey)
}

function compressedPoint(of: KeyObject): string {
  const bytes = Buffer.from(spki(of), 'base64')
  const point = bytes.subarray(27, 59)
  const parity = 2 + (bytes[90]! & 1)
  // SEQUENCE and BIT STRING are 32 bytes shorter.
  const head = Buffer.from(bytes.subarray(0, 26))
  head[1]! -= 32
  head[24]! -= 32
  return Buffer.concat([head, Buffer.of(parity), point]).toString('base64')
}
