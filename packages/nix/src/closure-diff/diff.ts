// What differs between two closures, package by package. Works on manifests alone: no store, no Nix.
//
// A store path is an address. Most of what Nix's own `diff-closures` leaves out happens behind the
// name: the same name and version at another path (rebuilt, with other content or with the same), and, worst,
// the same path with other content, which is either a build that is not deterministic or an altered store.
import type { Sha256, NarHash } from '../hash.ts'
import type { ClosureManifest, PathInfo } from '../manifest.ts'
import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { compareVersions } from '../version.ts'
import { guessPackageName } from './package-name.ts'
import type { PackageName } from './package-name.ts'
import { pairPaths } from './pair.ts'
import type { PathPair } from './pair.ts'

/** Name of the JSON form of a {@link ClosureDiff}, which is the object itself. Stable. */
export const CLOSURE_DIFF_SCHEMA = 'bagcheck.closure-diff/v1'

/**
 * What became of a package, worst first. A package is given the first that fits.
 *
 * - `altered`: a store path that both closures hold has two contents
 * - `added`, `removed`: only one of the closures has it
 * - `version`: other versions
 * - `paths`: the same versions, but more or fewer outputs or copies
 * - `content`: rebuilt, and the content differs
 * - `identical`: rebuilt at another path, bit by bit the same
 */
export const PACKAGE_CHANGES = [
  'altered',
  'added',
  'removed',
  'version',
  'paths',
  'content',
  'identical',
] as const

/** One of {@link PACKAGE_CHANGES}. */
export type PackageChangeKind = (typeof PACKAGE_CHANGES)[number]

/** How a package is known: by its derivation, or guessed from the name of the store path. */
export type IdentitySource = 'drv' | 'name'

/** A store path of one of the closures. */
export interface DiffPath {
  readonly path: StorePath
  /** `''` when there is none. */
  readonly version: string
  readonly output: string
  readonly narHash: NarHash
  readonly narSize: number
  readonly identity: IdentitySource
}

/** A package that is not the same in both closures. */
export interface PackageChange {
  readonly pname: string
  /** `drv` when all of its paths are known by their derivations. */
  readonly identity: IdentitySource
  readonly change: PackageChangeKind
  /** For `version`: how the newest versions compare. Absent when they are equal. */
  readonly direction?: 'upgrade' | 'downgrade'
  /** All versions in the closure, oldest first, also those that did not change. */
  readonly versionsBefore: readonly string[]
  readonly versionsAfter: readonly string[]
  /** Sum over all paths of the package, also those that did not change. */
  readonly narBytesBefore: number
  readonly narBytesAfter: number
  readonly narBytesDelta: number
  /** Paths that are gone, and for which no path of the same name came. In byte order. */
  readonly removed: readonly DiffPath[]
  /** Paths that are new, and that no path of the same name was there for. In byte order. */
  readonly added: readonly DiffPath[]
  /** A path of the same name for another: rebuilt. */
  readonly replaced: readonly PathPair[]
  /** The same path in both, with other content, size or references. */
  readonly altered: readonly PathPair[]
}

/** One of the two closures. */
export interface DiffSide {
  readonly root: StorePath
  readonly closureDigest: Sha256
  readonly paths: number
  readonly narBytes: number
}

/** The difference between two closures. As JSON: `bagcheck.closure-diff/v1`. */
export interface ClosureDiff {
  readonly schema: typeof CLOSURE_DIFF_SCHEMA
  readonly before: DiffSide
  readonly after: DiffSide
  readonly narBytesDelta: number
  /** Paths in both closures, altered ones included. */
  readonly pathsKept: number
  readonly pathsAdded: number
  readonly pathsRemoved: number
  readonly pathsAltered: number
  /** Those that changed, by change as in {@link PACKAGE_CHANGES}, then by name in byte order. */
  readonly packages: readonly PackageChange[]
}

/** Knows packages by their derivations; undefined for paths whose derivation is not to be had. */
export type Identify = (path: StorePath) => PackageName | undefined

