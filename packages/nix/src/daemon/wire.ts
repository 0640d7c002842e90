// The daemon's wire format, reading side: u64le integers, strings as in a NAR (length, bytes, padding),
// lists as a count and the elements. Every length is compared with a limit before anything of that size
// is kept; a peer that sends nothing is the business of the caller's timer, which fails the stream. What comes
// unasked is kept up to a limit, since it may come while nobody reads.
import { NixError } from '../error.ts'

/** All answers that may be on their way at once, which are some kB each. */
const MAX_PENDING_BYTES = 64 << 20

/** Bytes as they come from a socket, taken in the units of the protocol. One reader at a time. */
export class WireReader {
  /** Received and not yet taken. */
  #chunks: Buffer[] = []
  #available = 0
  #failure: NixError | undefined
  #wake: (() => void) | undefined

  /** Adds what the socket received. */
  push(chunk: Buffer): void {
    if (this.#failure !== undefined) return
    if (this.#available + chunk.length > MAX_PENDING_BYTES) {
      this.#chunks = []
      this.#available = 0
      const message = `expected at most ${MAX_PENDING_BYTES} bytes before they are read`
      return this.fail(new NixError('DAEMON_LIMIT', message))
    }
    this.#chunks.push(chunk)
    this.#available += chunk.length
    this.#wake?.()
  }

  /** Ends the stream: whoever reads now or later gets `failure`. The first failure stays. */
  fail(failure: NixError): void {
    this.#failure ??= failure
    this.#wake?.()
  }

  /**
   * An integer of at most `max`.
   *
   * @throws {NixError} DAEMON_LIMIT
   */
  async number(max: number, what: string): Promise<number> {
    const value = (await this.#take(8)).readBigUInt64LE()
    if (value > BigInt(max))
      throw new NixError('DAEMON_LIMIT', `expected ${what} of at most ${max}, got ${value}`)
    return Number(value)
  }

  /** Any u64 that we do not use, such as an activity's number. */
  async skipNumber(): Promise<void> {
    await this.#take(8)
  }

  /**
   * A string of at most `maxBytes`, as latin1: what we parse is ASCII, the rest is shown to people.
   *
   * @throws {NixError} DAEMON_LIMIT, DAEMON_PROTOCOL
   */
  async string(maxBytes: number, what: string): Promise<string> {
    const length = await this.number(maxBytes, `${what} with a length`)
    const padded = await this.#take(length + (-length & 7))
    for (let index = length; index < padded.length; index++)
      if (padded[index] !== 0)
        throw new NixError('DAEMON_PROTOCOL', `expected zero padding after ${what}`)
    return padded.toString('latin1', 0, length)
  }

  async strings(maxCount: number, maxBytes: number, what: string): Promise<string[]> {
    const count = await this.number(maxCount, `a count of ${what}`)
    const strings: string[] = []
    for (let index = 0; index < count; index++) strings.push(await this.string(maxBytes, what))
    return strings
  }

  async #take(size: number): Promise<Buffer> {
    while (this.#available < size) {
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    let first = this.#chunks[0] ?? Buffer.alloc(0)
    if (first.length < size) {
      first = Buffer.concat(this.#chunks)
      this.#chunks = [first]
    }
    if (first.length === size) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(size)
    this.#available -= size
    return first.subarray(0, size)
  }
}

/** `value` as u64le. */
export function encodeNumber(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** `text` (ASCII) as a string of the protocol. */
export function encodeString(text: string): Buffer {
  const bytes = Buffer.alloc(8 + text.length + (-text.length & 7))
  bytes.writeBigUInt64LE(BigInt(text.length))
  bytes.write(text, 8, 'latin1')
  return bytes
}
