// Trust bundles of other trust domains: files that somebody keeps up to date.
import { generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeAuthority, writeLeaf, keyIdentifier } from '../../src/spiffe/certificate.ts'
import { Federation } from '../../src/spiffe/federation.ts'
import { bodyOf } from './answers.ts'
import { createInstallation, START, TRUST_DOMAIN, type Installation } from './installation.ts'

let dir: string
let file: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'bagcheck-federation-'))
  file = join(dir, 'partner.json')
})
afterEach(() => rmSync(dir, { recursive: true }))

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const signer = (data: Uint8Array): Buffer => sign('sha256', data, privateKey)
const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })
const content = { publicKey, notBefore: START, notAfter: START + 86_400 }

/** A key of a bundle with an authority of `trustDomain`. */
const authorityOf = (trustDomain: string): object => ({
  ...{ use: 'x509-svid', kty, crv, x, y },
  x5c: [
    writeAuthority({ ...content, spiffeId: `spiffe://${trustDomain}` }, signer).toString('base64'),
  ],
})
const jwtKey = { use: 'jwt-svid', kty, crv, x, y, kid: 'k' }
const write = (bundle: unknown): void => writeFileSync(file, JSON.stringify(bundle))
const open = (trustDomain = 'partner.test'): Federation =>
  new Federation([{ trustDomain, bundle: file }])
const GOOD = { keys: [authorityOf('partner.test'), jwtKey], spiffe_sequence: 5 }

describe('a federated bundle', () => {
  test('is served under its trust domain to agents, ours never among them', async () => {
    write({ ...GOOD, spiffe_refresh_hint: 300, extra: 'passed on' })
    const own = join(dir, 'own.json')
    writeFileSync(own, JSON.stringify({ keys: [jwtKey] }))
    const federatesWith = [
      { trustDomain: 'partner.test', bundle: file },
      { trustDomain: TRUST_DOMAIN, bundle: own },
    ]
    await using self: Installation = await createInstallation({
      svids: true,
      spiffe: { federatesWith },
    })
    await self.ready()
    const response = await self.request('GET', '/bundles')
    expect([response.status, response.headers.get('etag')]).toEqual([
      200,
      expect.stringMatching(/^"/),
    ])
    const { trust_domains: domains } = await bodyOf(response)
    expect(domains).toEqual({
      'partner.test': { ...GOOD, spiffe_refresh_hint: 300, extra: 'passed on' },
    })
    const ours = await bodyOf(await self.request('GET', '/bundle'))
    expect(JSON.stringify(ours)).not.toContain('"kid":"k"')
  })

  test('is read again when its file changes, and the last good one stays when it is spoilt', async () => {
    write(GOOD)
    const federation = open()
    const told: unknown[] = []
    const reload = (): void => federation.reload((error) => told.push(error))
    const seen = (): unknown => JSON.parse(federation.bundles('own.test').text).trust_domains
    const waiting = federation.waitForChange(60_000, AbortSignal.timeout(60_000))
    const newer = { keys: [jwtKey], spiffe_sequence: 6 }
    write(newer)
    reload()
    await waiting
    expect([seen(), told]).toEqual([{ 'partner.test': newer }, []])
    for (const spoilt of [
      { keys: 'x' },
      GOOD,
      { keys: [authorityOf('evil.test')], spiffe_sequence: 7 },
    ]) {
      write(spoilt)
      reload()
      expect(told.pop()).toMatchObject({ code: 'BUNDLE_FILE' })
      expect(seen()).toEqual({ 'partner.test': newer })
    }
    rmSync(file)
    reload()
    expect(told.pop()).toMatchObject({ code: 'BUNDLE_FILE' })
    expect(seen()).toEqual({ 'partner.test': newer })
  })

  const leaf = writeLeaf(
    {
      ...{ ...content, spiffeId: 'spiffe://partner.test/a', serial: Buffer.alloc(16, 1) },
      authority: keyIdentifier(publicKey),
    },
    signer,
  ).toString('base64')
  test.each<[string, string]>([
    ['no JSON', '{'],
    ['a name twice', '{"keys":[],"keys":[]}'],
    ['no keys', '{}'],
    ['a key without use', '{"keys":[{"kty":"EC"}]}'],
    ['an authority of another trust domain', JSON.stringify({ keys: [authorityOf('evil.test')] })],
    ['a leaf as authority', JSON.stringify({ keys: [{ use: 'x509-svid', kty, x5c: [leaf] }] })],
    [
      'two certificates in one key',
      JSON.stringify({ keys: [{ use: 'x509-svid', kty, x5c: [leaf, leaf] }] }),
    ],
    ['no certificate', JSON.stringify({ keys: [{ use: 'x509-svid', kty, crv, x, y }] })],
    [
      'bytes for a certificate',
      JSON.stringify({ keys: [{ use: 'x509-svid', kty, x5c: ['AAAA'] }] }),
    ],
    ['a JWT key without kid', JSON.stringify({ keys: [{ ...jwtKey, kid: undefined }] })],
    ['more than a megabyte', ' '.repeat(1024 * 1024 + 1)],
  ])('with %s ends the start', (_, text) => {
    writeFileSync(file, text)
    expect(() => open()).toThrow(expect.objectContaining({ code: 'BUNDLE_FILE' }))
  })

  test('that is not there, and one trust domain twice, end the start', () => {
    expect(() => open()).toThrow(expect.objectContaining({ code: 'BUNDLE_FILE' }))
    write(GOOD)
    const source = { trustDomain: 'partner.test', bundle: file }
    expect(() => new Federation([source, source])).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    )
  })

  test('of keys that nobody here knows is passed on: verifiers leave them alone', () => {
    write({ keys: [{ kty: 'AKP', use: 'wit-svid', kid: 'w' }] })
    expect(open().bundles('own.test').text).toContain('wit-svid')
  })
})
