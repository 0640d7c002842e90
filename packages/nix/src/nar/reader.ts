// Reads a Nix archive as a stream of events, and refuses what Nix itself would not write.
//
//   str(s)  = u64le length, the bytes, zero padding to a multiple of 8
//   nar     = str("nix-archive-1") obj
//   obj     = "(" "type" ( "regular" ["executable" ""] "contents" data
//                        | "symlink" "target" t
//                        | "directory" {"entry" "(" "name" n "node" obj ")"} ) ")"
//
// The sender is hostile. Strings are bounded before they are read, file contents are never buffered,
// names increase strictly (so there are no duplicates), depth is bounded, padding is zero and nothing
// follows the archive. Nix 2.8 accepts unsorted names and any depth, and every Nix ignores trailing
// bytes: two readers that disagree about an archive are a way to show one and run the other.
// https://nix.dev/manual/nix/latest/protocols/nix-archive/
import { NixError, quote } from '../error.ts'
import { decodeFileName } from '../file-name.ts'
import {
  findNameBreach,
  findTargetBreach,
  MAX_NAME_BYTES,
  MAX_TARGET_BYTES,
  NAR_MAX_DEPTH,
} from './rules.ts'
import type { Breach } from './rules.ts'

/** One step through an archive, in the order in which it is written. */
export type NarEvent =
  | { readonly type: 'directory' }
  | { readonly type: 'entry'; readonly name: string }
  | { readonly type: 'end' }
  | {
      readonly type: 'regular'
      readonly executable: boolean
      readonly size: number
      /** Where the contents start, in bytes from the start of the archive; `readNar` says it. */
      readonly offset?: number
    }
  | { readonly type: 'chunk'; readonly bytes: Uint8Array }
  | { readonly type: 'symlink'; readonly target: string }

/** Bounds for {@link readNar}. */
export interface NarLimits {
  /** Most bytes of the whole archive; default 1 TiB. */
  readonly maxBytes?: number
  /** The declared size of the whole archive, which must be met exactly. */
  readonly narSize?: number
}

const MAX_TOKEN_BYTES = 32
const DEFAULT_MAX_BYTES = 2 ** 40

/**
 * The events of one archive. A directory is `directory`, then `entry` and the entry's own events for
 * each name in byte order, then `end`. A regular file is `regular`, then `chunk`s that add up to `size`
 * (none when it is 0). Names and targets are strings as `decodeFileName` makes them.
 *
 * @throws {NixError} NAR_TRUNCATED, NAR_TOKEN, NAR_PADDING, NAR_NAME, NAR_ORDER, NAR_TARGET, NAR_LIMIT,
 * NAR_SIZE, NAR_TRAILING; `detail.offset` is in bytes from the start.
 */
export async function* readNar(
  chunks: AsyncIterable<Uint8Array>,
  limits: NarLimits = {},
): AsyncGenerator<NarEvent, void, undefined> {
  const input = new NarInput(chunks, limits)
  try {
    yield* readArchive(input)
  } finally {
    await input.close()
  }
}

async function* readArchive(input: NarInput): AsyncGenerator<NarEvent, void, undefined> {
  await input.expect('nix-archive-1')
  // For each open directory, the name last seen in it.
  const open: (Buffer | undefined)[] = []
  yield* readObjectHead(input, open)
  while (open.length > 0) {
    const token = await input.token()
    if (token === ')') {
      open.pop()
      yield { type: 'end' }
      if (open.length > 0) await input.expect(')') // of the entry
      continue
    }
    if (token !== 'entry') throw input.unexpected('"entry" or ")"', token)
    await input.expect('(')
    await input.expect('name')
    const name = await input.bytes(MAX_NAME_BYTES, 'NAR_NAME')
    input.refuse(findNameBreach(name, open.at(-1)))
    open[open.length - 1] = name
    yield { type: 'entry', name: decodeFileName(name) }
    await input.expect('node')
    const depth = open.length
    yield* readObjectHead(input, open)
    if (open.length === depth) await input.expect(')') // a directory's entry is closed at its end
  }
  await input.expectEnd()
}

/** Everything of an object up to the entries of a directory, which it pushes on `open`. */
async function* readObjectHead(
  input: NarInput,
  open: (Buffer | undefined)[],
): AsyncGenerator<NarEvent, void, undefined> {
  if (open.length >= NAR_MAX_DEPTH)
    throw input.error('NAR_LIMIT', `expected at most ${NAR_MAX_DEPTH} levels of directories`)
  await input.expect('(')
  await input.expect('type')
  const type = await input.token()
  if (type === 'directory') {
    open.push(undefined)
    yield { type: 'directory' }
    return
  }
  if (type === 'symlink') {
    await input.expect('target')
    const target = await input.bytes(MAX_TARGET_BYTES, 'NAR_TARGET')
    input.refuse(findTargetBreach(target))
    yield { type: 'symlink', target: decodeFileName(target) }
  } else if (type === 'regular') {
    let token = await input.token()
    const executable = token === 'executable'
    if (executable) {
      await input.expect('')
      token = await input.token()
    }
    if (token !== 'contents') throw input.unexpected('"contents"', token)
    const size = await input.length()
    yield { type: 'regular', executable, size, offset: input.offset }
    yield* input.contents(size)
  } else {
    throw input.unexpected('"regular", "symlink" or "directory"', type)
  }
  await input.expect(')')
}

