// The life of what signs SVIDs, on a clock that tests move, and what somebody with a database could do to it.
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { createPublicKey, X509Certificate } from 'node:crypto'
import type { AuthorityRecord, TrustBundle } from '@bagcheck/api'
import { generateSigningKey } from '@bagcheck/attest'
import { evaluate } from '@bagcheck/policy'
import { nodeKey, type NodeKey } from '@bagcheck/testkit'
import { decodeProtectedHeader } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createApp } from '../../src/app.ts'
import { BrokerError } from '../../src/error.ts'
import { logAllow, type LoggedDecision } from '../../src/decision.ts'
import { checkEvidence, identifyEvidence } from '../../src/evidence.ts'
import { wantedBy } from '../../src/spiffe/authorities.ts'
import { AuthorityBook } from '../../src/spiffe/authority-book.ts'
import { AuthorityKeys } from '../../src/spiffe/authority-keys.ts'
import { signStep } from '../../src/spiffe/authority-step.ts'
import { mintJwtSvid, mintX509Svid } from '../../src/spiffe/svid.ts'
import { parseWorkloadKey } from '../../src/spiffe/workload-key.ts'
import { mintToken } from '../../src/token.ts'
import { allowedDecisions, bodyOf, expectRefusal } from './answers.ts'
import {
  createInstallation,
  INSTALLATION,
  ISSUER,
  JWT_AUDIENCE,
  START,
  SVID_AUDIENCE,
  TRUST_DOMAIN,
  type Installation,
  type TestNode,
} from './installation.ts'

const LIFE = 1200

let self: Installation
let node: TestNode
let key: NodeKey

const open = async (svids = true): Promise<void> => {
  self = await createInstallation({ svids, spiffe: { authorityTtlSeconds: LIFE } })
  await self.ready()
  node = await self.enrol()
  key = nodeKey()
}
beforeEach(() => open())
afterEach(() => self[Symbol.asyncDispose]())

const spki = (): string =>
  createPublicKey(key.key).export({ type: 'spki', format: 'der' }).toString('base64')
const evidenceFor = (audience: string): Promise<string> =>
  self.evidence(node, {
    edit: (evidence) => {
      evidence.facts.audience = audience
      evidence.workloadKey = key.thumbprint
    },
  })
const x509 = async (): Promise<Response> =>
  self.request('POST', '/v1/svids', {
    ...{ type: 'x509', evidence: await evidenceFor(SVID_AUDIENCE), publicKey: spki() },
  })
const jwt = async (): Promise<Response> =>
  self.request('POST', '/v1/svids', { type: 'jwt', evidence: await evidenceFor(JWT_AUDIENCE) })
const leafOf = async (response: Response): Promise<X509Certificate> => {
  const { certificates } = await bodyOf(response)
  return new X509Certificate(Buffer.from(certificates[0], 'base64'))
}
const bundle = async (): Promise<TrustBundle> => bodyOf(await self.request('GET', '/bundle'))
const roots = ({ keys }: TrustBundle): X509Certificate[] =>
  keys.flatMap((one) =>
    one.use === 'x509-svid' ? [new X509Certificate(Buffer.from(one.x5c[0]!, 'base64'))] : [],
  )
const kids = ({ keys }: TrustBundle): string[] =>
  keys.flatMap((one) => (one.use === 'jwt-svid' ? [one.kid] : []))
const verifiesBy = (leaf: X509Certificate, from: TrustBundle): boolean =>
  roots(from).some((root) => leaf.checkIssued(root) && leaf.verify(root.publicKey))
const admin = (method: string, path: string, body?: unknown): Promise<Response> =>
  self.request(method, path, body, true)
const list = async (): Promise<AuthorityRecord[]> =>
  (await bodyOf(await admin('GET', '/v1/authorities'))).authorities
const states = async (kind: 'x509' | 'jwt' = 'x509'): Promise<string[]> =>
  (await list()).filter((one) => one.kind === kind).map(({ state }) => state)
const idOf = async (kind: 'x509' | 'jwt', state: string): Promise<string> =>
  (await list()).find((one) => one.kind === kind && one.state === state)?.id ?? 'none'
const nowSeconds = (): number => Math.floor(self.nowMs / 1000)
const wanted = () => wantedBy(self.broker.policy.installed().verified.policy)
/** Moves the clock and does what the broker does every two seconds. */
const later = async (seconds: number): Promise<void> => {
  self.nowMs += seconds * 1000
  await self.broker.authorities.tend(wanted(), nowSeconds())
}

