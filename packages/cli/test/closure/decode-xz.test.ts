import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decompressNar, narHashFromDigest } from '@bagcheck/nix'
import type { CompressedNar } from '@bagcheck/nix'
import { findDecoders } from '../../src/closure/decoders.ts'

// What `xz -c` 5.4.1 makes of it, and `xz --check=sha256 -c`.
const text = Buffer.from('A bag is what a workload really runs: its Nix closure.\n'.repeat(40))
const file = Buffer.from(
  '/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AiXAEddACCICEYTY7gmirHempil/BRdSHCxZfMqGzNLK7DyCD+onQOc' +
    'N8cGXfvxUBCxA59Xg1wtY18CD5VCf3gXJVFE15OlwJjRTtoAAACTtfKXF6TtEgABY5gRAAAAAvXmRLHEZ/sCAAAA' +
    'AARZWg==',
  'base64',
)
const sha256Checked = Buffer.from(
  '/Td6WFoAAArh+wyhAgAhARYAAAB0L+Wj4AiXAEddACCICEYTY7gmirHempil/BRdSHCxZfMqGzNLK7DyCD+onQOc' +
    'N8cGXfvxUBCxA59Xg1wtY18CD5VCf3gXJVFE15OlwJjRTtoAAACTL6mF7FRfbY+w0+FSfO+zONUk71gk9+n2UsJU' +
    'tdYrKAABe5gRAAAA9HVjq7bp3xwCAAAAAApZWg==',
  'base64',
)

const facts = (nar: Uint8Array): CompressedNar => ({
  compression: 'xz',
  narHash: narHashFromDigest(hash('sha256', nar, 'buffer')),
  narSize: nar.length,
})
const decoders = findDecoders(undefined) // no program at all

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size)
    yield new Uint8Array()
  }
}

async function decode(bytes: Uint8Array, size = 64, nar: Uint8Array = text): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of decompressNar(pieces(bytes, size), facts(nar), decoders))
    chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

const refused = { code: expect.stringMatching(/^(COMPRESSION_(DATA|SIZE)|CONTENT_MISMATCH)$/) }

describe('xz, on a machine without the program', () => {
  test('is read, in chunks of any size', async () => {
    for (const size of [1, 2, 7, 64, 1 << 20]) expect(await decode(file, size)).toEqual(text)
  })

  test('is read stream after stream, and with padding, as the program does', async () => {
    const twice = Buffer.concat([file, file])
    expect(await decode(twice, 64, Buffer.concat([text, text]))).toEqual(
      Buffer.concat([text, text]),
    )
    expect(await decode(Buffer.concat([file, Buffer.alloc(4)]))).toEqual(text)
  })

  test('cut off anywhere it is refused', async () => {
    for (let length = 0; length < file.length; length++)
      await expect(decode(file.subarray(0, length))).rejects.toMatchObject({
        code: 'COMPRESSION_DATA',
      })
  })

  test('with any bit flipped it is refused, or it is the same archive', async () => {
    for (let bit = 0; bit < file.length * 8; bit++) {
      const bytes = Buffer.from(file)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        expect(await decode(bytes)).toEqual(text)
      } catch (error) {
        expect(error).toMatchObject(refused)
      }
    }
  })

  test('any bytes, and any bytes in the place of others, are refused, or are the same archive', async () => {
    const edited = fc
      .record({ at: fc.nat(file.length), put: fc.uint8Array(), drop: fc.nat(20) })
      .map(({ at, put, drop }) =>
        Buffer.concat([file.subarray(0, at), put, file.subarray(at + drop)]),
      )
    await fc.assert(
      fc.asyncProperty(fc.oneof(edited, fc.uint8Array()), async (bytes) => {
        try {
          expect(await decode(bytes)).toEqual(text)
        } catch (error) {
          expect(error).toMatchObject(refused)
        }
      }),
    )
  })

  test.each([
    ['a byte', Buffer.of(1)],
    ['zeros that are no padding', Buffer.alloc(3)],
    ['the start of another', file.subarray(0, 20)],
    ['other bytes', Buffer.from('junkjunk')],
  ])('followed by %s it is refused, wherever the chunks end', async (_, trailer) => {
    const longer = Buffer.concat([file, trailer])
    for (const size of [1, file.length, 1 << 20])
      await expect(decode(longer, size)).rejects.toMatchObject({ code: 'COMPRESSION_DATA' })
  })

  test('with a check that the decoder cannot compute it is refused', async () => {
    await expect(decode(sha256Checked)).rejects.toMatchObject({ code: 'COMPRESSION_DATA' })
  })

  test('is not read past the declared size, and the next file is read all the same', async () => {
    const small = { ...facts(text), narSize: 10 }
    await expect(async () => {
      for await (const _ of decompressNar(pieces(file, 8), small, decoders));
    }).rejects.toMatchObject({ code: 'COMPRESSION_SIZE' })
    for await (const _ of decompressNar(pieces(file, 8), facts(text), decoders)) break
    expect(await Promise.all([decode(file), decode(file, 1)])).toEqual([text, text])
  })

  test('what fails while it is read is told as it is', async () => {
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield file.subarray(0, 30)
      throw new TypeError('the network is gone')
    }
    await expect(async () => {
      for await (const _ of decompressNar(failing(), facts(text), decoders));
    }).rejects.toMatchObject({
      code: 'COMPRESSION_DATA',
      cause: new TypeError('the network is gone'),
    })
  })

  test('other formats need their program', () => {
    expect(Object.keys(decoders)).toEqual(['xz'])
    expect(Object.keys(findDecoders('relative:/nonexistent'))).toEqual(['xz'])
  })
})
