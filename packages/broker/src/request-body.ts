// Reading a request body: bounded before the first byte is kept. All bodies in flight share one budget,
// so that many large uploads at once are refused instead of filling the memory.
import type { Readable } from 'node:stream'
import { BrokerError } from './error.ts'

/** Bytes of all request bodies that may be in flight at once. */
export const MAX_BODY_BYTES_IN_FLIGHT: number = 512 * 1024 * 1024

/** The bytes of bodies that are being read or handled. */
export class BodyBudget {
  #free = MAX_BODY_BYTES_IN_FLIGHT

  /** Reserves bytes until the result is disposed of. @throws {BrokerError} OVERLOADED */
  reserve(bytes: number): Disposable {
    if (bytes > this.#free)
      throw new BrokerError('OVERLOADED', 'too many request bodies are being read')
    this.#free -= bytes
    return {
      [Symbol.dispose]: () => {
        this.#free += bytes
      },
    }
  }
}

/**
 * How many bytes a body may have: what its Content-Length says, or the route's limit where it is chunked.
 * @throws {BrokerError} REQUEST_TOO_LARGE, REQUEST_INVALID
 */
export function announcedBytes(contentLength: string | undefined, maxBytes: number): number {
  if (contentLength === undefined) return maxBytes
  if (!/^[0-9]{1,15}$/.test(contentLength))
    throw new BrokerError('REQUEST_INVALID', 'expected a decimal Content-Length')
  const bytes = Number(contentLength)
  if (bytes > maxBytes) throw tooLarge(maxBytes)
  return bytes
}

/** Reads a body of at most `maxBytes`. @throws {BrokerError} REQUEST_TOO_LARGE, REQUEST_INVALID */
export function readBody(incoming: Readable, maxBytes: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const chunks: Buffer[] = []
  let size = 0
  const early = (): void =>
    reject(new BrokerError('REQUEST_INVALID', 'the request body ended early'))
  incoming.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= maxBytes) chunks.push(chunk)
    else {
      // What still comes is thrown away with the connection, see `server.ts`.
      chunks.length = 0
      reject(tooLarge(maxBytes))
    }
  })
  incoming.once('end', () => {
    const [first] = chunks
    resolve(chunks.length === 1 && first ? first : Buffer.concat(chunks))
  })
  incoming.once('error', early).once('close', early) // after the end neither says anything new
  return promise
}

function tooLarge(maxBytes: number): BrokerError {
  return new BrokerError('REQUEST_TOO_LARGE', `expected a body of at most ${maxBytes} bytes`)
}
