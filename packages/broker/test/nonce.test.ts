import { createSecretKey, type KeyObject } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { issueNonce, NonceBook, type NonceUse } from '../src/nonce.ts'
import { uuidV7 } from '../src/uuid.ts'

const KEY = createSecretKey(new Uint8Array(32).fill(7))
const RANDOM = new Uint8Array(12).fill(1)
const NOW = 1_800_000_000
const use: NonceUse = { node: 'node-1', purpose: 'issue' }

const codeOf = (work: () => void): string => {
  try {
    work()
    return 'ok'
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe('a nonce', () => {
  test('is 32 bytes: expiry, randomness and a MAC', () => {
    const bytes = Buffer.from(issueNonce(KEY, use, NOW, RANDOM), 'base64url')
    expect(bytes).toHaveLength(32)
    expect(bytes.readUInt32BE(0)).toBe(NOW + 60)
    expect(bytes.subarray(4, 16)).toEqual(Buffer.from(RANDOM))
  })

  test('is good once, until its expiry', () => {
    const book = new NonceBook(KEY)
    const nonce = book.issue(use, NOW, RANDOM)
    expect(codeOf(() => book.consume(nonce, use, NOW + 59))).toBe('ok')
    expect(codeOf(() => book.consume(nonce, use, NOW + 59))).toBe('NONCE_REUSED')
    expect(codeOf(() => book.consume(nonce, use, NOW + 60))).toBe('NONCE_EXPIRED')
  })

  test('stays used up when the clock steps back after it was forgotten', () => {
    const book = new NonceBook(KEY)
    const nonce = book.issue(use, NOW, RANDOM)
    book.consume(nonce, use, NOW)
    const later = book.issue(use, NOW + 61, new Uint8Array(12))
    book.consume(later, use, NOW + 61)
    expect(codeOf(() => book.consume(nonce, use, NOW + 58))).toBe('NONCE_REUSED')
  })

  test('with any bit flipped is not ours', () => {
    const nonce = Buffer.from(issueNonce(KEY, use, NOW, RANDOM), 'base64url')
    fc.assert(
      fc.property(fc.nat(255), (bit) => {
        const flipped = Buffer.from(nonce)
        flipped[bit >> 3]! ^= 1 << (bit & 7)
        const text = flipped.toString('base64url')
        expect(codeOf(() => new NonceBook(KEY).consume(text, use, NOW))).toBe('NONCE_INVALID')
      }),
    )
  })

  test('is bound to key, node and purpose', () => {
    const nonce = issueNonce(KEY, use, NOW, RANDOM)
    const others: [KeyObject, NonceUse][] = [
      [createSecretKey(new Uint8Array(32)), use],
      [KEY, { ...use, node: 'node-2' }],
      [KEY, { ...use, purpose: 'renew' }],
      [KEY, { ...use, node: 'node-1\0issue' }],
    ]
    for (const [key, other] of others)
      expect(codeOf(() => new NonceBook(key).consume(nonce, other, NOW))).toBe('NONCE_INVALID')
  })

  test('of any text but its own is refused with a code', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(codeOf(() => new NonceBook(KEY).consume(text, use, NOW))).toBe('NONCE_INVALID')
      }),
    )
  })
})

describe('a UUIDv7', () => {
  test('has its version and variant and sorts by time', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 48 - 2 }),
        fc.uint8Array({ minLength: 10, maxLength: 10 }),
        (ms, random) => {
          const one = uuidV7(ms, random)
          expect(one).toMatch(
            /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
          )
          expect(one < uuidV7(ms + 1, random)).toBe(true)
        },
      ),
    )
  })
})