/** Compares two closures. Without `identify`, all packages are known by name only. */
export function diffClosures(
  before: ClosureManifest,
  after: ClosureManifest,
  identify: Identify = () => undefined,
): ClosureDiff {
  const known = new Map<StorePath, PackageName & { identity: IdentitySource }>()
  const packageOf = (path: StorePath): PackageName & { identity: IdentitySource } => {
    const seen = known.get(path)
    if (seen !== undefined) return seen
    const drv = identify(path)
    const found = drv
      ? ({ ...drv, identity: 'drv' } as const)
      : ({ ...guessPackageName(path), identity: 'name' } as const)
    known.set(path, found)
    return found
  }
  const group = ({ entries }: ClosureManifest): Map<string, PathInfo[]> =>
    Map.groupBy(entries, ({ path }) => packageOf(path).pname)
  const describe = ({ path, narHash, narSize }: PathInfo): DiffPath => {
    const { version, output, identity } = packageOf(path)
    return { path, version, output, narHash, narSize, identity }
  }

  const [old, young] = [group(before), group(after)]
  const packages = [...new Set([...old.keys(), ...young.keys()])]
    .map((pname) => comparePackage(pname, old.get(pname) ?? [], young.get(pname) ?? [], describe))
    .filter((change) => change !== undefined)
    .sort((a, b) => rank(a) - rank(b) || byteOrder(a.pname, b.pname))
  const paths = new Set(before.entries.map(({ path }) => path))
  const pathsKept = after.entries.filter(({ path }) => paths.has(path)).length
  const [sideBefore, sideAfter] = [sideOf(before), sideOf(after)]
  return {
    schema: CLOSURE_DIFF_SCHEMA,
    before: sideBefore,
    after: sideAfter,
    narBytesDelta: sideAfter.narBytes - sideBefore.narBytes,
    pathsKept,
    pathsAdded: after.entries.length - pathsKept,
    pathsRemoved: before.entries.length - pathsKept,
    pathsAltered: packages.reduce((sum, { altered }) => sum + altered.length, 0),
    packages,
  }
}

function comparePackage(
  pname: string,
  before: readonly PathInfo[],
  after: readonly PathInfo[],
  describe: (info: PathInfo) => DiffPath,
): PackageChange | undefined {
  const { removed, added, replaced, altered } = pairPaths(before, after)
  if (removed.length + added.length + replaced.length + altered.length === 0) return undefined
  const [old, young] = [before.map(describe), after.map(describe)]
  const versionsBefore = versionsOf(old)
  const versionsAfter = versionsOf(young)
  const [narBytesBefore, narBytesAfter] = [narBytes(before), narBytes(after)]
  const newest = compareVersions(versionsBefore.at(-1) ?? '', versionsAfter.at(-1) ?? '')
  const change = kindOf()
  return {
    pname,
    identity: [...old, ...young].every(({ identity }) => identity === 'drv') ? 'drv' : 'name',
    change,
    ...(change === 'version' &&
      newest !== 0 && { direction: newest < 0 ? ('upgrade' as const) : ('downgrade' as const) }),
    versionsBefore,
    versionsAfter,
    narBytesBefore,
    narBytesAfter,
    narBytesDelta: narBytesAfter - narBytesBefore,
    removed: removed.map(describe),
    added: added.map(describe),
    replaced,
    altered,
  }

  function kindOf(): PackageChangeKind {
    if (altered.length > 0) return 'altered'
    if (before.length === 0) return 'added'
    if (after.length === 0) return 'removed'
    if (versionsBefore.join('\n') !== versionsAfter.join('\n')) return 'version'
    if (removed.length + added.length > 0) return 'paths'
    return replaced.some(({ sameContent }) => !sameContent) ? 'content' : 'identical'
  }
}

/** Distinct versions, oldest first; versions that Nix takes for equal (`1.0`, `1-0`) in byte order. */
function versionsOf(paths: readonly DiffPath[]): string[] {
  const versions = new Set(paths.map(({ version }) => version))
  return [...versions].sort((a, b) => compareVersions(a, b) || byteOrder(a, b))
}

function sideOf({ root, digest, entries }: ClosureManifest): DiffSide {
  return { root, closureDigest: digest, paths: entries.length, narBytes: narBytes(entries) }
}

function narBytes(infos: readonly PathInfo[]): number {
  return infos.reduce((sum, { narSize }) => sum + narSize, 0)
}

function rank({ change }: PackageChange): number {
  return PACKAGE_CHANGES.indexOf(change)
}
