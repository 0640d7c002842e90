// A binary cache over HTTP. What fails in a way that may pass (no connection, 429, 5xx, a stall) is tried
// again, because a closure of a thousand paths is a thousand requests.
import { setTimeout } from 'node:timers/promises'
import { NixError, quote } from '../error.ts'
import type { CacheStorage } from './storage.ts'

/** How to ask. */
export interface HttpOptions {
  /** Default: the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch
  /** Sent with each request, such as `Authorization` for a private cache. */
  readonly headers?: Readonly<Record<string, string>>
  /** Ends what is under way. */
  readonly signal?: AbortSignal
  /** Longest time for one small file, and for the next piece of an archive; default 30,000 ms. */
  readonly timeoutMs?: number
  /** Wait before what failed is tried again, doubled each time; default 100 ms. */
  readonly retryDelayMs?: number
}

const DEFAULT_TIMEOUT_MS = 30_000
const ATTEMPTS = 4
const DEFAULT_RETRY_DELAY_MS = 100
const MISSING: readonly number[] = [404, 410]
const REFUSED: readonly number[] = [401, 403]
const TRANSIENT: readonly number[] = [408, 429, 500, 502, 503, 504]

/** The files of the cache at `base`. */
export function httpStorage(base: URL, options: HttpOptions): CacheStorage {
  const { fetch = globalThis.fetch, headers = {}, signal, timeoutMs } = options
  const firstDelayMs = options.retryDelayMs ?? DEFAULT_RETRY_DELAY_MS
  const root = new URL(base)
  if (!root.pathname.endsWith('/')) root.pathname += '/'

  async function request(name: string, deadline: Deadline): Promise<Response | undefined> {
    const url = new URL(name, root)
    const response = await fetch(url, { headers, signal: deadline.signal })
    if (response.ok) return response
    await response.body?.cancel()
    const { status } = response
    if (MISSING.includes(status)) return undefined
    const hint = REFUSED.includes(status)
      ? ': it wants credentials, or, as some stores do, hides that it lacks the file'
      : ''
    throw new NixError('CACHE_RESPONSE', `expected ${quote(url.href)}, got ${status}${hint}`, {
      detail: { url: url.href, status },
    })
  }

  /** Says what a failure was; the reason of an abort goes through as it is. */
  function judge(name: string, cause: unknown, deadline: Deadline): unknown {
    if (signal?.aborted === true) return signal.reason
    if (cause instanceof NixError) return cause
    const { href } = new URL(name, root)
    const detail = { url: href }
    if (deadline.passed) {
      const message = `expected ${quote(href)} within ${deadline.milliseconds} ms`
      return new NixError('CACHE_TIMEOUT', message, { cause, detail })
    }
    const message = `expected a binary cache at ${quote(href)}: ${reasonOf(cause)}`
    return new NixError('CACHE_UNREACHABLE', message, { cause, detail })
  }

  async function readOnce(name: string, maxBytes: number): Promise<Uint8Array | undefined> {
    using deadline = new Deadline(timeoutMs ?? DEFAULT_TIMEOUT_MS, signal)
    try {
      const response = await request(name, deadline)
      if (response === undefined) return undefined
      const chunks: Uint8Array[] = []
      let size = 0
      for await (const chunk of bodyOf(response)) {
        size += chunk.length
        if (size > maxBytes) {
          const message = `expected at most ${maxBytes} bytes of ${quote(name)}`
          throw new NixError('CACHE_LIMIT', message, { detail: { file: name } })
        }
        chunks.push(chunk)
      }
      return Buffer.concat(chunks)
    } catch (cause) {
      throw judge(name, cause, deadline)
    }
  }

  return {
    async read(name, maxBytes) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await readOnce(name, maxBytes)
        } catch (error) {
          if (attempt === ATTEMPTS || !mayPass(error)) throw error
          await setTimeout(firstDelayMs * 2 ** (attempt - 1), undefined, { signal }).catch(() =>
            signal?.throwIfAborted(),
          )
        }
      }
    },
    async *stream(name) {
      using deadline = new Deadline(timeoutMs ?? DEFAULT_TIMEOUT_MS, signal)
      try {
        const response = await request(name, deadline)
        if (response === undefined)
          throw new NixError('CACHE_RESPONSE', `expected the cache to have ${quote(name)}`)
        for await (const chunk of bodyOf(response)) {
          deadline.pause() // the reader may take its time
          yield chunk
          deadline.restart()
        }
      } catch (cause) {
        throw judge(name, cause, deadline)
      }
    },
  }
}

/** A timer that aborts what is under way, joined with the signal of the caller. */
class Deadline implements Disposable {
  readonly milliseconds: number
  readonly signal: AbortSignal
  readonly #abort = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(milliseconds: number, signal: AbortSignal | undefined) {
    this.milliseconds = milliseconds
    this.signal =
      signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal])
    this.restart()
  }

  get passed(): boolean {
    return this.#abort.signal.aborted
  }

  restart(): void {
    this.pause()
    this.#timer = globalThis.setTimeout(() => this.#abort.abort(), this.milliseconds)
  }

  pause(): void {
    clearTimeout(this.#timer)
  }

  [Symbol.dispose](): void {
    this.pause()
  }
}

function bodyOf(response: Response): AsyncIterable<Uint8Array> {
  return (response.body ?? new Blob([]).stream()) as AsyncIterable<Uint8Array>
}

function mayPass(error: unknown): boolean {
  if (!(error instanceof NixError)) return false
  if (error.code === 'CACHE_RESPONSE') return TRANSIENT.includes(Number(error.detail['status']))
  return error.code === 'CACHE_UNREACHABLE' || error.code === 'CACHE_TIMEOUT'
}

/** `fetch` says only "fetch failed"; the cause has the reason. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error ? (error.cause ?? error) : error
  if (!(inner instanceof Error)) return String(inner)
  return (inner as NodeJS.ErrnoException).code ?? inner.message
}