describe('rotation', () => {
  test('prepares at half of the life left, activates at a sixth, and forgets what nobody needs', async () => {
    const first = await leafOf(await x509())
    const jwtFirst = decodeProtectedHeader((await bodyOf(await jwt())).svid).kid!
    const sequences = [(await bundle()).spiffe_sequence]
    expect([await states(), await states('jwt')]).toEqual([['active'], ['active']])

    await later(LIFE / 2 - 1)
    expect(await states()).toEqual(['active'])
    await later(1)
    expect([await states(), await states('jwt')]).toEqual([
      ['active', 'prepared'],
      ['active', 'prepared'],
    ])
    const [old, next] = roots(await bundle())
    sequences.push((await bundle()).spiffe_sequence)
    const still = await leafOf(await x509())
    expect([still.checkIssued(old!), still.checkIssued(next!)]).toEqual([true, false])

    await later(LIFE / 3)
    expect([await states(), await states('jwt')]).toEqual([
      ['old', 'active'],
      ['old', 'active'],
    ])
    sequences.push((await bundle()).spiffe_sequence)
    const by = await leafOf(await x509())
    expect(by.checkIssued(next!) && by.verify(next!.publicKey)).toBe(true)
    const jwtNow = decodeProtectedHeader((await bodyOf(await jwt())).svid).kid!
    expect(jwtNow).not.toBe(jwtFirst)
    expect(kids(await bundle())).toEqual([jwtFirst, jwtNow])
    expect(verifiesBy(still, await bundle()) && verifiesBy(first, await bundle())).toBe(true)

    // Its end, and the leeway of verifiers.
    await later(LIFE / 6 + 600)
    expect(verifiesBy(still, await bundle())).toBe(true)
    await later(1)
    expect(verifiesBy(still, await bundle())).toBe(false)
    expect(kids(await bundle())).not.toContain(jwtFirst)
    sequences.push((await bundle()).spiffe_sequence)
    expect(sequences).toEqual([...new Set(sequences)].toSorted((a, b) => a - b))
    const keyFiles = readdirSync(join(self.config.stateDir, 'authorities'))
    expect(keyFiles.toSorted()).toEqual((await list()).map(({ id }) => `${id}.pem`).toSorted())
  })

  test('makes nothing where the policy has no SVIDs: the bundle is empty, and so is the list', async () => {
    await self[Symbol.asyncDispose]()
    await open(false)
    expect(await bundle()).toEqual({ keys: [], spiffe_sequence: 0, spiffe_refresh_hint: 80 })
    expect(await list()).toEqual([])
    await later(LIFE)
    expect(await list()).toEqual([])
  })

  test('goes on where it stood after a restart, with the same bundle', async () => {
    const leaf = await leafOf(await x509())
    await later(LIFE / 2)
    const before = await bundle()
    await self.restart()
    expect(await bundle()).toEqual(before)
    const again = await leafOf(await x509())
    expect(again.issuer).toBe(leaf.issuer)
    for (const { id } of await list()) {
      const file = join(self.config.stateDir, 'authorities', `${id}.pem`)
      expect(statSync(file).mode & 0o777).toBe(0o600)
    }
  })

  test('makes another authority where the keys of the active one are gone', async () => {
    const leaf = await leafOf(await x509())
    await self.broker.close()
    rmSync(join(self.config.stateDir, 'authorities'), { recursive: true })
    await self.restart()
    const other = await leafOf(await x509())
    expect(other.issuer).not.toBe(leaf.issuer)
    // What the lost key signed goes on verifying: nobody said that it is in wrong hands.
    expect([verifiesBy(leaf, await bundle()), verifiesBy(other, await bundle())]).toEqual([
      true,
      true,
    ])
  })
})

