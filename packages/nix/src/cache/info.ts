// nix-cache-info: what a binary cache says about itself. Lines `Key: value`; unknown keys are ignored and
// white space around values too, as Nix does: the file is written by hand on many caches.
// https://github.com/NixOS/nix/blob/master/src/libstore/binary-cache-store.cc
import { NixError, quote } from '../error.ts'
import { STORE_DIR } from '../store-path.ts'

/** What a binary cache says about itself. */
export interface CacheInfo {
  /** Whether asking for many paths at once is welcome; false when it does not say. */
  readonly wantMassQuery: boolean
  /** Lower is asked first; 50 when it does not say. */
  readonly priority: number
}

/** Most bytes of a nix-cache-info. */
export const CACHE_INFO_MAX_BYTES: number = 4096
const DEFAULT_PRIORITY = 50

/**
 * Parses a nix-cache-info.
 *
 * @throws {NixError} CACHE_INFO – not such a file, a key twice, or a cache for another store directory,
 * whose paths mean other things.
 */
export function parseCacheInfo(bytes: Uint8Array): CacheInfo {
  if (bytes.length > CACHE_INFO_MAX_BYTES)
    throw new NixError('CACHE_INFO', `expected at most ${CACHE_INFO_MAX_BYTES} bytes`)
  const values = new Map<string, string>()
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue
    const [, key = '', value = ''] = /^([A-Za-z][A-Za-z0-9-]*):(.*)$/.exec(line.trim()) ?? []
    if (key === '')
      throw new NixError('CACHE_INFO', `expected "<key>: <value>", got ${quote(line)}`)
    if (values.has(key)) throw new NixError('CACHE_INFO', `expected ${quote(key)} once`)
    values.set(key, value.trim())
  }
  const storeDir = values.get('StoreDir')
  if (storeDir !== STORE_DIR)
    throw new NixError(
      'CACHE_INFO',
      `expected StoreDir ${STORE_DIR}, got ${storeDir === undefined ? 'none' : quote(storeDir)}`,
    )
  const massQuery = values.get('WantMassQuery') ?? '0'
  const priority = values.get('Priority') ?? String(DEFAULT_PRIORITY)
  if (!/^[01]$/.test(massQuery))
    throw new NixError('CACHE_INFO', `expected WantMassQuery 0 or 1, got ${quote(massQuery)}`)
  if (!/^[0-9]{1,9}$/.test(priority))
    throw new NixError('CACHE_INFO', `expected a priority, got ${quote(priority)}`)
  return { wantMassQuery: massQuery === '1', priority: Number(priority) }
}

/** The text of a nix-cache-info for `/nix/store`. */
export function formatCacheInfo({ wantMassQuery, priority }: CacheInfo): string {
  const massQuery = wantMassQuery ? 1 : 0
  return `StoreDir: ${STORE_DIR}\nWantMassQuery: ${massQuery}\nPriority: ${priority}\n`
}
