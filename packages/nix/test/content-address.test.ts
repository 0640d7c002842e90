import { hash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  contentAddressedPath,
  hashLength,
  makeStorePath,
  parseContentAddress,
  parseMethodAndAlgorithm,
  parseStorePath,
  textPath,
} from '@bagcheck/nix'
import type { ContentAddress, IngestionMethod } from '@bagcheck/nix'

const refused = expect.objectContaining({ code: 'CONTENT_ADDRESS' })
const sha256 = new Uint8Array(hash('sha256', 'hello\n', 'buffer'))
const a = parseStorePath(`/nix/store/${'a'.repeat(32)}-a`)
const b = parseStorePath(`/nix/store/${'b'.repeat(32)}-b`)

function addressOf(method: IngestionMethod, algorithm: ContentAddress['hash']['algorithm']) {
  return { method, hash: { algorithm, digest: new Uint8Array(hashLength(algorithm)) } }
}

describe('a content address', () => {
  test.each([
    ['no method', `sha256:${'0'.repeat(52)}`],
    ['base16', `fixed:r:sha256:${'0'.repeat(64)}`, 'HASH'],
    ['the prefix of a derivation', `r:sha256:${'0'.repeat(52)}`],
    ['text with another algorithm', `text:sha1:${'0'.repeat(32)}`],
    ['a git tree with another algorithm', `fixed:git:sha512:${'0'.repeat(103)}`],
    ['a method that is not known', `fixed:x:sha256:${'0'.repeat(52)}`],
    ['blake3', `fixed:r:blake3:${'0'.repeat(52)}`, 'HASH'],
    ['text as a fixed method', `fixed:text:sha256:${'0'.repeat(52)}`],
    ['upper case', `FIXED:r:sha256:${'0'.repeat(52)}`],
    ['a line feed at the end', `fixed:r:sha256:${'0'.repeat(52)}\n`],
  ])('with %s is refused', (_, text, code = 'CONTENT_ADDRESS') => {
    expect(() => parseContentAddress(text)).toThrow(expect.objectContaining({ code }))
  })

  test('refuses a method with an algorithm that it does not go with', () => {
    for (const text of ['text:sha512', 'git:md5', 'text:md5'])
      expect(() => parseMethodAndAlgorithm(text)).toThrow(refused)
  })
})

describe('the path of a content address', () => {
  test('does not depend on the order of references, nor on repetition', () => {
    const address: ContentAddress = { method: 'nar', hash: { algorithm: 'sha256', digest: sha256 } }
    const path = contentAddressedPath('x', address, { references: [a, b] })
    expect(contentAddressedPath('x', address, { references: [b, a, b] })).toBe(path)
    expect(path).toBe(makeStorePath(`source:${a}:${b}`, sha256, 'x'))
    expect(contentAddressedPath('x', address, { references: [a], self: true })).toBe(
      makeStorePath(`source:${a}:self`, sha256, 'x'),
    )
  })

  test('of a text is what Nix 2.8 gives to builtins.toFile', () => {
    expect(textPath('hello', Buffer.from('hello\n'))).toBe(
      '/nix/store/nmrmdcw1bfnl35a893n7nyhw4xa5vy08-hello',
    )
  })

  test.each([
    ['flat', 'sha256'],
    ['nar', 'sha512'],
    ['git', 'sha1'],
  ] as const)('refuses references of an object addressed by %s %s', (method, algorithm) => {
    const address = addressOf(method, algorithm)
    expect(contentAddressedPath('x', address)).toMatch(/-x$/)
    expect(() => contentAddressedPath('x', address, { references: [a] })).toThrow(refused)
    expect(() => contentAddressedPath('x', address, { self: true })).toThrow(refused)
  })

  test('refuses a text that refers to itself, and a method that does not go with its algorithm', () => {
    expect(() => contentAddressedPath('x', addressOf('text', 'sha256'), { self: true })).toThrow(
      refused,
    )
    expect(() => contentAddressedPath('x', addressOf('text', 'md5'))).toThrow(refused)
  })
})