test('another trust domain in the policy has authorities of its own, and nothing of the old one', async () => {
  const leaf = await leafOf(await x509())
  const before = await bundle()
  const trustDomain = 'next.bagcheck.test'
  const edit = (text: string): string => text.replaceAll(TRUST_DOMAIN, trustDomain)
  const prev = self.policy().sha256
  expect((await self.publish({ version: 2, prev, edit })).status).toBe(200)
  await expectRefusal(await x509(), 400, 'EVIDENCE_AUDIENCE')
  const evidence = await evidenceFor(`spiffe://${trustDomain}`)
  const body = { type: 'x509', evidence, publicKey: spki() }
  const next = await leafOf(await self.request('POST', '/v1/svids', body))
  expect(next.subjectAltName).toBe(`URI:spiffe://${trustDomain}/role/orders`)
  const after = await bundle()
  expect(after.spiffe_sequence).toBeGreaterThan(before.spiffe_sequence)
  expect([verifiesBy(leaf, after), verifiesBy(next, after)]).toEqual([false, true])
  expect(roots(after).map((root) => root.subjectAltName)).toEqual([`URI:spiffe://${trustDomain}`])
})

describe('what an authority signs', () => {
  test('ends with it at the latest', async () => {
    await x509()
    const [{ expiresAt } = { expiresAt: 0 }] = await list()
    // Nobody tended: what is left of the active one is all that there is to give.
    self.nowMs = (expiresAt - 60) * 1000
    const { authorities } = self.broker
    const signer = authorities.x509Signer(TRUST_DOMAIN, nowSeconds())
    expect(signer.expiresAt).toBe(expiresAt)
    const logged = await loggedAllow(SVID_AUDIENCE, signer)
    const { certificates, expiresAt: end } = mintX509Svid(logged, signer, parseWorkloadKey(spki()))
    expect(end).toBe(expiresAt)
    const leaf = new X509Certificate(certificates[0]!)
    const root = new X509Certificate(signer.certificate)
    expect(leaf.validToDate).toEqual(root.validToDate)
  })

  test('is nothing any more in its last five seconds, and the next request gets another', async () => {
    const first = await leafOf(await x509())
    const [{ expiresAt } = { expiresAt: 0 }] = await list()
    self.nowMs = (expiresAt - 4) * 1000
    const missing = expect.objectContaining({ code: 'AUTHORITY_MISSING' })
    const { authorities } = self.broker
    expect(() => authorities.x509Signer(TRUST_DOMAIN, nowSeconds())).toThrow(missing)
    expect(() => authorities.jwtSigner(TRUST_DOMAIN, nowSeconds())).toThrow(missing)
    expect(() => authorities.x509Signer('other.test', START)).toThrow(missing)
    expect((await leafOf(await x509())).issuer).not.toBe(first.issuer)
  })

  test('is minted from a logged decision about that very type, key and authority, once', async () => {
    await x509()
    const { authorities, keys } = self.broker
    const x509Signer = authorities.x509Signer(TRUST_DOMAIN, nowSeconds())
    const jwtSigner = authorities.jwtSigner(TRUST_DOMAIN, nowSeconds())
    const workload = parseWorkloadKey(spki())
    const allowX509 = () => loggedAllow(SVID_AUDIENCE, x509Signer)
    const allowJwt = () => loggedAllow(JWT_AUDIENCE, jwtSigner)
    for (const wrong of [await allowX509(), await allowJwt()])
      expect(() => mintToken(wrong, ISSUER, keys.token)).toThrow(TypeError)
    const forX509 = await allowX509()
    expect(() => mintJwtSvid(forX509, ISSUER, jwtSigner)).toThrow(TypeError)
    // Used up, also in vain.
    expect(() => mintX509Svid(forX509, x509Signer, workload)).toThrow(TypeError)
    const forJwt = await allowJwt()
    expect(() => mintX509Svid(forJwt, x509Signer, workload)).toThrow(TypeError)
    const otherKey = { ...workload, thumbprint: nodeKey().thumbprint }
    const [a, b, c] = [await allowX509(), await allowX509(), await allowX509()]
    expect(() => mintX509Svid(a, x509Signer, otherKey)).toThrow(TypeError)
    expect(() => mintX509Svid(b, { ...x509Signer, id: 'other' }, workload)).toThrow(TypeError)
    expect(mintX509Svid(c, x509Signer, workload).certificates).toHaveLength(1)
    expect(() => mintX509Svid(c, x509Signer, workload)).toThrow(TypeError)
    const [d, e] = [await allowJwt(), await allowJwt()]
    expect(() => mintJwtSvid(d, ISSUER, { ...jwtSigner, id: 'other' })).toThrow(TypeError)
    expect(mintJwtSvid(e, ISSUER, jwtSigner).text.split('.')).toHaveLength(3)
    expect(() => mintJwtSvid(e, ISSUER, jwtSigner)).toThrow(TypeError)
  })

  test('is signed by nothing that was superseded while it was decided', async () => {
    await x509()
    const before = self.broker.authorities.x509Signer(TRUST_DOMAIN, nowSeconds())
    await admin('POST', '/v1/authorities', { kind: 'x509' })
    const next = await idOf('x509', 'prepared')
    expect((await admin('POST', `/v1/authorities/${next}/activate`, {})).status).toBe(200)
    await expect(loggedAllow(SVID_AUDIENCE, before)).rejects.toMatchObject({
      code: 'AUTHORITY_CHANGED',
    })
    expect(await allowedDecisions(self, node)).toBe(1)
  })
})

