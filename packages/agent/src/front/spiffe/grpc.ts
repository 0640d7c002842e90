// gRPC over HTTP/2, the server's side of calls with one request message.
//
//   request   POST /SERVICE/METHOD, content-type application/grpc, then one message
//   message   compressed? (one byte, 0), length (four bytes, big-endian), so many bytes
//   answer    headers, messages, trailers with grpc-status; without a message, headers and status are one
//
// What arrives is bounded in size and time before anything is made of it. A request that is no gRPC at all
// is answered in HTTP. Frames that were written are wiped once Node has passed them on, since they can hold
// private keys; the kernel's buffer of the socket is out of reach.
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import { AgentError } from '../../error.ts'
import { encodeMessage, OK, STATUS, StatusError, statusOf, type Status } from './status.ts'

const MAX_MESSAGE_BYTES = 16 * 1024
const MESSAGE_TIMEOUT_MS = 10_000
/** A reader that has this much unread is not reading. */
const MAX_BUFFERED_BYTES = 256 * 1024
const PREFIX_BYTES = 5

/** One call. */
export class Call {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly #stream: ServerHttp2Stream
  #status: Status | undefined

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    this.#stream = stream
    this.headers = headers
    this.path = headers[':path'] ?? ''
  }

  /** True once nothing can be sent any more. */
  get isOver(): boolean {
    return this.#status !== undefined || this.#stream.destroyed || this.#stream.closed
  }

  /** Runs `action` when the call is over, whoever ended it. */
  onceOver(action: () => void): void {
    if (this.#stream.closed || this.#stream.destroyed) action()
    else this.#stream.once('close', action)
  }

  /**
   * The request's messages, whole ones, in order.
   * @throws {AgentError} REQUEST_INVALID; {StatusError} for what is too large or compressed
   */
  async *messages(): AsyncGenerator<Buffer> {
    let pending: Buffer = Buffer.alloc(0)
    const chunks = this.#stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
    for await (const chunk of chunks) {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      for (;;) {
        if (pending.length < PREFIX_BYTES) break
        if (pending[0] !== 0)
          throw new StatusError(STATUS.unimplemented, 'expected a message that is not compressed')
        const length = pending.readUInt32BE(1)
        if (length > MAX_MESSAGE_BYTES)
          throw new StatusError(
            STATUS.resourceExhausted,
            `expected at most ${MAX_MESSAGE_BYTES} bytes, saw ${length}`,
          )
        if (pending.length < PREFIX_BYTES + length) break
        yield pending.subarray(PREFIX_BYTES, PREFIX_BYTES + length)
        pending = pending.subarray(PREFIX_BYTES + length)
      }
    }
    if (pending.length > 0) throw new AgentError('REQUEST_INVALID', 'the message was cut off')
  }

  /**
   * The one message of a request.
   * @throws {AgentError} REQUEST_INVALID; {StatusError}
   */
  async message(): Promise<Buffer> {
    const timer = setTimeout(() => this.#stream.close(constants.NGHTTP2_CANCEL), MESSAGE_TIMEOUT_MS)
    try {
      let only: Buffer | undefined
      for await (const message of this.messages()) {
        if (only !== undefined)
          throw new AgentError('REQUEST_INVALID', 'expected one message, saw another')
        only = message
      }
      if (only === undefined) throw new AgentError('REQUEST_INVALID', 'expected one message')
      return only
    } finally {
      clearTimeout(timer)
    }
  }

  /** Writes a message, given in pieces; ends the connection of a reader that does not read. */
  send(message: readonly Uint8Array[]): void {
    const stream = this.#stream
    if (this.isOver) return
    if (stream.writableLength > MAX_BUFFERED_BYTES) return stream.session?.destroy()
    if (!stream.headersSent) {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc' },
        { waitForTrailers: true },
      )
      stream.once('wantTrailers', () => stream.sendTrailers(trailers(this.#status ?? OK)))
    }
    const frame = Buffer.concat([Buffer.alloc(PREFIX_BYTES), ...message])
    frame.writeUInt32BE(frame.length - PREFIX_BYTES, 1)
    stream.write(frame, () => frame.fill(0))
  }

  /** Ends the call; the first status counts. */
  end(status: Status): void {
    const stream = this.#stream
    if (this.isOver) return
    this.#status = status
    if (stream.headersSent) stream.end()
    else
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', ...trailers(status) },
        { endStream: true },
      )
    // What is still coming is not waited for: the client hears that nobody listens.
    stream.resume()
    if (!stream.readableEnded) stream.once('finish', () => stream.close(constants.NGHTTP2_NO_ERROR))
  }

  /** Ends the call with what `error` stands for. */
  fail(error: unknown): void {
    this.end(statusOf(error))
  }
}

/** The call on a new stream; undefined if it is none, which has been answered. */
export function acceptCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
): Call | undefined {
  // The peer's resets arrive here; a stream without a listener would end the agent.
  stream.on('error', () => undefined)
  const refuse = (status: number): undefined => {
    stream.respond({ ':status': status }, { endStream: true })
    stream.close(constants.NGHTTP2_NO_ERROR)
  }
  if (headers[':method'] !== 'POST') return refuse(405)
  if (!/^application\/grpc(\+proto)?(;.*)?$/.test(headers['content-type'] ?? '')) return refuse(415)
  return new Call(stream, headers)
}

function trailers({ code, message }: Status): Record<string, string> {
  return {
    'grpc-status': String(code),
    ...(message === '' ? {} : { 'grpc-message': encodeMessage(message) }),
  }
}