/** The archive's bytes with the position in them. Owned by one reader. */
class NarInput {
  readonly #source: AsyncIterator<Uint8Array>
  readonly #narSize: number | undefined
  readonly #maxBytes: number
  /** What was received and not yet taken; `#offset` is the position of its first byte. */
  #buffer: Buffer = Buffer.alloc(0)
  #offset = 0

  constructor(chunks: AsyncIterable<Uint8Array>, limits: NarLimits) {
    this.#source = chunks[Symbol.asyncIterator]()
    this.#narSize = limits.narSize
    this.#maxBytes = Math.min(limits.maxBytes ?? DEFAULT_MAX_BYTES, limits.narSize ?? Infinity)
  }

  /** The position in the archive, in bytes. */
  get offset(): number {
    return this.#offset
  }

  refuse(breach: Breach | undefined): void {
    if (breach !== undefined) throw this.error(breach.code, breach.message)
  }

  error(code: NixError['code'], message: string): NixError {
    const detail = { offset: this.#offset }
    return new NixError(code, `${message} at byte ${this.#offset}`, { detail })
  }

  unexpected(expected: string, seen: string): NixError {
    return this.error('NAR_TOKEN', `expected ${expected}, got ${quote(seen)}`)
  }

  async expect(token: string): Promise<void> {
    const seen = await this.token()
    if (seen !== token) throw this.unexpected(quote(token), seen)
  }

  async token(): Promise<string> {
    return (await this.bytes(MAX_TOKEN_BYTES, 'NAR_TOKEN')).toString('latin1')
  }

  /** A string of at most `max` bytes. */
  async bytes(max: number, code: NixError['code']): Promise<Buffer> {
    const size = await this.length()
    if (size > max) throw this.error(code, `expected at most ${max} bytes, got ${size}`)
    const bytes = await this.#take(size)
    await this.#padding(size)
    return bytes
  }

  /** A u64 that, as a length, still fits into the archive. */
  async length(): Promise<number> {
    const length = (await this.#take(8)).readBigUInt64LE()
    const room = this.#maxBytes - this.#offset
    if (length > BigInt(Math.max(room, 0)))
      throw this.error('NAR_LIMIT', `expected a length of at most ${room} bytes, got ${length}`)
    return Number(length)
  }

  async *contents(size: number): AsyncGenerator<NarEvent, void, undefined> {
    let left = size
    while (left > 0) {
      if (this.#buffer.length === 0) await this.#fill()
      const bytes = this.#buffer.subarray(0, left)
      this.#advance(bytes.length)
      left -= bytes.length
      yield { type: 'chunk', bytes }
    }
    await this.#padding(size)
  }

  async expectEnd(): Promise<void> {
    if (this.#buffer.length > 0 || (await this.#receive()))
      throw this.error('NAR_TRAILING', 'expected the end of the archive')
    if (this.#narSize !== undefined && this.#narSize !== this.#offset)
      throw this.error('NAR_SIZE', `expected an archive of ${this.#narSize} bytes, which ended`)
  }

  /** Lets the source go, also when the reader stopped half-way. */
  async close(): Promise<void> {
    await this.#source.return?.()
  }

  async #padding(size: number): Promise<void> {
    const padding = await this.#take(-size & 7)
    if (padding.some((byte) => byte !== 0))
      throw this.error('NAR_PADDING', 'expected zero bytes of padding')
  }

  async #take(size: number): Promise<Buffer> {
    while (this.#buffer.length < size) await this.#fill()
    const bytes = this.#buffer.subarray(0, size)
    this.#advance(size)
    return bytes
  }

  #advance(size: number): void {
    this.#buffer = this.#buffer.subarray(size)
    this.#offset += size
    if (this.#offset > this.#maxBytes)
      throw this.error('NAR_LIMIT', `expected an archive of at most ${this.#maxBytes} bytes`)
  }

  async #fill(): Promise<void> {
    if (!(await this.#receive()))
      throw this.error('NAR_TRUNCATED', 'expected more bytes, the archive ended')
  }

  /** Adds the next chunk that has bytes; false at the end. */
  async #receive(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#source.next()
      if (done === true) return false
      if (value.length === 0) continue
      const chunk = Buffer.from(value.buffer, value.byteOffset, value.length)
      this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk])
      return true
    }
  }
}
