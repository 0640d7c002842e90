// Reading a request body: bounded before the first byte is kept. All bodies in flight share one budget,
// so that many large uploads at once are refused instead of filling the memory.
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
export function announcedBytes(request: Request, maxBytes: number): number {
  const header = request.headers.get('content-length')
  if (header === null) return maxBytes
  if (!/^[0-9]{1,15}$/.test(header))
    throw new BrokerError('REQUEST_INVALID', 'expected a decimal Content-Length')
  const bytes = Number(header)
  if (bytes > maxBytes) throw tooLarge(maxBytes)
  return bytes
}

/** Reads a body of at most `maxBytes`. @throws {BrokerError} REQUEST_TOO_LARGE, REQUEST_INVALID */
export async function readBody(request: Request, maxBytes: number): Promise<Buffer> {
  // Node's parser ends a body at its Content-Length, which was compared with the limit.
  if (request.headers.has('content-length')) return whole(request)
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body ?? []) {
    size += chunk.length
    if (size > maxBytes) throw tooLarge(maxBytes)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, size)
}

async function whole(request: Request): Promise<Buffer> {
  try {
    return Buffer.from(await request.arrayBuffer())
  } catch (cause) {
    throw new BrokerError('REQUEST_INVALID', 'the request body ended early', { cause })
  }
}

function tooLarge(maxBytes: number): BrokerError {
  return new BrokerError('REQUEST_TOO_LARGE', `expected a body of at most ${maxBytes} bytes`)
}
