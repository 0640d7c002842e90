import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { AgentError } from '../../../src/error.ts'
import { parseBundle, type BundleSet } from '../../../src/front/spiffe/bundles.ts'
import { validateJwtSvid } from '../../../src/front/spiffe/jwt-svid.ts'

const NOW = 1_800_000_000
const AUDIENCE = 'https://api.demo.test'
const SUBJECT = 'spiffe://demo.test/role/orders'

const keys = {
  ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ec384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  weak: generateKeyPairSync('rsa', { modulusLength: 1024 }),
  other: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
}
const jwk = (kid: keyof typeof keys, more: object = {}): object => ({
  ...keys[kid].publicKey.export({ format: 'jwk' }),
  ...{ use: 'jwt-svid', kid },
  ...more,
})
const set: BundleSet = {
  own: 'demo.test',
  bundles: new Map([
    ['demo.test', parseBundle({ keys: [jwk('ec'), jwk('ec384'), jwk('rsa'), jwk('weak')] })],
    ['other.test', parseBundle({ keys: [jwk('other')] })],
    ['fixed.test', parseBundle({ keys: [jwk('rsa', { alg: 'RS256' })] })],
  ]),
}

const part = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

function token(
  claims: object = {},
  header: Record<string, unknown> = {},
  signer?: (bytes: Buffer) => Buffer,
): string {
  const head = { alg: 'ES256', kid: 'ec', typ: 'JWT', ...header }
  const body = { sub: SUBJECT, aud: AUDIENCE, exp: NOW + 60, iat: NOW, ...claims }
  const signed = `${part(head)}.${part(body)}`
  const make = signer ?? ec(keys.ec.privateKey)
  return `${signed}.${make(Buffer.from(signed)).toString('base64url')}`
}
const ec =
  (key: KeyObject, hash = 'sha256') =>
  (bytes: Buffer): Buffer =>
    sign(hash, bytes, { key, dsaEncoding: 'ieee-p1363' })
const rsa =
  (key: KeyObject) =>
  (bytes: Buffer): Buffer =>
    sign('sha256', bytes, key)
const validate = (text: string, audience = AUDIENCE) =>
  validateJwtSvid(text, audience, { set, nowSeconds: NOW })

describe('a JWT-SVID', () => {
  test.each<[string, string]>([
    ['ES256', token()],
    ['ES384', token({}, { alg: 'ES384', kid: 'ec384' }, ec(keys.ec384.privateKey, 'sha384'))],
    ['RS256', token({}, { alg: 'RS256', kid: 'rsa' }, rsa(keys.rsa.privateKey))],
    ['no typ', token({}, { typ: undefined })],
    ['typ JOSE', token({}, { typ: 'JOSE' })],
    ['several audiences', token({ aud: ['a', AUDIENCE] })],
  ])('with %s is taken', (_what, text) => {
    expect(validate(text).spiffeId).toBe(SUBJECT)
  })

  test('of another trust domain is verified by that one', () => {
    const sub = 'spiffe://other.test/a'
    const text = token({ sub }, { kid: 'other' }, ec(keys.other.privateKey))
    expect(validate(text).spiffeId).toBe(sub)
  })

  const none = (): Buffer => Buffer.alloc(0)
  test.each<[string, string]>([
    ['without exp', token({ exp: undefined })],
    ['that has expired', token({ exp: NOW })],
    ['with exp as text', token({ exp: String(NOW + 60) })],
    ['that is not valid yet', token({ nbf: NOW + 120 })],
    ['issued in the future', token({ iat: NOW + 120 })],
    ['without aud', token({ aud: undefined })],
    ['for another audience', token({ aud: 'https://other' })],
    ['for an audience that contains ours', token({ aud: `${AUDIENCE}/more` })],
    ['without sub', token({ sub: undefined })],
    ['of a trust domain itself', token({ sub: 'spiffe://demo.test' })],
    ['of no SPIFFE ID', token({ sub: 'orders' })],
    ['of a path that is not normal', token({ sub: 'spiffe://demo.test/a/../b' })],
    ['of an unknown trust domain', token({ sub: 'spiffe://unknown.test/a' })],
    [
      'signed by a key of another trust domain',
      token({}, { kid: 'other' }, ec(keys.other.privateKey)),
    ],
    ['signed by ours for another trust domain', token({ sub: 'spiffe://other.test/a' })],
    ['signed by another key than it names', token({}, {}, ec(keys.other.privateKey))],
    ['by a short RSA key', token({}, { alg: 'RS256', kid: 'weak' }, rsa(keys.weak.privateKey))],
    ['of alg none', token({}, { alg: 'none' }, none)],
    ['of alg HS256', token({}, { alg: 'HS256' })],
    ['of alg EdDSA', token({}, { alg: 'EdDSA' })],
    ['of an alg of every object', token({}, { alg: 'constructor' })],
    ['of another alg than its key', token({}, { alg: 'ES384' })],
    ['of an EC alg with an RSA key', token({}, { kid: 'rsa' })],
    ['of an RSA alg with an EC key', token({}, { alg: 'RS256' })],
    [
      'of another alg than the bundle says',
      token({ sub: 'spiffe://fixed.test/a' }, { alg: 'RS512', kid: 'rsa' }, (bytes) =>
        sign('sha512', bytes, keys.rsa.privateKey),
      ),
    ],
    ['without kid', token({}, { kid: undefined })],
    ['with an unknown kid', token({}, { kid: 'unknown' })],
    ['with typ at+jwt', token({}, { typ: 'at+jwt' })],
    ['with crit', token({}, { crit: ['exp'] })],
    ['with a key in its header', token({}, { jwk: jwk('other') })],
    [
      'with a signature in DER',
      token({}, {}, (bytes) => sign('sha256', bytes, keys.ec.privateKey)),
    ],
    ['without a signature', token({}, {}, none)],
    ['in four parts', `${token()}.x`],
    ['in another spelling of base64', `${token()}=`],
    ['of no JSON', `${part('x')}.${part('y')}.${part('z')}`],
    ['that is a list', `${part([])}.${part([])}.${part('z')}`],
    ['that is empty', ''],
    ['that is too long', token({ padding: 'x'.repeat(9000) })],
  ])('%s is refused', (_what, text) => {
    expect(() => validate(text)).toThrow(
      expect.objectContaining({ code: 'REQUEST_INVALID' } satisfies Partial<AgentError>),
    )
  })

  test('with any bit of it flipped is refused', () => {
    const text = token()
    for (let at = 0; at < text.length; at += 1) {
      if (text[at] === '.') continue
      const flipped = `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`
      expect(() => validate(flipped)).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' }))
    }
  })
})
