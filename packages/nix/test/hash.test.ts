import { hash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  encodeNix32,
  narHashDigest,
  narHashFromDigest,
  parseHash,
  parseNarHash,
  parseSha256,
  sha256Hex,
} from '@bagcheck/nix'

const digest = hash('sha256', 'abc', 'buffer')
const hex = digest.toString('hex')
const base64 = digest.toString('base64')

describe('a NAR hash', () => {
  test.each([
    ['SRI', `sha256-${base64}`],
    ['base16 with prefix', `sha256:${hex}`],
    ['nix32 with prefix', `sha256:${encodeNix32(digest)}`],
    ['base64 with prefix', `sha256:${base64}`],
    ['bare base16, as the daemon sends it', hex],
  ])('parses from %s to one spelling', (_, text) => {
    const parsed = parseNarHash(text)
    expect(parsed).toBe(`sha256-${base64}`)
    expect(Buffer.from(narHashDigest(parsed))).toEqual(digest)
    expect(narHashFromDigest(digest)).toBe(parsed)
  })

  test.each([
    ['nothing', ''],
    ['another algorithm', `sha512-${base64}`],
    ['upper-case base16', `sha256:${hex.toUpperCase()}`],
    ['bare base64', base64],
    ['bare nix32', encodeNix32(digest)],
    ['base64 without padding', `sha256-${base64.slice(0, -1)}`],
    ['base64 with stray bits', `sha256-${base64.slice(0, -2)}1=`],
    ['url-safe base64', `sha256-${digest.toString('base64url')}=`.replace(/[^-_=]/, '-')],
    ['a digest that is too short', `sha256-${base64.slice(0, -4)}`],
    ['white space', ` sha256-${base64}`],
    ['a line feed at the end', `${hex}\n`],
    ['nix32 with a wrong letter', `sha256:${'e'.repeat(52)}`],
    ['an SRI option', `sha256-${base64}?x`],
  ])('refuses %s', (_, text) => {
    expect(() => parseNarHash(text)).toThrow(expect.objectContaining({ code: 'HASH' }))
  })
})

describe('a sha256', () => {
  test('is 64 lower-case digits', () => {
    expect(parseSha256(hex)).toBe(sha256Hex('abc'))
    for (const text of [hex.toUpperCase(), hex.slice(1), `${hex}0`, `${hex}\n`, ''])
      expect(() => parseSha256(text)).toThrow(expect.objectContaining({ code: 'HASH' }))
  })
})

const refused = expect.objectContaining({ code: 'HASH' })

test('a NAR hash is by sha256', () => {
  for (const text of [`sha1:${'a'.repeat(40)}`, `sha512-${Buffer.alloc(64).toString('base64')}`])
    expect(() => parseNarHash(text)).toThrow(refused)
})

describe('a hash', () => {
  test.each([
    ['blake3, by name', `blake3-${base64}`, /"blake3", which is experimental/],
    ['an unknown algorithm', `sha3:${hex}`, /expected md5, sha1, sha256 or sha512, got "sha3"/],
    ['an algorithm in upper case', `SHA256:${hex}`, /got "SHA256"/],
    ['no algorithm', hex, /expected algo:digits/],
    ['an empty algorithm', `:${hex}`, /got ""/],
    ['the length of another algorithm', `sha1:${hex}`, /expected sha1 in base16, nix32 or base64/],
    ['SRI with base16', `sha256-${hex}`, /expected sha256 in sri/],
    [
      'nix32 with spill bits',
      `sha256:z${encodeNix32(digest).slice(1)}`,
      /expected sha256 in nix32/,
    ],
    ['upper-case nix32', `sha256:${encodeNix32(digest).toUpperCase()}`, /in nix32/],
  ])('with %s is refused', (_, text, message) => {
    expect(() => parseHash(text)).toThrow(refused)
    expect(() => parseHash(text)).toThrow(message)
  })
})
