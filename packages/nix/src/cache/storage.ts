/**
 * Where a binary cache lies. Nothing it gives is to be believed before it was checked. Calls may overlap;
 * an abort ends them with the signal's reason.
 */
export interface CacheStorage {
  /**
   * The file `name`; `undefined` when the cache does not have it.
   *
   * @throws {NixError} CACHE_UNREACHABLE, CACHE_RESPONSE, CACHE_TIMEOUT; CACHE_LIMIT – longer than
   * `maxBytes`, found before more than that is kept.
   */
  read(name: string, maxBytes: number): Promise<Uint8Array | undefined>
  /**
   * The file `name` as a stream, of any length.
   *
   * @throws {NixError} CACHE_UNREACHABLE, CACHE_RESPONSE, CACHE_TIMEOUT
   */
  stream(name: string): AsyncIterable<Uint8Array>
}
