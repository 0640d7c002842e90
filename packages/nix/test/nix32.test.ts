import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeNix32, encodeNix32 } from '@bagcheck/nix'

describe('nix32', () => {
  test('writes the digest of Nix test vectors', () => {
    // `nix-hash --type sha256 --base32` of "abc", and the documented placeholder of the output "out".
    expect(encodeNix32(hash('sha256', 'abc', 'buffer'))).toBe(
      '1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s',
    )
    expect(encodeNix32(hash('sha256', 'nix-output:out', 'buffer'))).toBe(
      '1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9',
    )
  })

  test('round-trips any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(decodeNix32(encodeNix32(bytes), bytes.length)).toEqual(bytes)
      }),
    )
  })

  test('accepts exactly one text for any bytes', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9a-z]{4}$/), (text) => {
        let bytes: Uint8Array
        try {
          bytes = decodeNix32(text, 2)
        } catch {
          return
        }
        expect(encodeNix32(bytes)).toBe(text)
      }),
      { numRuns: 2000 },
    )
  })

  test.each([
    ['a letter that is left out', 'e'.repeat(52)],
    ['upper case', 'A'.repeat(52)],
    ['too short', '0'.repeat(51)],
    ['too long', '0'.repeat(53)],
    ['bits beyond the last byte', `z${'0'.repeat(51)}`],
    ['empty', ''],
  ])('refuses %s', (_, text) => {
    expect(() => decodeNix32(text, 32)).toThrow(expect.objectContaining({ code: 'NIX32' }))
  })
})