describe('tainting', () => {
  test('ends an authority for signing at once, and tells agents; revoking takes it out of the bundle', async () => {
    const leaf = await leafOf(await x509())
    const before = await bundle()
    const id = await idOf('x509', 'active')
    const reason = { reason: 'its disk was stolen' }
    await expectRefusal(
      await admin('POST', `/v1/authorities/${id}/revoke`, reason),
      409,
      'AUTHORITY_STATE',
    )
    expect((await admin('POST', `/v1/authorities/${id}/taint`, reason)).status).toBe(200)
    const tainted = await bundle()
    expect(tainted.spiffe_sequence).toBeGreaterThan(before.spiffe_sequence)
    expect(tainted.bagcheck_tainted).toEqual([id])
    expect(verifiesBy(leaf, tainted)).toBe(true)
    expect(await states()).toEqual(['tainted', 'active'])
    const next = await leafOf(await x509())
    expect(next.issuer).not.toBe(leaf.issuer)

    expect((await admin('POST', `/v1/authorities/${id}/revoke`, reason)).status).toBe(200)
    const revoked = await bundle()
    expect(revoked.spiffe_sequence).toBeGreaterThan(tainted.spiffe_sequence)
    expect(revoked).not.toHaveProperty('bagcheck_tainted')
    expect([verifiesBy(leaf, revoked), verifiesBy(next, revoked)]).toEqual([false, true])
    const keyFiles = readdirSync(join(self.config.stateDir, 'authorities'))
    expect(keyFiles).not.toContain(`${id}.pem`)
    await expectRefusal(
      await admin('POST', `/v1/authorities/${id}/activate`, {}),
      404,
      'AUTHORITY_UNKNOWN',
    )
  })

  test('by another broker counts before this one has heard of it', async () => {
    const leaf = await leafOf(await x509())
    const token = decodeProtectedHeader((await bodyOf(await jwt())).svid).kid!
    // Asked for before: looking at the list is hearing of it.
    const ids = { x509: await idOf('x509', 'active'), jwt: await idOf('jwt', 'active') }
    const taint = (kind: 'x509' | 'jwt') =>
      self.broker.store.commitAuthority(
        stepOf({ authority: ids[kind], kind, action: 'taint', reason: 'stolen' }),
      )
    // The transaction that logs the decision refuses, and another authority signs.
    await taint('x509')
    const next = await x509()
    expect(next.status).toBe(200)
    expect((await leafOf(next)).issuer).not.toBe(leaf.issuer)
    await taint('jwt')
    expect(decodeProtectedHeader((await bodyOf(await jwt())).svid).kid).not.toBe(token)
  })

  test('of a JWT key takes it out of JWKS once it is revoked, too', async () => {
    const { kid } = decodeProtectedHeader((await bodyOf(await jwt())).svid)
    const jwks = async (): Promise<string[]> =>
      (await bodyOf(await self.request('GET', '/jwks'))).keys.map((one: { kid: string }) => one.kid)
    expect(await jwks()).toContain(kid)
    await admin('POST', `/v1/authorities/${kid}/taint`, { reason: 'stolen' })
    expect(await jwks()).toContain(kid)
    await admin('POST', `/v1/authorities/${kid}/revoke`, { reason: 'stolen' })
    expect(await jwks()).not.toContain(kid)
    expect(decodeProtectedHeader((await bodyOf(await jwt())).svid).kid).not.toBe(kid)
  })

  test('an authority twice is one entry, and of none that there is is refused', async () => {
    await x509()
    const id = await idOf('x509', 'active')
    const taint = async (): Promise<unknown> =>
      bodyOf(await admin('POST', `/v1/authorities/${id}/taint`, { reason: 'stolen' }))
    expect(await taint()).toEqual(await taint())
    await expectRefusal(
      await admin('POST', '/v1/authorities/nobody/taint', { reason: 'x' }),
      404,
      'AUTHORITY_UNKNOWN',
    )
    await expectRefusal(
      await admin('POST', `/v1/authorities/${id}/taint`, {}),
      400,
      'REQUEST_INVALID',
    )
  })
})

