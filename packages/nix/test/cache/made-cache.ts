// A binary cache of facts that tests make up, in a directory.
import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import {
  formatCacheInfo,
  formatNarInfo,
  narHashFromDigest,
  parseCacheSecretKey,
  sha256Hex,
  signPathInfo,
  storePathHash,
} from '@bagcheck/nix'
import type { CacheSecretKey, NarInfo, StorePath } from '@bagcheck/nix'
import { nar, regular } from '../nar/archive.ts'
import { storePath } from '../path-info/facts.ts'

/** A new key pair. */
export function newCacheKey(name: string): CacheSecretKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const seed = privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
  const point = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  return parseCacheSecretKey(`${name}:${Buffer.concat([seed, point]).toString('base64')}`)
}

/** The archive of every path of a made cache. */
export const archive: Buffer = nar(...regular('content'))

/** Facts of a path with `references`, signed by `keys`. */
export function madeNarInfo(
  path: StorePath,
  references: readonly StorePath[],
  keys: readonly CacheSecretKey[],
): NarInfo {
  const narHash = narHashFromDigest(Buffer.from(sha256Hex(archive), 'hex'))
  const file = gzipSync(archive)
  const info: NarInfo = {
    path,
    url: `nar/${storePathHash(path)}.nar.gz`,
    compression: 'gzip',
    fileSha256: sha256Hex(file),
    fileSize: file.length,
    narHash,
    narSize: archive.length,
    references,
    signatures: [],
  }
  return { ...info, signatures: keys.map((key) => signPathInfo(info, key)) }
}

/** Writes what a cache is before it has paths. */
export function writeCacheInfo(directory: string): void {
  const info = formatCacheInfo({ wantMassQuery: true, priority: 40 })
  writeFileSync(join(directory, 'nix-cache-info'), info)
}

/** Writes the narinfo of `info`. */
export function writeNarInfo(directory: string, info: NarInfo): void {
  writeFileSync(join(directory, `${storePathHash(info.path)}.narinfo`), formatNarInfo(info))
}

/** Paths 0 to `count`-1, each of which refers to the next two, and path 0 to all that is left. */
export function chainOfPaths(count: number): ReadonlyMap<StorePath, readonly StorePath[]> {
  const paths = Array.from({ length: count }, (_, index) => storePath(index % 256, `p${index}`))
  return new Map(
    paths.map((path, index) => [
      path,
      (index === 0 ? paths.slice(1) : paths.slice(index + 1, index + 3)).sort((a, b) =>
        a < b ? -1 : 1,
      ),
    ]),
  )
}
