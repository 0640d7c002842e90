// A client of the Nix daemon, for reading facts about store paths. Worker protocol 1.34 (Nix 2.8) and
// later; 1.38 is what we speak at most. One connection; requests are written as they come and answered
// in order, so a closure costs a round trip per level and not per path.
// https://github.com/NixOS/nix/blob/master/src/libstore/worker-protocol.cc
import { createConnection } from 'node:net'
import type { Socket } from 'node:net'
import type { ClosureSource } from './closure.ts'
import { readMessages } from './daemon/messages.ts'
import { encodeNumber, encodeString, WireReader } from './daemon/wire.ts'
import { NixError, quote } from './error.ts'
import { parseNarHash } from './hash.ts'
import type { PathInfo } from './manifest.ts'
import { byteOrder, parseStorePath } from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** Where the daemon listens unless NIX_DAEMON_SOCKET_PATH says otherwise. */
export const NIX_DAEMON_SOCKET = '/nix/var/nix/daemon-socket/socket'

/** How to reach the daemon. */
export interface DaemonOptions {
  /** Default {@link NIX_DAEMON_SOCKET}. */
  readonly socketPath?: string
  /** Ends the connection; whoever waits gets DAEMON_CLOSED with the signal's reason as cause. */
  readonly signal?: AbortSignal
  /** Longest wait for one answer, and for the handshake; default 10,000 ms. */
  readonly timeoutMs?: number
}

const CLIENT_MAGIC = 0x6e697863
const SERVER_MAGIC = 0x6478696f
const MAJOR = 1
const MAX_MINOR = 38
const MIN_MINOR = 34
const QUERY_PATH_INFO = 26

const DEFAULT_TIMEOUT_MS = 10_000
const MAX_PATH_BYTES = 512
const MAX_REFERENCES = 100_000
const MAX_SIGNATURES = 1000
const MAX_TEXT_BYTES = 4096
const MAX_FEATURES = 100

/**
 * Connects to the daemon and agrees on a protocol version.
 *
 * @throws {NixError} DAEMON_UNREACHABLE, DAEMON_PROTOCOL – not a Nix daemon, or one older than 2.8;
 * DAEMON_LIMIT, DAEMON_ERROR, DAEMON_TIMEOUT, DAEMON_CLOSED
 */
export async function connectDaemon(options: DaemonOptions = {}): Promise<NixDaemon> {
  const daemon = new NixDaemon(options)
  try {
    await daemon.handshake()
    return daemon
  } catch (error) {
    await daemon.close()
    throw error
  }
}

/** An open connection; made by {@link connectDaemon}. Calls may overlap and are answered in order. */
export class NixDaemon implements ClosureSource {
  readonly kind = 'daemon'
  /** The daemon's own version, such as `2.8.0`; `''` until the handshake is done. */
  nixVersion = ''

  readonly #socket: Socket
  readonly #input = new WireReader()
  readonly #timeoutMs: number
  /** Settled when everything asked so far has been answered. */
  #answered: Promise<unknown> = Promise.resolve()
  #failure: NixError | undefined