test('a second authority of a kind is not prepared while one is', async () => {
  await x509()
  expect((await admin('POST', '/v1/authorities', { kind: 'jwt' })).status).toBe(201)
  await expectRefusal(
    await admin('POST', '/v1/authorities', { kind: 'jwt' }),
    409,
    'AUTHORITY_STATE',
  )
  await expectRefusal(
    await admin('POST', '/v1/authorities', { kind: 'ssh' }),
    400,
    'REQUEST_INVALID',
  )
})

test('a store that fails leaves one key on disk, however often it is asked, and it serves later', async () => {
  const { store } = self.broker
  const commit = store.commitAuthority
  store.commitAuthority = () => Promise.reject(new BrokerError('STORE_FULL', 'no space left'))
  for (let i = 0; i < 5; i++)
    await expectRefusal(await self.request('GET', '/bundle'), 503, 'STORE_FULL')
  const dir = join(self.config.stateDir, 'authorities')
  const [begun, ...more] = readdirSync(dir)
  expect(more).toEqual([])
  store.commitAuthority = commit
  expect((await x509()).status).toBe(200)
  expect(readdirSync(dir)).toContain(begun)
  expect(await states()).toEqual(['active'])
})

test('a half-written key and one that no entry names are gone after a start', async () => {
  await x509()
  const dir = join(self.config.stateDir, 'authorities')
  const named = readdirSync(dir).toSorted()
  const { id } = AuthorityKeys.open(self.config.stateDir).create('x509')
  writeFileSync(join(dir, 'x.pem.1.new'), '-----BEGIN', { mode: 0o600 })
  expect(readdirSync(dir)).toContain(`${id}.pem`)
  await self.restart()
  expect(readdirSync(dir).toSorted()).toEqual(named)
})

describe('whoever writes to the database', () => {
  const edit = (...statements: string[]): void => {
    const { store } = self.config
    if (!('sqlite' in store)) throw new TypeError('these tests edit a SQLite file')
    using database = new DatabaseSync(store.sqlite.file)
    for (const statement of statements) database.exec(statement)
  }

  test.each([
    [
      'adds an authority',
      `insert into authority values ('mine', 'x509', 'active', 9999999999, 999, 999, null, null)`,
    ],
    ['drops one', 'delete from authority'],
    [
      'lifts a taint',
      `update authority set state = 'active', tainted_entry = null where state = 'tainted'`,
    ],
    ['lifts a taint in part', `update authority set state = 'active' where state = 'tainted'`],
    ['lets an old one sign', `update authority set state = 'active' where state = 'old'`],
    ['points to another entry', `update authority set prepared_entry = 1 where state = 'old'`],
  ])('and %s ends the start', async (_, statement) => {
    await x509()
    await later(LIFE / 2)
    await later(LIFE / 3)
    await admin('POST', `/v1/authorities/${await idOf('jwt', 'old')}/taint`, { reason: 'stolen' })
    await self.restart()
    await self.broker.close()
    edit(statement)
    await expect(self.restart()).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
  })

  test('of a running broker puts no key of his own into the bundle', async () => {
    await x509()
    const before = await bundle()
    // As a broker would, but by a key that is no broker's.
    const own = AuthorityKeys.open(join(self.dir, 'mine'))
    const { id, key: mine } = own.create('jwt')
    const { kty, crv, x, y } = createPublicKey(mine).export({ format: 'jwk' })
    const jwk = { kty, crv, x, y } as NodeKey['jwk']
    const step = { authority: id, kind: 'jwt', action: 'prepare', jwk } as const
    await self.broker.store.commitAuthority(stepOf(step, generateSigningKey().signing))
    await expect(self.broker.authorities.reload()).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect((await bundle()).keys).toEqual(before.keys)
    await self.broker.close()
    await expect(self.restart()).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
  })

  test.each([
    ['named for another key', { authority: 'a'.repeat(40) }],
    ['without a key', { jwk: null }],
    ['with the certificate of another', { certificate: true }],
  ])('and a broker key brings no authority %s into the book', async (_, change) => {
    await x509()
    const { id, key: mine } = AuthorityKeys.open(join(self.dir, 'mine')).create('x509')
    const { kty, crv, x, y } = createPublicKey(mine).export({ format: 'jwk' })
    const foreign = self.broker.authorities.list().find((one) => one.kind === 'x509')?.certificate
    const step = {
      schema: 'bagcheck.authority/v1' as const,
      ...stepWith({ authority: id, kind: 'x509', action: 'prepare' }),
      jwk: { kty, crv, x, y } as NodeKey['jwk'],
      ...change,
      certificate: 'certificate' in change ? foreign!.toString('base64') : null,
      entry: 1,
    }
    expect(() => new AuthorityBook().apply(step)).toThrow(
      expect.objectContaining({ code: 'LOG_CORRUPT' }),
    )
  })
})

