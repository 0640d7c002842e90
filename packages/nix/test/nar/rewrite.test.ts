import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hashRewritten, narHashFromDigest, rewriteHashes } from '@bagcheck/nix'

const a = 'a'.repeat(32)
const b = '0123456789abcdfghijklmnpqrsvwxyz'
const c = 'c'.repeat(32)

async function* pieces(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0
  for (let turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1
    yield bytes.subarray(at, at + size)
    at += size
  }
}

async function rewrite(text: string, map: Map<string, string>, sizes = [1 << 16]): Promise<string> {
  const chunks = await Array.fromAsync(
    rewriteHashes(pieces(Buffer.from(text, 'latin1'), sizes), map),
  )
  return Buffer.concat(chunks).toString('latin1')
}

describe('rewriting store hashes', () => {
  test.each([
    ['at the start and end', `${b}x${b}`, `${c}x${c}`],
    ['in a path', `/nix/store/${b}-name/lib`, `/nix/store/${c}-name/lib`],
    ['one behind the other', b + b, c + c],
    ['behind other characters of the alphabet', `00${b}`, `00${c}`],
    ['not in part', b.slice(1), b.slice(1)],
    ['not where it is unknown', a, a],
    ['in bytes of every kind', `\0\xff${b}\0`, `\0\xff${c}\0`],
  ])('%s', async (_, text, expected) => {
    expect(await rewrite(text, new Map([[b, c]]))).toBe(expected)
  })

  test('may exchange two hashes', async () => {
    const swap = new Map([
      [a, b],
      [b, a],
    ])
    expect(await rewrite(`${a} ${b}`, swap)).toBe(`${b} ${a}`)
  })

  test('does not depend on how the stream is cut, and leaves its chunks alone', async () => {
    const part = fc.oneof(fc.constantFrom(b, a, '0', '/', 'e', '\0'), fc.string({ maxLength: 5 }))
    const sizes = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(fc.array(part), sizes, async (parts, cuts) => {
        const text = Buffer.from(parts.join('')).toString('latin1')
        const whole = await rewrite(text, new Map([[b, c]]))
        expect(await rewrite(text, new Map([[b, c]]), cuts)).toBe(whole)
        const source = Buffer.from(text, 'latin1')
        const copy = Buffer.from(source)
        await hashRewritten(pieces(source, cuts), new Map([[b, c]]))
        expect(source.equals(copy)).toBe(true)
      }),
    )
  })

  test('gives the hash of the result', async () => {
    const chunks = pieces(Buffer.from(`x${b}y`), [7])
    expect(await hashRewritten(chunks, new Map([[b, c]]))).toBe(
      narHashFromDigest(hash('sha256', `x${c}y`, 'buffer')),
    )
  })

  test('takes hashes only', async () => {
    await expect(rewrite('', new Map([['a', 'b']]))).rejects.toThrow(TypeError)
  })
})
