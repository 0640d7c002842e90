// Which paths of a package are the same, altered, replaced, gone or new.
import type { NarHash } from '../hash.ts'
import type { PathInfo } from '../manifest.ts'
import { byteOrder, storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'

/** One side of a {@link PathPair}. */
export interface PairedPath {
  readonly path: StorePath
  readonly narHash: NarHash
  readonly narSize: number
}

/** Two store paths of the same name, or the same path with two contents. */
export interface PathPair {
  /** The name that both have. */
  readonly name: string
  readonly before: PairedPath
  readonly after: PairedPath
  /** True when both have the same NAR hash. */
  readonly sameContent: boolean
  readonly narBytesDelta: number
  /**
   * Names of what only one of them refers to, in byte order. Empty when it refers to the same names: then all
   * that changed may be the hashes in its references, which a rebuild of anything below it brings.
   */
  readonly referencesRemoved: readonly string[]
  readonly referencesAdded: readonly string[]
}

/** Sorts out the paths of one package. Both sides in byte order, as in a manifest. */
export function pairPaths(
  before: readonly PathInfo[],
  after: readonly PathInfo[],
): { removed: PathInfo[]; added: PathInfo[]; replaced: PathPair[]; altered: PathPair[] } {
  const old = new Map(before.map((info) => [info.path, info]))
  const altered: PathPair[] = []
  let added: PathInfo[] = []
  for (const info of after) {
    const same = old.get(info.path)
    if (same === undefined) added.push(info)
    else if (!sameFacts(same, info)) altered.push(makePair(same, info))
    old.delete(info.path)
  }
  // What is left in `old` is gone. Of several paths of one name, those with equal content belong together.
  let removed = [...old.values()]
  const replaced: PathPair[] = []
  for (const keyOf of [nameAndContent, nameOf]) {
    const waiting = new Map(
      Array.from(Map.groupBy(added, keyOf), ([key, infos]) => [key, infos.values()] as const),
    )
    const taken = new Set<PathInfo>()
    removed = removed.filter((info) => {
      const partner = waiting.get(keyOf(info))?.next().value
      if (partner === undefined) return true
      replaced.push(makePair(info, partner))
      taken.add(partner)
      return false
    })
    added = added.filter((info) => !taken.has(info))
  }
  replaced.sort((a, b) => byteOrder(a.before.path, b.before.path))
  return { removed, added, replaced, altered }
}

function nameOf({ path }: PathInfo): string {
  return storePathName(path)
}

function nameAndContent({ path, narHash }: PathInfo): string {
  return `${storePathName(path)} ${narHash}`
}

/** Whether a manifest says the same of both, apart from the path. */
export function sameFacts(a: PathInfo, b: PathInfo): boolean {
  return (
    a.narHash === b.narHash &&
    a.narSize === b.narSize &&
    a.references.length === b.references.length &&
    a.references.every((reference, index) => reference === b.references[index])
  )
}

function makePair(before: PathInfo, after: PathInfo): PathPair {
  return {
    name: storePathName(before.path),
    before: pick(before),
    after: pick(after),
    sameContent: before.narHash === after.narHash,
    narBytesDelta: after.narSize - before.narSize,
    referencesRemoved: missingNames(before, after),
    referencesAdded: missingNames(after, before),
  }
}

function pick({ path, narHash, narSize }: PathInfo): PairedPath {
  return { path, narHash, narSize }
}

/** Names that `from` refers to, more often than `to` does. */
function missingNames(from: PathInfo, to: PathInfo): string[] {
  const there = new Map<string, number>()
  for (const name of to.references.map(storePathName)) there.set(name, (there.get(name) ?? 0) + 1)
  return from.references
    .map(storePathName)
    .filter((name) => {
      const left = there.get(name) ?? 0
      there.set(name, left - 1)
      return left <= 0
    })
    .sort(byteOrder)
}
