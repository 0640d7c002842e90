// spiffe.sock before a broker that does as it is told, asked by a client library of others.
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  X509Certificate,
} from 'node:crypto'
import { statSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type FakeBroker, SPIFFE_ID, TRUST_DOMAIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startSpiffeAgent, type SpiffeAgent } from './fixture/spiffe-agent.ts'
import { SpiffeAuthority } from './fixture/spiffe-authority.ts'
import { header, SpiffeClient, type Message, type Svid } from './fixture/spiffe-client.ts'

const AUDIENCE = 'https://api.demo.test'
const OWN = `spiffe://${TRUST_DOMAIN}`
const [OK, INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE] = [0, 3, 7, 12, 14]

let agent: SpiffeAgent
let broker: FakeBroker
let client: SpiffeClient

const privateRoot = inPrivateRoot()
const socket = (): string => agent.socket
const svidOf = (message: Message | undefined): Svid => message?.svids[0] as Svid
const jwksIn = (message: Message | undefined): { keys: unknown[] } =>
  JSON.parse(String(message?.bundles[OWN])) as { keys: unknown[] }
const leafOf = (svid: Svid): X509Certificate => new X509Certificate(svid.x509_svid)

describe.runIf(privateRoot)('the Workload API', () => {
  beforeEach(async () => {
    agent = await startSpiffeAgent()
    broker = agent.broker
    client = new SpiffeClient(agent.socket)
  })
  afterEach(async () => {
    client[Symbol.dispose]()
    await agent[Symbol.asyncDispose]()
  })

  test('anybody may connect to, and a caller gets an X.509-SVID whose key only it has', async () => {
    expect(statSync(socket()).mode & 0o777).toBe(0o666)
    const stream = client.stream('FetchX509SVID')
    const { message } = await stream.next()
    expect(message?.svids).toHaveLength(1)
    const svid = svidOf(message)
    expect(svid.spiffe_id).toBe(SPIFFE_ID)
    expect(svid.bundle).toEqual(broker.authority.certificate)
    const leaf = leafOf(svid)
    expect(leaf.subjectAltName).toBe(`URI:${SPIFFE_ID}`)
    const key = createPrivateKey({ key: svid.x509_svid_key, format: 'der', type: 'pkcs8' })
    expect(leaf.checkPrivateKey(key)).toBe(true)
    expect(leaf.verify(new X509Certificate(svid.bundle).publicKey)).toBe(true)
    expect(broker.evidence[0]).toMatchObject({
      previousDecision: null,
      workloadKey: expect.stringMatching(/^[\w-]{43}$/),
      facts: { purpose: 'issue', audience: OWN, callerPid: process.pid },
    })
    stream.cancel()
  })

  test.each([
    ['no header', []],
    ['a header twice', ['true', 'true']],
    ['another value', ['True']],
    ['an empty value', ['']],
  ])('refuses a request with %s, whatever the method', async (_what, values) => {
    const metadata = header(values)
    for (const method of ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles', 'FetchWITSVID'])
      expect((await client.stream(method, metadata).next()).end?.code).toBe(INVALID_ARGUMENT)
    for (const method of ['FetchJWTSVID', 'ValidateJWTSVID']) {
      const request = { audience: method === 'FetchJWTSVID' ? [AUDIENCE] : AUDIENCE, svid: 'x' }
      expect((await client.call(method, request, metadata)).code).toBe(INVALID_ARGUMENT)
    }
    expect(broker.evidence).toEqual([])
  })

  test('does not offer WIT-SVIDs, and says so', async () => {
    for (const method of ['FetchWITSVID', 'FetchWITBundles'])
      expect((await client.stream(method).next()).end?.code).toBe(UNIMPLEMENTED)
  })

  test('renews at half the life with a new key, after a new measurement and decision', async () => {
    broker.ttlSeconds = 3
    const stream = client.stream('FetchX509SVID')
    const first = svidOf((await stream.next()).message)
    const second = svidOf((await stream.next()).message)
    const keys = [first, second].map((svid) => svid.x509_svid_key.toString('hex'))
    expect(keys[0]).not.toBe(keys[1])
    expect(leafOf(first).fingerprint256).not.toBe(leafOf(second).fingerprint256)
    const [issued, renewed] = broker.evidence
    expect(renewed).toMatchObject({ previousDecision: 'decision-1', facts: { purpose: 'renew' } })
    expect(renewed?.workloadKey).not.toBe(issued?.workloadKey)
    expect(renewed?.nonce).not.toBe(issued?.nonce)
  })

  test('ends the stream with PermissionDenied as soon as a renewal is denied', async () => {
    broker.ttlSeconds = 3
    const stream = client.stream('FetchX509SVID')
    await stream.next()
    broker.verdict = 'deny'
    expect(await stream.next()).toEqual({
      end: { code: PERMISSION_DENIED, details: 'CLOSURE_NOT_APPROVED: denied' },
    })
    // Nobody is left to measure for.
    const asked = broker.evidence.length
    broker.verdict = 'allow'
    await new Promise((resolve) => setTimeout(resolve, 3000))
    expect(broker.evidence).toHaveLength(asked)
    const again = client.stream('FetchX509SVID')
    expect(svidOf((await again.next()).message).spiffe_id).toBe(SPIFFE_ID)
    expect(broker.evidence.at(-1)).toMatchObject({ previousDecision: null })
  })

  test('a denial ends every stream of the process, also when another stream asked', async () => {
    const first = client.stream('FetchX509SVID')
    await first.next()
    broker.verdict = 'deny'
    using other = new SpiffeClient(socket())
    const second = other.stream('FetchX509SVID')
    expect((await second.next()).end?.code).toBe(PERMISSION_DENIED)
    expect((await first.next()).end?.code).toBe(PERMISSION_DENIED)
  })

  test('says PermissionDenied to who is denied at first, and Unavailable without a broker', async () => {
    broker.verdict = 'deny'
    expect((await client.stream('FetchX509SVID').next()).end?.code).toBe(PERMISSION_DENIED)
    const denied = await client.call('FetchJWTSVID', { audience: [AUDIENCE] })
    expect([denied.code, denied.details]).toEqual([
      PERMISSION_DENIED,
      'CLOSURE_NOT_APPROVED: denied',
    ])
    for (const verdict of ['down', 'busy'] as const) {
      broker.verdict = verdict
      expect((await client.stream('FetchX509SVID').next()).end?.code).toBe(UNAVAILABLE)
      const call = await client.call('FetchJWTSVID', { audience: [AUDIENCE] })
      expect(call.code).toBe(UNAVAILABLE)
    }
  })

  test('a broker that is away does not end a stream before the SVID does', async () => {
    broker.ttlSeconds = 4
    const stream = client.stream('FetchX509SVID')
    const until = Date.parse(leafOf(svidOf((await stream.next()).message)).validTo)
    broker.verdict = 'down'
    const { end } = await stream.next()
    expect(end?.code).toBe(UNAVAILABLE)
    expect(Date.now()).toBeGreaterThanOrEqual(until - 1000)
  })

  test('a new authority is told at once, and what the old one signed is replaced', async () => {
    const svids = client.stream('FetchX509SVID')
    const bundles = client.stream('FetchX509Bundles')
    const jwtBundles = client.stream('FetchJWTBundles')
    const old = broker.authority
    expect(svidOf((await svids.next()).message).bundle).toEqual(old.certificate)
    expect((await bundles.next()).message?.bundles).toEqual({ [OWN]: old.certificate })
    const jwks = jwksIn((await jwtBundles.next()).message)
    expect(jwks).toEqual({ keys: [{ ...old.jwt.jwk, use: 'jwt-svid', kid: old.jwt.thumbprint }] })
    broker.retired = [old]
    broker.authority = new SpiffeAuthority(TRUST_DOMAIN)
    broker.sequence += 1
    const both = Buffer.concat([broker.authority.certificate, old.certificate])
    expect((await bundles.next()).message?.bundles).toEqual({ [OWN]: both })
    const next = svidOf((await svids.next()).message)
    expect(next.bundle).toEqual(both)
    const issuer = new X509Certificate(broker.authority.certificate)
    expect(leafOf(next).verify(issuer.publicKey)).toBe(true)
    expect(broker.evidence.at(-1)).toMatchObject({ facts: { purpose: 'renew' } })
    const { keys } = jwksIn((await jwtBundles.next()).message)
    expect(keys).toHaveLength(2)
  })

  test('bundles of other trust domains come with ours, and never mix with them', async () => {
    const other = new SpiffeAuthority('other.test')
    broker.federated = [other]
    const bundles = await client.stream('FetchX509Bundles').next()
    expect(bundles.message?.bundles).toEqual({
      [OWN]: broker.authority.certificate,
      'spiffe://other.test': other.certificate,
    })
    const svid = await client.stream('FetchX509SVID').next()
    expect(svid.message?.federated_bundles).toEqual({
      'spiffe://other.test': other.certificate,
    })
    expect(svidOf(svid.message).bundle).toEqual(broker.authority.certificate)
    const validate = (svid: string) => client.call('ValidateJWTSVID', { audience: AUDIENCE, svid })
    const foreign = await validate(other.token({ aud: AUDIENCE }))
    expect([foreign.code, foreign.message.spiffe_id]).toEqual([
      OK,
      'spiffe://other.test/role/orders',
    ])
    // Signed by a key that is trusted, for a trust domain that it is not of.
    const posed = await validate(other.token({ aud: AUDIENCE, sub: SPIFFE_ID }))
    expect(posed.code).toBe(INVALID_ARGUMENT)
  })

  test.each<[string, (leaf: Parameters<FakeBroker['certify']>[0]) => Buffer[]]>([
    ['of another key', (leaf) => [broker.authority.certify({ ...leaf, publicKey: otherKey() })]],
    ['of another name', (leaf) => [broker.authority.certify({ ...leaf, id: `${OWN}/role/x` })]],
    ['of an authority', (leaf) => [broker.authority.certify({ ...leaf, isCa: true })]],
    ['of a stranger', (leaf) => [new SpiffeAuthority(TRUST_DOMAIN).certify(leaf)]],
    ['that has expired', (leaf) => [broker.authority.certify({ ...leaf, ttlSeconds: -1 })]],
    ['that is none', () => [Buffer.from('none')]],
    ['that is not there', () => []],
  ])('does not pass a certificate on %s', async (_what, certify) => {
    broker.certify = certify
    const { end } = await client.stream('FetchX509SVID').next()
    expect([end?.code, end?.details.split(':')[0]]).toEqual([UNAVAILABLE, 'BROKER_RESPONSE'])
  })

  test('a JWT-SVID is for one audience, fresh each time, and verifies', async () => {
    const svids: string[] = []
    for (let n = 1; n <= 2; n += 1) {
      const { code, message } = await client.call('FetchJWTSVID', { audience: [AUDIENCE] })
      expect(code).toBe(OK)
      expect(svidOf(message).spiffe_id).toBe(SPIFFE_ID)
      svids.push(svidOf(message).svid)
    }
    expect(svids[0]).not.toBe(svids[1])
    expect(broker.evidence).toMatchObject([
      { workloadKey: null, facts: { audience: AUDIENCE, purpose: 'issue' } },
      { workloadKey: null, facts: { audience: AUDIENCE, purpose: 'issue' } },
    ])
    const valid = await client.call('ValidateJWTSVID', { audience: AUDIENCE, svid: svids[0] })
    expect(valid.message.spiffe_id).toBe(SPIFFE_ID)
    const { fields } = valid.message.claims
    expect(fields['sub']?.stringValue).toBe(SPIFFE_ID)
  })

  test('a JWT-SVID for several audiences, for none, or for another is refused', async () => {
    const ask = (request: unknown) => client.call('FetchJWTSVID', request)
    const several = await ask({ audience: [AUDIENCE, 'https://b'] })
    expect(several.code).toBe(INVALID_ARGUMENT)
    expect(several.details).toContain('expected one audience, saw 2')
    expect((await ask({ audience: [] })).code).toBe(INVALID_ARGUMENT)
    expect((await ask({ audience: [''] })).code).toBe(INVALID_ARGUMENT)
    expect((await ask({ audience: ['x'.repeat(600)] })).code).toBe(INVALID_ARGUMENT)
    for (const spiffe_id of ['orders', 'spiffe://', `${OWN}/a/../b`, `${SPIFFE_ID}/`, `${OWN}//a`])
      expect((await ask({ audience: [AUDIENCE], spiffe_id })).code).toBe(INVALID_ARGUMENT)
    expect(broker.evidence).toEqual([])
    const elsewhere = await ask({
      audience: [AUDIENCE],
      spiffe_id: 'spiffe://other.test/role/orders',
    })
    expect(elsewhere.code).toBe(PERMISSION_DENIED)
    expect(broker.evidence).toEqual([])
    const another = await ask({ audience: [AUDIENCE], spiffe_id: `${OWN}/role/reports` })
    expect(another.code).toBe(PERMISSION_DENIED)
    expect((await ask({ audience: [AUDIENCE], spiffe_id: SPIFFE_ID })).code).toBe(OK)
  })

  test('a process that asks again and again waits, and can be told so', async () => {
    // At once, so that they share measurements: what may be hashed for this big process in a while is bounded, too.
    const calls = Array.from({ length: 40 }, () =>
      client.call('FetchJWTSVID', { audience: [AUDIENCE] }),
    )
    const codes = (await Promise.all(calls)).map(({ code }) => code)
    expect(codes.filter((code) => code === OK).length).toBeGreaterThanOrEqual(20)
    expect(codes.every((code) => code === OK || code === UNAVAILABLE)).toBe(true)
    expect(broker.evidence).toHaveLength(codes.filter((code) => code === OK).length)
  })

  test('nothing secret is in the log', async () => {
    await client.stream('FetchX509SVID').next()
    await client.call('FetchJWTSVID', { audience: [AUDIENCE] })
    await client.call('ValidateJWTSVID', {
      audience: 'other',
      svid: broker.authority.token({ aud: AUDIENCE }),
    })
    expect(agent.lines.join('\n')).not.toMatch(/eyJ|PRIVATE KEY/)
  })
})

function otherKey(): Buffer {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return createPublicKey(publicKey.export({ type: 'spki', format: 'pem' })).export({
    type: 'spki',
    format: 'der',
  })
}
