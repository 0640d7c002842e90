import { NixError, quote } from './error.ts'
import { buildManifest } from './manifest.ts'
import type { ClosureManifest, PathInfo } from './manifest.ts'
import type { StorePath } from './store-path.ts'

/**
 * Where facts about store paths come from. The daemon, the database and what their tools print repeat
 * what the local Nix recorded; root can edit it, so the facts are claims until content has been hashed
 * against them. A binary cache gives facts that keys vouch for; a manifest, what its signer vouches for.
 */
export interface ClosureSource {
  readonly kind: 'daemon' | 'database' | 'binary-cache' | 'manifest' | 'path-info' | 'registration'
  /**
   * The facts about `path`; `undefined` when the store has no such valid path. Calls may overlap.
   */
  queryPathInfo(path: StorePath): Promise<PathInfo | undefined>
  /** All facts about the closure of `root` at once, where the source can do that. */
  readClosure?(root: StorePath): PathInfo[]
  close(): Promise<void>
}

const MAX_PATHS = 200_000
const IN_FLIGHT = 64

/**
 * The closure of `root` as `source` knows it.
 *
 * @throws {NixError} PATH_INVALID – `root`, or a path it reaches, is not valid in the store;
 * MANIFEST_LIMIT; whatever the source throws.
 */
export async function readClosure(
  source: ClosureSource,
  root: StorePath,
): Promise<ClosureManifest> {
  if (source.readClosure !== undefined) return buildManifest(root, source.readClosure(root))
  const queue = [root]
  const known = new Set(queue)
  const infos: PathInfo[] = []
  // Breadth first, a batch in flight at a time; the queue grows while it is walked.
  for (let start = 0; start < queue.length;) {
    const batch = queue.slice(start, start + IN_FLIGHT)
    start += batch.length
    for (const info of await Promise.all(batch.map((path) => queryValid(source, path)))) {
      infos.push(info)
      for (const reference of info.references) {
        if (known.has(reference)) continue
        known.add(reference)
        queue.push(reference)
      }
      if (known.size > MAX_PATHS)
        throw new NixError('MANIFEST_LIMIT', `expected at most ${MAX_PATHS} paths`)
    }
  }
  return buildManifest(root, infos)
}

async function queryValid(source: ClosureSource, path: StorePath): Promise<PathInfo> {
  const info = await source.queryPathInfo(path)
  if (info === undefined)
    throw new NixError('PATH_INVALID', `expected a valid store path, got ${quote(path)}`, {
      detail: { path },
    })
  return info
}