describe('the bundle', () => {
  test('is answered anew when it changes, to whoever waits', async () => {
    const first = await self.request('GET', '/bundle')
    const etag = first.headers.get('etag') ?? ''
    expect(first.headers.get('content-type')).toBe('application/json')
    const app = createApp(self.broker, 'public')
    const ask = (wait: number) =>
      app.request(`/bundle?wait=${wait}`, { headers: { 'if-none-match': etag } })
    expect((await ask(0)).status).toBe(304)
    const waiting = ask(60)
    await self.broker.authorities.prepare('x509', TRUST_DOMAIN, nowSeconds())
    const answer = await waiting
    expect(answer.status).toBe(200)
    expect(roots(await bodyOf(answer))).toHaveLength(2)
    expect(answer.headers.get('etag')).not.toBe(etag)
  })

  test('needs a policy, which names the trust domain', async () => {
    await self[Symbol.asyncDispose]()
    self = await createInstallation({ svids: true })
    for (const path of ['/bundle', '/bundles'])
      await expectRefusal(await self.request('GET', path), 503, 'POLICY_MISSING')
    await expectRefusal(
      await self.request('POST', '/v1/svids', { type: 'jwt', evidence: 'e' }),
      503,
      'POLICY_MISSING',
    )
  })
})

/** A step of an authority, now. */
function stepWith(step: {
  authority: string
  kind: 'x509' | 'jwt'
  action: 'prepare' | 'taint'
  reason?: string
  jwk?: NodeKey['jwk']
}): Parameters<typeof signStep>[0] {
  return {
    ...{ installation: INSTALLATION, trustDomain: TRUST_DOMAIN, at: nowSeconds() },
    ...{ expiresAt: nowSeconds() + LIFE, jwk: null, certificate: null, supersedes: [] },
    ...{ reason: null, ...step },
  }
}
function stepOf(
  step: Parameters<typeof stepWith>[0],
  by = self.broker.keys.decision,
): ReturnType<typeof signStep> {
  return signStep(stepWith(step), by)
}

/** What the gate does up to the log, with a signer of our choice. */
async function loggedAllow(
  audience: string,
  signer: { id: string; expiresAt: number },
): Promise<LoggedDecision> {
  const { nonces, nodes, closures, log, policy } = self.broker
  const identified = await identifyEvidence(await evidenceFor(audience), {
    ...{ nonces, nodes, nowSeconds: nowSeconds() },
  })
  const verified = checkEvidence(identified, {
    ...{ issuer: ISSUER, installation: INSTALLATION, trustRoot: self.pin },
    ...{ audience, workloadKey: null, nowSeconds: nowSeconds() },
  })
  const installed = policy.installed()
  const decision = evaluate(installed.verified, verified.content.facts, {
    ...{ nodeClass: 'demo', tier: 0, now: new Date(self.nowMs), profile: null, closures },
    type: audience === SVID_AUDIENCE ? 'x509_svid' : 'jwt_svid',
    host: verified.content.host,
    workloadKey: verified.content.workloadKey,
  })
  if (!decision.allow) throw new Error('expected an allow')
  const { version, sha256 } = installed
  const id = `019ab2f4-0000-7000-8000-${String(node.counter).padStart(12, '0')}`
  const frame = { id, at: nowSeconds(), policy: { version, sha256 } }
  return logAllow(
    log,
    frame,
    verified,
    decision.approval,
    (closure, attested) => closures.envelopeSha256(closure, attested),
    signer,
  )
}
