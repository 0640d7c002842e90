import { hash } from 'node:crypto'
import { spawn, spawnSync } from 'node:child_process'
import { Readable } from 'node:stream'
import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decompressNar, NAR_COMPRESSIONS, narHashFromDigest } from '@bagcheck/nix'
import type { CompressedNar, NarDecoder } from '@bagcheck/nix'

const compressors = {
  none: (bytes: Uint8Array) => Buffer.from(bytes),
  gzip: (bytes: Uint8Array) => gzipSync(bytes),
  zstd: (bytes: Uint8Array) => zstdCompressSync(bytes),
  br: (bytes: Uint8Array) => brotliCompressSync(bytes),
} as const

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

function describeNar(compression: string, nar: Uint8Array, file?: Uint8Array): CompressedNar {
  return {
    compression,
    narHash: narHashFromDigest(hash('sha256', nar, 'buffer')),
    narSize: nar.length,
    ...(file && { fileSize: file.length }),
  }
}

async function decompress(
  file: Uint8Array,
  facts: CompressedNar,
  size = 64,
  decoders?: Record<string, NarDecoder>,
): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of decompressNar(pieces(file, size), facts, decoders))
    chunks.push(Buffer.from(chunk)) // a copy: pieces may be reused
  return Buffer.concat(chunks)
}

const text = Buffer.from('An archive, as far as a decompressor is concerned. '.repeat(40))

describe.each(NAR_COMPRESSIONS)('%s', (name) => {
  const compress = compressors[name]
  const file = compress(text)
  const facts = describeNar(name, text, file)

  test('is read, in chunks of any size', async () => {
    for (const size of [1, 2, 7, 64, 1 << 20])
      expect(await decompress(file, facts, size)).toEqual(text)
  })

  test('any bytes come back', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 3000 }),
        fc.integer({ min: 1, max: 999 }),
        async (bytes, size) => {
          const packed = compress(bytes)
          expect(await decompress(packed, describeNar(name, bytes, packed), size)).toEqual(
            Buffer.from(bytes),
          )
        },
      ),
      { numRuns: 30 },
    )
  })

  test('cut off anywhere it is refused', async () => {
    for (let length = 0; length < file.length; length++)
      await expect(decompress(file.subarray(0, length), facts)).rejects.toMatchObject({
        code: expect.stringMatching(/^COMPRESSION_(DATA|SIZE)$/),
      })
  })

  test('with one bit flipped it is refused, or it is the same archive', async () => {
    // Without compression every byte is like every other; one bit of each will do.
    for (let bit = 0; bit < file.length * 8; bit += name === 'none' ? 9 : 1) {
      const bytes = Buffer.from(file)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        expect(await decompress(bytes, facts)).toEqual(text)
      } catch (error) {
        expect(error).toMatchObject({
          code: expect.stringMatching(/^(COMPRESSION_(DATA|SIZE)|CONTENT_MISMATCH)$/),
        })
      }
    }
  })

  test('any bytes, and any bytes in the place of others, are refused, or are the same archive', async () => {
    const edit = fc.record({ at: fc.nat(file.length), put: fc.uint8Array(), drop: fc.nat(20) })
    const edited = edit.map(({ at, put, drop }) =>
      Buffer.concat([file.subarray(0, at), put, file.subarray(at + drop)]),
    )
    const { fileSize: _size, ...unknown } = facts
    await fc.assert(
      fc.asyncProperty(fc.oneof(edited, fc.uint8Array()), async (bytes) => {
        try {
          expect(await decompress(bytes, unknown)).toEqual(text)
        } catch (error) {
          expect(error).toMatchObject({
            code: expect.stringMatching(/^(COMPRESSION_(DATA|SIZE)|CONTENT_MISMATCH)$/),
          })
        }
      }),
    )
  })

  test.each([
    ['zeros', Buffer.alloc(4)],
    ['other bytes', Buffer.from('junk')],
    ['one byte', Buffer.of(1)],
  ])('followed by %s it is refused, wherever the chunks end', async (_, trailer) => {
    const longer = Buffer.concat([file, trailer])
    const { fileSize: _size, ...unknown } = facts
    for (const size of [1, file.length, 1 << 20])
      await expect(decompress(longer, unknown, size)).rejects.toMatchObject({
        code: expect.stringMatching(/^COMPRESSION_(DATA|SIZE)$/),
      })
  })

  test('a file longer than it was declared is refused', async () => {
    await expect(decompress(file, { ...facts, fileSize: file.length - 1 })).rejects.toMatchObject({
      code: 'COMPRESSION_SIZE',
    })
  })

  test('an archive longer or shorter than it was declared is refused', async () => {
    for (const narSize of [text.length - 1, text.length + 1, 1])
      await expect(decompress(file, { ...facts, narSize })).rejects.toMatchObject({
        code: 'COMPRESSION_SIZE',
      })
  })

  test('another archive of the same size is CONTENT_MISMATCH', async () => {
    const other = Buffer.from(text)
    other[5] = 0
    const packed = compress(other)
    await expect(decompress(packed, { ...facts, fileSize: packed.length })).rejects.toMatchObject({
      code: 'CONTENT_MISMATCH',
    })
  })
})