  constructor({ socketPath = NIX_DAEMON_SOCKET, signal, timeoutMs }: DaemonOptions) {
    this.#timeoutMs = timeoutMs ?? DEFAULT_TIMEOUT_MS
    this.#socket = createConnection(socketPath)
    this.#socket.on('data', (chunk: Buffer) => this.#input.push(chunk))
    this.#socket.on('error', (cause) => {
      const message = `expected a Nix daemon at ${quote(socketPath)}: ${cause.message}`
      this.#fail(new NixError('DAEMON_UNREACHABLE', message, { cause }))
    })
    this.#socket.on('close', () => {
      this.#fail(new NixError('DAEMON_CLOSED', 'expected an answer, the Nix daemon hung up'))
    })
    const abort = (): void => {
      this.#fail(
        new NixError('DAEMON_CLOSED', 'the request was given up', { cause: signal?.reason }),
      )
    }
    if (signal?.aborted === true) abort()
    signal?.addEventListener('abort', abort, { once: true })
    this.#socket.once('close', () => signal?.removeEventListener('abort', abort))
  }

  /** The fixed opening; `connectDaemon` calls it, once. */
  handshake(): Promise<void> {
    return this.#ask([CLIENT_MAGIC, (MAJOR << 8) | MAX_MINOR].map(encodeNumber), async (input) => {
      const magic = await input.number(0xffffffff, 'a greeting')
      if (magic !== SERVER_MAGIC)
        throw new NixError('DAEMON_PROTOCOL', `expected a Nix daemon, got greeting ${magic}`)
      const version = await input.number(0xffff, 'a version')
      const minor = Math.min(version & 0xff, MAX_MINOR)
      if (version >> 8 !== MAJOR || minor < MIN_MINOR) {
        const seen = `${version >> 8}.${version & 0xff}`
        throw new NixError(
          'DAEMON_PROTOCOL',
          `expected protocol ${MAJOR}.${MIN_MINOR}, got ${seen}`,
        )
      }
      if (minor >= 38) {
        this.#socket.write(encodeNumber(0)) // we ask for no features
        await input.strings(MAX_FEATURES, MAX_TEXT_BYTES, 'a feature')
      }
      this.#socket.write(Buffer.concat([encodeNumber(0), encodeNumber(0)])) // affinity, reserve
      this.nixVersion = await input.string(MAX_TEXT_BYTES, 'a Nix version')
      if (minor >= 35) await input.number(2, 'a trust flag')
      await readMessages(input)
    })
  }

  /**
   * The facts about `path`; `undefined` when it is not valid.
   *
   * @throws {NixError} DAEMON_PROTOCOL, DAEMON_LIMIT, DAEMON_TIMEOUT, DAEMON_CLOSED – and the connection
   * is closed; DAEMON_ERROR – the daemon refused this question, others can follow.
   */
  queryPathInfo(path: StorePath): Promise<PathInfo | undefined> {
    return this.#ask([encodeNumber(QUERY_PATH_INFO), encodeString(path)], async (input) => {
      await readMessages(input)
      return (await input.number(1, 'a flag')) === 1 ? readPathInfo(input, path) : undefined
    })
  }

  async close(): Promise<void> {
    this.#fail(new NixError('DAEMON_CLOSED', 'the connection to the Nix daemon is closed'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Writes a request at once and reads its answer after those of all requests before it. */
  #ask<T>(request: readonly Buffer[], readAnswer: (input: WireReader) => Promise<T>): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    this.#socket.write(Buffer.concat(request))
    const answer = this.#answered.then(async () => {
      if (this.#failure !== undefined) throw this.#failure
      const timer = setTimeout(() => {
        const message = `expected an answer from the Nix daemon within ${this.#timeoutMs} ms`
        this.#fail(new NixError('DAEMON_TIMEOUT', message))
      }, this.#timeoutMs)
      try {
        return await readAnswer(this.#input)
      } catch (error) {
        throw this.#judge(error)
      } finally {
        clearTimeout(timer)
      }
    })
    this.#answered = answer.catch(() => undefined) // reported to whoever asked
    return answer
  }

  /** After anything but a refusal we no longer know where in the stream we are. */
  #judge(error: unknown): unknown {
    if (error instanceof NixError && error.code === 'DAEMON_ERROR') return error
    const failure =
      error instanceof NixError && error.code.startsWith('DAEMON_')
        ? error
        : new NixError('DAEMON_PROTOCOL', `expected facts as Nix sends them: ${String(error)}`, {
            cause: error,
          })
    this.#fail(failure)
    return failure
  }

  #fail(failure: NixError): void {
    this.#failure ??= failure
    this.#input.fail(failure)
    this.#socket.destroy()
  }
}

async function readPathInfo(input: WireReader, path: StorePath): Promise<PathInfo> {
  const deriver = await input.string(MAX_PATH_BYTES, 'a deriver')
  const narHash = parseNarHash(await input.string(MAX_TEXT_BYTES, 'a NAR hash'))
  const named = await input.strings(MAX_REFERENCES, MAX_PATH_BYTES, 'a reference')
  const references = named.map(parseStorePath).sort(byteOrder)
  if (references.some((reference, index) => reference === references[index - 1]))
    throw new NixError('DAEMON_PROTOCOL', 'expected each reference once')
  await input.number(Number.MAX_SAFE_INTEGER, 'a registration time')
  const narSize = await input.number(Number.MAX_SAFE_INTEGER, 'a NAR size')
  if (narSize === 0) throw new NixError('DAEMON_PROTOCOL', 'expected a NAR size above 0')
  const ultimate = (await input.number(1, 'a flag')) === 1
  const signatures = await input.strings(MAX_SIGNATURES, MAX_TEXT_BYTES, 'a signature')
  const ca = await input.string(MAX_TEXT_BYTES, 'a content address')
  return {
    path,
    narHash,
    narSize,
    references,
    ...(deriver === '' ? {} : { deriver: parseStorePath(deriver) }),
    ultimate,
    signatures,
    ...(ca === '' ? {} : { ca }),
  }
}
