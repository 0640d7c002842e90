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
const IN_FLIGHT = 64 // a source may bound itself further

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
  const infos: PathInfo[] = []
  const known = new Set([root])
  const waiting = [root]
  const asked = new Set<Promise<void>>()
  const visit = async (path: StorePath): Promise<void> => {
    const info = await queryValid(source, path)
    infos.push(info)
    for (const reference of info.references) {
      if (known.has(reference)) continue
      known.add(reference)
      waiting.push(reference)
    }
    if (known.size > MAX_PATHS)
      throw new NixError('MANIFEST_LIMIT', `expected at most ${MAX_PATHS} paths`)
  }
  // As many questions as may be are always under way: one slow answer holds up nothing but what it names.
  while (waiting.length > 0 || asked.size > 0) {
    while (waiting.length > 0 && asked.size < IN_FLIGHT) {
      const question: Promise<void> = visit(waiting.pop() as StorePath).finally(() =>
        asked.delete(question),
      )
      asked.add(question)
    }
    await Promise.race(asked)
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
