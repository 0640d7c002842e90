import { generateKeyPairSync, sign } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { verifyProof } from '../../src/front/dpop.ts'
import { signingKey, signJws, thumbprint } from '../../src/front/jws.ts'
import { NonceBook } from '../../src/front/nonce-book.ts'

const key = signingKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const other = signingKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const HEADER = { typ: 'dpop+jwt', jwk: key.jwk }
const PAYLOAD = {
  jti: 'j',
  htm: 'POST',
  htu: 'http://agent/v1/token',
  iat: 1000,
  nonce: 'n',
}
const check = (proof: string): string =>
  verifyProof(proof, { nowSeconds: 1000, consumeNonce: (nonce) => nonce === 'n' })

describe('a proof of a workload key', () => {
  test('gives the thumbprint of the key that made it', () => {
    expect(check(signJws(HEADER, PAYLOAD, key))).toBe(key.thumbprint)
  })

  test('thumbprints are those of RFC 7638, as in RFC 9449 §6.1', () => {
    expect(
      thumbprint({
        kty: 'EC',
        x: 'l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs',
        y: '9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA',
        crv: 'P-256',
      }),
    ).toBe('0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I')
  })

  const { d: _d, ...publicRsa } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
  }).privateKey.export({ format: 'jwk' })
  const bad: [string, object, object][] = [
    ['another algorithm', { ...HEADER, alg: 'none' }, PAYLOAD],
    ['another type', { ...HEADER, typ: 'jwt' }, PAYLOAD],
    ['a key identifier beside the key', { ...HEADER, kid: 'k' }, PAYLOAD],
    ['a critical extension', { ...HEADER, crit: ['b64'] }, PAYLOAD],
    ['another key in the header', { ...HEADER, jwk: other.jwk }, PAYLOAD],
    ['a private key in the header', { ...HEADER, jwk: { ...key.jwk, d: key.jwk.x } }, PAYLOAD],
    ['an RSA key', { ...HEADER, jwk: publicRsa }, PAYLOAD],
    ['no point of the curve', { ...HEADER, jwk: { ...key.jwk, y: key.jwk.x } }, PAYLOAD],
    ['another spelling of a coordinate', { ...HEADER, jwk: respell(key.jwk) }, PAYLOAD],
    ['another method', HEADER, { ...PAYLOAD, htm: 'GET' }],
    ['another address', HEADER, { ...PAYLOAD, htu: 'https://api.demo.test/' }],
    ['a nonce that was not given', HEADER, { ...PAYLOAD, nonce: 'm' }],
    ['an old time', HEADER, { ...PAYLOAD, iat: 900 }],
    ['a future time', HEADER, { ...PAYLOAD, iat: 1100 }],
    ['no identifier', HEADER, { ...PAYLOAD, jti: '' }],
    ['an unknown claim', HEADER, { ...PAYLOAD, ath: 'x' }],
  ]
  test.each(bad)('with %s is refused', (_what, header, payload) => {
    expect(() => check(signJws(header as Record<string, unknown>, payload, key))).toThrow(
      expect.objectContaining({ code: 'DPOP_INVALID' }),
    )
  })

  test('with a DER signature is refused', () => {
    const jws = signJws(HEADER, PAYLOAD, key)
    const signed = jws.slice(0, jws.lastIndexOf('.'))
    const der = sign('sha256', Buffer.from(signed), key.privateKey).toString('base64url')
    expect(() => check(`${signed}.${der}`)).toThrow(AgentError)
  })

  test('cut off or altered anywhere is refused', () => {
    const proof = signJws(HEADER, PAYLOAD, key)
    for (let length = 0; length < proof.length; length += 1)
      expect(() => check(proof.slice(0, length))).toThrow(AgentError)
    fc.assert(
      fc.property(fc.nat(proof.length - 1), fc.constantFrom('A', 'Q', '.', '='), (at, put) => {
        const altered = proof.slice(0, at) + put + proof.slice(at + 1)
        if (altered !== proof) expect(() => check(altered)).toThrow(AgentError)
      }),
    )
  })
})

describe('nonces for proofs', () => {
  test('are good once, for a minute, for whom they were given to', () => {
    let nowMs = 0
    const book = new NonceBook(() => nowMs)
    book.give('a', 'first')
    expect(book.consume('b', 'first')).toBe(false)
    expect(book.consume('a', 'first')).toBe(true)
    expect(book.consume('a', 'first')).toBe(false)
    book.give('a', 'second')
    nowMs = 60_000
    expect(book.consume('a', 'second')).toBe(false)
  })

  test('are not given without end', () => {
    const book = new NonceBook(() => 0)
    for (let i = 0; i < 16; i += 1) book.give('a', `n${i}`)
    expect(() => book.give('a', 'more')).toThrow(expect.objectContaining({ code: 'REQUEST_LIMIT' }))
    expect(book.give('b', 'its own')).toBe('its own')
  })
})

/** The last character of 32 bytes in base64url has two spare bits. */
function respell<T extends { x: string }>(jwk: T): T {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(jwk.x.at(-1) ?? '')
  return { ...jwk, x: jwk.x.slice(0, -1) + alphabet[last ^ 1] }
}
