// Compressed archives, as binary caches serve them, read as a stream with a bound on their expansion.
//
// `none`, `gzip`, `zstd` and `br` come with Node; a decoder for anything else (`xz`, which Nix still
// writes by default, `bzip2`, `lzip`) is passed in, so that this package has neither dependencies nor a
// decompressor of its own.
//
// The sender is hostile: a small file can expand without end, and a decoder can be fed for ever without
// saying anything. So at most `narSize` bytes come out, at most `fileSize` go in (or what an archive of
// `narSize` can take), and what came out must be `narSize` bytes with the hash `narHash`. Which is known
// only at the end: nothing of the archive may be believed before the stream has ended.
import { createHash } from 'node:crypto'
import { constants, createBrotliDecompress, createGunzip, createZstdDecompress } from 'node:zlib'
import type { BrotliDecompress, Gunzip, ZstdDecompress } from 'node:zlib'
import { NixError, quote } from '../error.ts'
import { narHashFromDigest } from '../hash.ts'
import type { NarInfo } from '../nar-info.ts'

/**
 * Decodes one compression format. It reads its input no faster than its output is taken, throws on
 * anything but whole, valid input, and bounds its own memory.
 */
export type NarDecoder = (chunks: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>

/** What is known about a compressed archive before it is read. */
export type CompressedNar = Pick<NarInfo, 'compression' | 'fileSize' | 'narHash' | 'narSize'>

/** The formats that need no decoder to be passed in. */
export const NAR_COMPRESSIONS = ['none', 'gzip', 'zstd', 'br'] as const

type Engine = BrotliDecompress | Gunzip | ZstdDecompress

// zstd frames may ask for any window; 128 MiB is what `zstd` itself grants without being asked.
const ZSTD_WINDOW_LOG_MAX = 27
const ZSTD_PARAMS = { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX }
// Incompressible data grows a little; whatever needs more than this is padding.
const FILE_SLACK_BYTES = 1 << 16

/**
 * The archive in the compressed file `chunks`, in pieces that are valid until the next is asked for.
 *
 * @param decoders By the name of the format; they come before what Node has.
 * @throws {NixError} COMPRESSION_UNSUPPORTED – no decoder for the format; COMPRESSION_DATA – damaged, cut
 * off, or followed by something; COMPRESSION_SIZE – more or less than the sizes that were declared;
 * CONTENT_MISMATCH – at the end: another archive than `narHash` says.
 */
export async function* decompressNar(
  chunks: AsyncIterable<Uint8Array>,
  file: CompressedNar,
  decoders: Readonly<Record<string, NarDecoder>> = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const decode = findDecoder(file.compression, decoders)
  const { narSize } = file
  const maxFileSize = file.fileSize ?? Math.floor(narSize * 1.125) + FILE_SLACK_BYTES
  const hash = createHash('sha256')
  let size = 0
  try {
    for await (const chunk of decode(bounded(chunks, maxFileSize))) {
      size += chunk.length
      if (size > narSize) throw sizeError(`expected an archive of ${narSize} bytes, got more`)
      hash.update(chunk)
      yield chunk
    }
  } catch (cause) {
    if (cause instanceof NixError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('COMPRESSION_DATA', `expected ${file.compression} data: ${reason}`, {
      cause,
    })
  }
  if (size !== narSize) throw sizeError(`expected an archive of ${narSize} bytes, got ${size}`)
  const narHash = narHashFromDigest(hash.digest())
  if (narHash !== file.narHash)
    throw new NixError('CONTENT_MISMATCH', `expected NAR hash ${file.narHash}, got ${narHash}`)
}

function findDecoder(
  compression: string,
  decoders: Readonly<Record<string, NarDecoder>>,
): NarDecoder {
  if (Object.hasOwn(decoders, compression)) return decoders[compression] as NarDecoder
  switch (compression) {
    case 'none':
      return (chunks) => chunks
    case 'gzip':
      return (chunks) => decodeFrames(chunks, createGunzip)
    case 'zstd':
      return (chunks) => decodeFrames(chunks, () => createZstdDecompress({ params: ZSTD_PARAMS }))
    case 'br':
      return (chunks) => decodeFrames(chunks, createBrotliDecompress)
    default: {
      const known = [...new Set([...NAR_COMPRESSIONS, ...Object.keys(decoders)])].join(', ')
      throw new NixError(
        'COMPRESSION_UNSUPPORTED',
        `expected one of ${known}, got ${quote(compression)}`,
      )
    }
  }
}

/**
 * Decodes frames that follow each other. Node's own streams end at the first frame that ends within a
 * chunk and drop the rest of that chunk without a word (zstd, brotli; gzip when the rest is zeros): what
 * was not consumed is given to a new engine, which takes it as a frame or refuses it.
 */
async function* decodeFrames(
  chunks: AsyncIterable<Uint8Array>,
  createEngine: () => Engine,
): AsyncGenerator<Uint8Array, void, undefined> {
  let frame = new Frame(createEngine())
  try {
    for await (const chunk of chunks) {
      let rest = chunk
      while (rest.length > 0) {
        const consumed: number = yield* frame.write(rest)
        rest = rest.subarray(consumed)
        if (rest.length === 0) break
        if (consumed === 0 && frame.fresh) throw new Error('nothing that could be decoded')
        frame.close()
        frame = new Frame(createEngine())
      }
    }
    yield* frame.end()
  } finally {
    frame.close()
  }
}

/** One of Node's decompressors, driven chunk by chunk so that it is known what it consumed. */
class Frame {
  readonly #engine: Engine
  #ended = false
  #failure: unknown
  #wake: (() => void) | undefined
  /** True until something was consumed. */
  fresh = true

  constructor(engine: Engine) {
    this.#engine = engine
    engine.on('readable', () => this.#wake?.())
    engine.on('end', () => {
      this.#ended = true
      this.#wake?.()
    })
    engine.on('error', (error) => {
      this.#failure ??= error
      this.#wake?.()
    })
  }

  /** Yields what comes of `chunk` and returns how much of it was consumed: less when a frame ended. */
  async *write(chunk: Uint8Array): AsyncGenerator<Uint8Array, number, undefined> {
    const before = this.#engine.bytesWritten
    let accepted = false
    // Not called when the frame ends within the chunk; then the stream ends.
    this.#engine.write(chunk, () => {
      accepted = true
      this.#wake?.()
    })
    yield* this.#drain(() => accepted)
    const consumed = this.#engine.bytesWritten - before
    if (consumed > 0) this.fresh = false
    return consumed
  }

  /** Yields the rest; throws when the input is not complete. */
  async *end(): AsyncGenerator<Uint8Array, void, undefined> {
    this.#engine.end()
    yield* this.#drain(() => false)
  }

  close(): void {
    this.#engine.destroy()
  }

  /** Yields output until the stream ended or `done` holds. */
  async *#drain(done: () => boolean): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      const last = done() || this.#ended // what it put out before it said so is read below
      for (let output = this.#read(); output !== null; output = this.#read()) yield output
      if (this.#failure !== undefined) throw this.#failure
      if (last) return
      if (done() || this.#ended) continue
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  #read(): Buffer | null {
    return this.#engine.read() as Buffer | null // no encoding is set
  }
}

async function* bounded(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > maxBytes) throw sizeError(`expected a file of at most ${maxBytes} bytes, got more`)
    yield chunk
  }
}

function sizeError(message: string): NixError {
  return new NixError('COMPRESSION_SIZE', message)
}
