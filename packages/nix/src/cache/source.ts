// Facts from a binary cache: Hydra's, attic, harmonia, niks3, `nix copy --to file://…`. Only narinfo is
// read, never an archive: whether a closure can be trusted is known from some kilobytes for each path.
//
// The cache, and everyone between, is hostile. The keys decide: facts for which too few trusted keys
// vouch, and whose path does not vouch for itself, are SIGNATURE_MISSING. A cache can still keep paths
// back, and it can serve any facts that a trusted key ever signed: of the contents that an
// input-addressed path ever had, it chooses.
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ClosureSource } from '../closure.ts'
import { NixError, quote } from '../error.ts'
import { decompressNar } from '../nar/decompress.ts'
import type { NarDecoder } from '../nar/decompress.ts'
import { NAR_INFO_MAX_BYTES, parseNarInfo, parseUrl } from '../nar-info.ts'
import type { NarInfo } from '../nar-info.ts'
import { storePathHash } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { checkTrust, verifyPathInfo } from '../trust.ts'
import type { CacheTrust } from '../trust.ts'
import { directoryStorage } from './directory.ts'
import { httpStorage } from './http.ts'
import type { HttpOptions } from './http.ts'
import { CACHE_INFO_MAX_BYTES, parseCacheInfo } from './info.ts'
import type { CacheInfo } from './info.ts'
import type { CacheStorage } from './storage.ts'

/** How to read a binary cache, and whom to believe. */
export interface BinaryCacheOptions extends HttpOptions {
  readonly trust: CacheTrust
  /** Most files that are asked for at once; default 64. */
  readonly concurrency?: number
}

/** A binary cache, open for reading. Calls may overlap; a path is asked for once. */
export interface BinaryCache extends ClosureSource, AsyncDisposable {
  readonly kind: 'binary-cache'
  readonly info: CacheInfo
  /**
   * The facts about `path`, vouched for; `undefined` when the cache does not have it.
   *
   * @throws {NixError} SIGNATURE_MISSING; NAR_INFO_LINE, NAR_INFO_KEY, NAR_INFO_VALUE, NAR_INFO_PATH,
   * NAR_INFO_LIMIT; CACHE_UNREACHABLE, CACHE_RESPONSE, CACHE_TIMEOUT, CACHE_LIMIT
   */
  queryPathInfo(path: StorePath): Promise<NarInfo | undefined>
  /**
   * The archive of `info`, decompressed as a stream, not more of it than `info` says. Its hash is known at
   * the end only: believe nothing before the stream has ended.
   *
   * @throws {NixError} as `decompressNar`, and CACHE_UNREACHABLE, CACHE_RESPONSE, CACHE_TIMEOUT; at once
   * NAR_INFO_VALUE, for a URL that leads out of the cache
   */
  openNar(
    info: NarInfo,
    decoders?: Readonly<Record<string, NarDecoder>>,
  ): AsyncGenerator<Uint8Array, void, undefined>
}

const DEFAULT_CONCURRENCY = 64

/**
 * Opens the binary cache at `location`: `https://…`, `http://…`, `file:///…` or a directory.
 *
 * @throws {NixError} CACHE_UNREACHABLE – nothing there, or another kind of location; CACHE_INFO – what is
 * there is no cache for `/nix/store`; CACHE_RESPONSE, CACHE_TIMEOUT, CACHE_LIMIT
 * @throws {TypeError} a threshold that the keys cannot meet, or a concurrency below 1
 */
export async function openBinaryCache(
  location: string,
  options: BinaryCacheOptions,
): Promise<BinaryCache> {
  checkTrust(options.trust)
  if ((options.concurrency ?? DEFAULT_CONCURRENCY) < 1)
    throw new TypeError('a cache is asked for at least one file at a time')
  const closing = new AbortController()
  const signal =
    options.signal === undefined
      ? closing.signal
      : AbortSignal.any([options.signal, closing.signal])
  const storage = storageAt(location, { ...options, signal })
  const bytes = await storage.read('nix-cache-info', CACHE_INFO_MAX_BYTES)
  if (bytes === undefined)
    throw new NixError('CACHE_INFO', `expected a binary cache at ${quote(location)}`)
  return new Cache(storage, parseCacheInfo(bytes), options, closing)
}

class Cache implements BinaryCache {
  readonly kind = 'binary-cache'
  readonly info: CacheInfo
  readonly #storage: CacheStorage
  readonly #trust: CacheTrust
  readonly #closing: AbortController
  /** Answers by path, "not there" among them: one closure sees one answer for a path. */
  readonly #answers = new Map<StorePath, Promise<NarInfo | undefined>>()
  /** Requests that may still start, and those that wait for one to end. */
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(
    storage: CacheStorage,
    info: CacheInfo,
    options: BinaryCacheOptions,
    closing: AbortController,
  ) {
    this.#storage = storage
    this.info = info
    this.#trust = options.trust
    this.#free = options.concurrency ?? DEFAULT_CONCURRENCY
    this.#closing = closing
  }

  queryPathInfo(path: StorePath): Promise<NarInfo | undefined> {
    const known = this.#answers.get(path)
    if (known !== undefined) return known
    const answer = this.#ask(path)
    this.#answers.set(path, answer)
    answer.catch(() => this.#answers.delete(path)) // what failed may be asked again
    return answer
  }

  openNar(
    info: NarInfo,
    decoders: Readonly<Record<string, NarDecoder>> = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    // Checked again: the facts may have been made by hand.
    return decompressNar(this.#storage.stream(parseUrl(info.url)), info, decoders)
  }

  async close(): Promise<void> {
    this.#closing.abort(new NixError('CACHE_UNREACHABLE', 'the binary cache is closed'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #ask(path: StorePath): Promise<NarInfo | undefined> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((start) => this.#waiting.push(start))
    try {
      const name = `${storePathHash(path)}.narinfo`
      const bytes = await this.#storage.read(name, NAR_INFO_MAX_BYTES)
      if (bytes === undefined) return undefined
      const info = parseNarInfo(bytes, { path })
      verifyPathInfo(info, this.#trust)
      return info
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}

function storageAt(location: string, options: HttpOptions): CacheStorage {
  if (!/^[a-z][a-z0-9+.-]*:/i.test(location))
    return directoryStorage(resolve(location), options.signal)
  const url = URL.parse(location)
  if (url?.protocol === 'file:' && url.host === '')
    return directoryStorage(fileURLToPath(url), options.signal)
  if (url?.protocol === 'https:' || url?.protocol === 'http:') {
    // Credentials in a location end up in messages; `headers` is the place for them.
    if (url.username === '' && url.password === '' && url.search === '' && url.hash === '')
      return httpStorage(url, options)
  }
  throw new NixError(
    'CACHE_UNREACHABLE',
    'expected https://…, http://… or file:///… without credentials, query and fragment, or a directory',
  )
}
