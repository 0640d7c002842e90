// The content of two closures, path by path. A path that is in both with one NAR hash and the same references is the
// same; the references are part of what is approved, and follow from the content. The others
// are paired: by their derivations where these are known, otherwise by name where it is unique. Then the archive of
// the old one is read with every hash of a pair, its own included, replaced by that of the partner: if it then
// hashes to what the new one is recorded with, the two are the same but for where their dependencies lie. The
// new one need not be there. What is compressed inside a file hides its hashes, and counts as different.
import { sameFacts } from '../closure-diff/pair.ts'
import type { DerivationGraph } from '../derivation/graph.ts'
import { outputPath } from '../derivation/derivation.ts'
import { pairDerivations } from '../derivation/pair.ts'
import type { ClosureManifest, PathInfo } from '../manifest.ts'
import { hashRewritten } from '../nar/rewrite.ts'
import { storePathHash, storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import type { NarHash } from '../hash.ts'

/** Two store paths, of which one became the other. */
export interface ComparedPath {
  readonly name: string
  readonly from: StorePath
  readonly to: StorePath
  readonly fromHash: NarHash
  readonly toHash: NarHash
}

/** How the contents of two closures compare. Lists are in byte order of the old path, `added` of the new one. */
export interface ContentComparison {
  /** Paths that both have, with the same content and references. */
  readonly same: number
  /** One path, two contents; or two sets of references, where the hashes are equal. */
  readonly altered: readonly ComparedPath[]
  /** Other paths, the same content but for the hashes of dependencies. */
  readonly moved: readonly ComparedPath[]
  /** Other paths, other content. */
  readonly changed: readonly ComparedPath[]
  /** Other paths whose content could not be read; with NAR hashes that differ. */
  readonly unread: readonly ComparedPath[]
  readonly added: readonly StorePath[]
  readonly removed: readonly StorePath[]
}

/** Opens the archive of a path of the old closure; `undefined` if it is not to be had. */
export type NarOpener = (path: StorePath) => AsyncIterable<Uint8Array> | undefined

/** What may help to compare contents. */
export interface ContentOptions {
  readonly derivations?: { readonly from: DerivationGraph; readonly to: DerivationGraph }
  readonly openNar?: NarOpener
  readonly signal?: AbortSignal
}

/** Compares the contents of two closures; reads only archives of paths that moved. */
export async function compareContents(
  from: ClosureManifest,
  to: ClosureManifest,
  { derivations, openNar, signal }: ContentOptions = {},
): Promise<ContentComparison> {
  const old = new Map(from.entries.map((entry) => [entry.path, entry]))
  const young = new Map(to.entries.map((entry) => [entry.path, entry]))
  const partners = pairPaths(from, to, derivations)
  const renamed = new Map(
    Array.from(partners, ([path, other]) => [storePathHash(path), storePathHash(other)] as const),
  )
  const altered: ComparedPath[] = []
  const moved: ComparedPath[] = []
  const changed: ComparedPath[] = []
  const unread: ComparedPath[] = []
  for (const [path, entry] of old) {
    signal?.throwIfAborted()
    const other = young.get(partners.get(path) ?? path)
    if (other === undefined) continue
    const compared = describe(entry, other)
    if (other.path === path) {
      if (!sameFacts(entry, other)) altered.push(compared)
    } else if (entry.narHash === other.narHash) {
      moved.push(compared)
    } else if (entry.narSize !== other.narSize) {
      changed.push(compared) // a replaced hash does not change the size
    } else {
      const archive = openNar?.(path)
      const relevant = renamedIn(entry, renamed)
      if (archive === undefined) unread.push(compared)
      else if ((await hashRewritten(archive, relevant)) === other.narHash) moved.push(compared)
      else changed.push(compared)
    }
  }
  const taken = new Set(partners.values())
  return {
    same: [...old].filter(([path]) => young.has(path)).length - altered.length,
    altered,
    moved,
    changed,
    unread,
    added: [...young.keys()].filter((path) => !old.has(path) && !taken.has(path)),
    removed: [...old.keys()].filter((path) => !young.has(path) && !partners.has(path)),
  }
}

/** Only what a path refers to, or itself, can be in it. */
function renamedIn(
  { path, references }: PathInfo,
  renamed: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  return new Map(
    [path, ...references].flatMap((one) => {
      const hash = storePathHash(one)
      const other = renamed.get(hash)
      return other === undefined ? [] : [[hash, other] as const]
    }),
  )
}

function pairPaths(
  from: ClosureManifest,
  to: ClosureManifest,
  derivations: ContentOptions['derivations'],
): Map<StorePath, StorePath> {
  const young = new Set(to.entries.map(({ path }) => path))
  const old = new Set(from.entries.map(({ path }) => path))
  const partners = new Map<StorePath, StorePath>()
  const taken = new Set<StorePath>()
  const add = (path: StorePath, other: StorePath): void => {
    if (!old.has(path) || young.has(path) || !young.has(other) || old.has(other)) return
    if (partners.has(path) || taken.has(other)) return
    partners.set(path, other)
    taken.add(other)
  }
  for (const pair of derivations ? pairDerivations(derivations.from, derivations.to).pairs : []) {
    const before = derivations?.from.derivations.get(pair.from)?.outputs
    for (const [name, output] of derivations?.to.derivations.get(pair.to)?.outputs ?? []) {
      const was = before?.get(name)
      const path = was && outputPath(was)
      const other = outputPath(output)
      if (path !== undefined && other !== undefined) add(path, other)
    }
  }
  if (from.root !== to.root) add(from.root, to.root)
  const left = (paths: ReadonlySet<StorePath>, others: ReadonlySet<StorePath>): StorePath[] =>
    [...paths].filter((path) => !others.has(path) && !partners.has(path) && !taken.has(path))
  const candidates = Map.groupBy(left(young, old), storePathName)
  for (const [name, paths] of Map.groupBy(left(old, young), storePathName)) {
    const others = candidates.get(name) ?? []
    const [path] = paths
    const [other] = others
    if (path !== undefined && other !== undefined && paths.length + others.length === 2)
      add(path, other)
  }
  return partners
}

function describe(from: PathInfo, to: PathInfo): ComparedPath {
  return {
    name: storePathName(to.path),
    from: from.path,
    to: to.path,
    fromHash: from.narHash,
    toHash: to.narHash,
  }
}
