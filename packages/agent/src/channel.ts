// Frames between front and measurer: four bytes of length, big-endian, then that many bytes of JSON, one
// object. Whatever is longer than the receiver takes, or no object, ends the connection: both ends are ours
// and of one release, so a frame that is not understood is an attack or a mistake, and neither gets better.
import type { Socket } from 'node:net'
import { AgentError } from './error.ts'

const HEADER_BYTES = 4

/** What a {@link Channel} tells its owner. */
export interface ChannelEvents {
  readonly frame: (value: Readonly<Record<string, unknown>>) => void
  /** Once; with the reason if it was not closed in good order. */
  readonly end: (error?: Error) => void
}

/** One connection that carries frames. */
export class Channel {
  readonly #socket: Socket
  readonly #limits: { readonly maxFrameBytes: number; readonly maxUnsentBytes: number }
  readonly #events: ChannelEvents
  // What arrived and makes no whole frame yet.
  #chunks: Buffer[] = []
  #bytes = 0
  #ended = false

  constructor(
    socket: Socket,
    limits: { readonly maxFrameBytes: number; readonly maxUnsentBytes: number },
    events: ChannelEvents,
  ) {
    this.#socket = socket
    this.#limits = limits
    this.#events = events
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.once('error', (error) => this.end(error))
    socket.once('end', () => this.end(this.#bytes > 0 ? malformed('a whole frame') : undefined))
    socket.once('close', () => this.end())
  }

  /** Sends a frame; an end that does not read is cut off. */
  send(value: object): void {
    if (this.#ended) return
    const body = Buffer.from(JSON.stringify(value), 'utf8')
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt32BE(body.length)
    this.#socket.cork()
    this.#socket.write(header)
    this.#socket.write(body)
    this.#socket.uncork()
    if (this.#socket.writableLength > this.#limits.maxUnsentBytes)
      this.end(malformed('an end that reads'))
  }

  /** Closes the connection. */
  end(error?: Error): void {
    if (this.#ended) return
    this.#ended = true
    this.#socket.destroy()
    this.#chunks = []
    this.#events.end(error)
  }

  #receive(chunk: Buffer): void {
    if (this.#ended) return
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    try {
      for (let body = this.#take(); body !== undefined; body = this.#take())
        this.#events.frame(parseFrame(body))
    } catch (error) {
      this.end(error as Error)
    }
  }

  /** The next whole frame, if it has arrived. */
  #take(): Buffer | undefined {
    if (this.#ended || this.#bytes < HEADER_BYTES) return undefined
    if ((this.#chunks[0] as Buffer).length < HEADER_BYTES)
      this.#chunks = [Buffer.concat(this.#chunks)]
    const length = (this.#chunks[0] as Buffer).readUInt32BE(0)
    if (length > this.#limits.maxFrameBytes)
      throw malformed(`at most ${this.#limits.maxFrameBytes} bytes in a frame`)
    if (this.#bytes < HEADER_BYTES + length) return undefined
    const all =
      this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks)
    const rest = all.subarray(HEADER_BYTES + length)
    this.#chunks = rest.length > 0 ? [rest] : []
    this.#bytes = rest.length
    return all.subarray(HEADER_BYTES, HEADER_BYTES + length)
  }
}

function parseFrame(body: Buffer): Readonly<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch (cause) {
    throw malformed('JSON', cause)
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Readonly<Record<string, unknown>>
  throw malformed('a JSON object')
}

function malformed(expected: string, cause?: unknown): AgentError {
  return new AgentError('MEASURER_PROTOCOL', `expected ${expected}`, { cause })
}