describe.each(['gzip', 'zstd'] as const)('%s in several frames', (name) => {
  const compress = compressors[name]
  const frames = [text.subarray(0, 100), text.subarray(100, 101), text.subarray(101)].map((part) =>
    compress(part),
  )

  test('is read whole, wherever the chunks end', async () => {
    const file = Buffer.concat(frames)
    for (const size of [1, 3, frames[0]?.length ?? 0, 1 << 20])
      expect(await decompress(file, describeNar(name, text, file), size)).toEqual(text)
  })

  test('a frame that is cut off or damaged is refused', async () => {
    const file = Buffer.concat(frames)
    const facts = describeNar(name, text, file)
    await expect(decompress(file.subarray(0, -3), facts, 1 << 20)).rejects.toMatchObject({
      code: 'COMPRESSION_DATA',
    })
    const magic = frames[0]?.length ?? 0
    file[magic] = 0x55
    await expect(decompress(file, facts, 1 << 20)).rejects.toMatchObject({
      code: 'COMPRESSION_DATA',
    })
  })

  test('a last frame that is missing is COMPRESSION_SIZE', async () => {
    await expect(
      decompress(Buffer.concat(frames.slice(0, 2)), describeNar(name, text), 1 << 20),
    ).rejects.toMatchObject({ code: 'COMPRESSION_SIZE' })
  })

  test('frames without content end at the bound of the file', async () => {
    const empty = compress(Buffer.alloc(0))
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) yield empty
    }
    const read = Array.fromAsync(decompressNar(endless(), describeNar(name, text)))
    await expect(read).rejects.toMatchObject({ code: 'COMPRESSION_SIZE' })
  })
})

describe('expansion', () => {
  test('stops at the declared size, though the file would go on for gigabytes', async () => {
    const zeros = Buffer.alloc(64 << 20)
    const file = zstdCompressSync(zeros)
    expect(file.length).toBeLessThan(8192)
    let put = 0
    const read = async (): Promise<void> => {
      async function* endless(): AsyncGenerator<Uint8Array> {
        for (;;) yield file
      }
      const facts = { ...describeNar('zstd', text), narSize: 1 << 20, fileSize: 1 << 30 }
      for await (const chunk of decompressNar(endless(), facts)) put += chunk.length
    }
    await expect(read()).rejects.toMatchObject({ code: 'COMPRESSION_SIZE' })
    expect(put).toBeLessThanOrEqual(1 << 20)
  })

  test('a zstd frame that asks for more than 128 MiB of window is refused', async () => {
    const bytes = Buffer.alloc(1 << 16)
    const params = { [constants.ZSTD_c_windowLog]: 28 }
    // Without a known size the frame must state the window it needs.
    const { promise, resolve } = Promise.withResolvers<Buffer>()
    const { createZstdCompress } = await import('node:zlib')
    const stream = Readable.from([bytes]).pipe(createZstdCompress({ params }))
    void Array.fromAsync(stream as AsyncIterable<Buffer>).then((all) => resolve(Buffer.concat(all)))
    const file = await promise
    await expect(decompress(file, describeNar('zstd', bytes, file))).rejects.toMatchObject({
      code: 'COMPRESSION_DATA',
    })
  })

  test('a reader that stops early lets its source go', async () => {
    let closed = false
    const file = gzipSync(text)
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield* pieces(file, 16)
      } finally {
        closed = true
      }
    }
    for await (const _ of decompressNar(source(), describeNar('gzip', text))) break
    expect(closed).toBe(true)
  })
})

describe('a decoder that is passed in', () => {
  /** `xz` as a program; the bound and the hash are ours whatever it does. */
  const xz: NarDecoder = async function* (chunks) {
    const child = spawn('xz', ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'] })
    child.stdin.on('error', () => undefined) // the exit code tells
    const fed = Readable.from(chunks).pipe(child.stdin)
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
    try {
      yield* child.stdout as AsyncIterable<Uint8Array>
      const code = await ended
      if (code !== 0) throw new Error(`xz ended with ${code}`)
    } finally {
      fed.destroy()
      child.kill()
    }
  }

  test('reads xz', async ({ skip }) => {
    const packed = spawnSync('xz', ['-c'], { input: text })
    skip(packed.error !== undefined, 'xz is not installed')
    const facts = describeNar('xz', text, packed.stdout)
    expect(await decompress(packed.stdout, facts, 64, { xz })).toEqual(text)
    await expect(
      decompress(packed.stdout.subarray(0, -1), facts, 64, { xz }),
    ).rejects.toMatchObject({ code: 'COMPRESSION_DATA' })
    await expect(
      decompress(packed.stdout, { ...facts, narSize: 10 }, 64, { xz }),
    ).rejects.toMatchObject({ code: 'COMPRESSION_SIZE' })
  })

  test('without one the format is refused by name', async () => {
    for (const name of ['xz', 'bzip2', 'toString', '__proto__'])
      await expect(decompress(text, describeNar(name, text))).rejects.toMatchObject({
        code: 'COMPRESSION_UNSUPPORTED',
      })
  })
})
