import { generateKeyPairSync, sign, verify } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { derSignature, joseSignature } from '../src/ecdsa.ts'

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const data = Buffer.from('what is signed')

describe('the encodings of a signature', () => {
  test('are converted as Node converts them', () => {
    for (let i = 0; i < 500; i++) {
      const der = sign('sha256', data, privateKey)
      const jose = joseSignature(der)
      expect(verify('sha256', data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, jose)).toBe(true)
      expect(derSignature(jose)).toEqual(der)
    }
  })

  test('keep small, zero and large halves', () => {
    const half = fc.oneof(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.nat(300).map((n) => {
        const bytes = new Uint8Array(32)
        bytes[30] = n >> 8
        bytes[31] = n & 255
        return bytes
      }),
      fc.constant(new Uint8Array(32).fill(255)),
    )
    fc.assert(
      fc.property(half, half, (r, s) => {
        const jose = Buffer.concat([r, s])
        expect(joseSignature(derSignature(jose))).toEqual(jose)
      }),
    )
  })

  test.each([
    ['zero', Buffer.alloc(64)],
    ['the largest', Buffer.alloc(64, 255)],
  ])('verify as false for %s numbers, without throwing', (_, jose) => {
    expect(verify('sha256', data, publicKey, derSignature(jose))).toBe(false)
  })
})
