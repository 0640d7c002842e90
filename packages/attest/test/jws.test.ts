import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  checkJwsHeader,
  jwkThumbprint,
  joseSignature,
  jwsSignatureHolds,
  parseJws,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const TYP = 'bagcheck-evidence+jwt'
const part = (text: string): string => Buffer.from(text).toString('base64url')

function jws(header: string, payload: string): string {
  const signed = `${part(header)}.${part(payload)}`
  return `${signed}.${joseSignature(sign('sha256', Buffer.from(signed), privateKey)).toString('base64url')}`
}

const header = JSON.stringify({ alg: 'ES256', typ: TYP, kid: 'k' })
const text = jws(header, '{"a":1,"b":"ü"}')

/** What the three checks together make of a text: a code, or whether the signature holds. */
function judge(candidate: string): string | boolean {
  let holds = false
  const code = codeOf(() => {
    const parsed = parseJws(candidate)
    checkJwsHeader(parsed, TYP, 'kid')
    holds = jwsSignatureHolds(parsed, publicKey)
  })
  return code ?? holds
}

describe('a JWS', () => {
  test('is taken apart, and its signature is over the bytes received', () => {
    const parsed = parseJws(text)
    expect(parsed.payload).toEqual({ a: 1, b: 'ü' })
    expect(parsed.payloadText).toBe('{"a":1,"b":"ü"}')
    expect(Buffer.from(parsed.signed).toString()).toBe(text.slice(0, text.lastIndexOf('.')))
    expect(judge(text)).toBe(true)
  })

  test.each([
    ['of two parts', text.slice(0, text.lastIndexOf('.'))],
    ['of four parts', `${text}.`],
    ['of nothing', ''],
    ['with padding', text.replace('.', '=.')],
    ['with another alphabet', `${text.slice(0, -2)}+/`],
    ['with a signature too long', `${text}AA`],
    ['with a header that is a list', jws('[]', '{}')],
    ['with a payload that is no JSON', jws(header, '{')],
    ['with a space in its payload', jws(header, '{"a": 1}')],
    ['with a member twice', jws(header, '{"a":1,"a":1}')],
    ['with a number in another spelling', jws(header, '{"a":1.0}')],
    ['that is longer than any', 'a'.repeat(4 * 1024 * 1024 + 1)],
  ])('%s is malformed', (_claim, candidate) => {
    expect(judge(candidate)).toBe('JWS_FORMAT')
  })

  test.each([
    ['of another algorithm', { alg: 'none', typ: TYP, kid: 'k' }],
    ['of another type', { alg: 'ES256', typ: 'JWT', kid: 'k' }],
    ['with its own key beside the name of one', { alg: 'ES256', typ: TYP, kid: 'k', jwk: {} }],
    ['with its own key in place of the name', { alg: 'ES256', typ: TYP, jwk: {} }],
    ['with an extension', { alg: 'ES256', typ: TYP, kid: 'k', crit: ['b64'] }],
    ['without the name of a key', { alg: 'ES256', typ: TYP }],
  ])('%s is refused for its header', (_claim, other) => {
    expect(judge(jws(JSON.stringify(other), '{}'))).toBe('JWS_HEADER')
  })

  test('cut at any place is malformed', () => {
    for (let length = 0; length < text.length; length += 1)
      expect(judge(text.slice(0, length))).toBe('JWS_FORMAT')
  })

  test('with any bit flipped is refused, or its signature does not hold', () => {
    const bytes = Buffer.from(text, 'latin1')
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(judge(flipped.toString('latin1'))).not.toBe(true)
    }
  })
})

test('the thumbprint of a key is that of RFC 7638, whatever other members it has', () => {
  const jwk = publicKey.export({ format: 'jwk' }) as {
    crv: string
    kty: string
    x: string
    y: string
  }
  const expected = jwkThumbprint(jwk)
  expect(expected).toMatch(/^[\w-]{43}$/)
  expect(jwkThumbprint(Object.assign({ use: 'sig', kid: 'a' }, jwk))).toBe(expected)
})
