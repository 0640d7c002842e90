// What changed between two locks of one flake, input by input: what a reviewer of an update has to look at.
import { byteOrder } from '../store-path.ts'
import { findFlakeInput, flakeInputs, isLocked } from './inputs.ts'
import type { FetchAttributes, FlakeLock } from './parse.ts'

/** Name of the JSON form of a {@link FlakeLockDiff}, which is the object itself. Stable. */
export const FLAKE_LOCK_DIFF_SCHEMA = 'bagcheck.flake-lock-diff/v1'

/**
 * What became of an input, worst first. An input is given the first that fits.
 *
 * - `altered`: the same place and revision, but another tree; a commit does not change, so either the lock or
 *   what was fetched is not what it says
 * - `retargeted`: it comes from another place
 * - `added`, `removed`
 * - `downgraded`: another revision, which is older by `lastModified`
 * - `updated`: another revision, or another tree where there are no revisions
 * - `relinked`: the same tree, but it follows another input, or stopped to
 * - `asked`: the same tree, but `flake.nix` asks for something else
 */
export const FLAKE_INPUT_CHANGES = [
  'altered',
  'retargeted',
  'added',
  'removed',
  'downgraded',
  'updated',
  'relinked',
  'asked',
] as const

/** One of {@link FLAKE_INPUT_CHANGES}. */
export type FlakeInputChangeKind = (typeof FLAKE_INPUT_CHANGES)[number]

/** An input on one side of a {@link FlakeLockDiff}. */
export interface FlakeInputState {
  /** Input names from the root, when it is one that follows another. */
  readonly follows?: readonly string[]
  readonly original: FetchAttributes
  readonly locked: FetchAttributes
}

/** An input that is not the same in both locks. */
export interface FlakeInputChange {
  /** Input names from the root. */
  readonly path: readonly string[]
  readonly change: FlakeInputChangeKind
  /** Attributes of `locked` that differ, by name in byte order. */
  readonly attributes: readonly string[]
  readonly before?: FlakeInputState
  readonly after?: FlakeInputState
}

/** The difference between two locks. As JSON: `bagcheck.flake-lock-diff/v1`. */
export interface FlakeLockDiff {
  readonly schema: typeof FLAKE_LOCK_DIFF_SCHEMA
  /** By change as in {@link FLAKE_INPUT_CHANGES}, then by path in byte order. */
  readonly inputs: readonly FlakeInputChange[]
}

// What fetchers learn, as opposed to where they look.
const LEARNT = new Set([
  'rev',
  'narHash',
  'lastModified',
  'lastModifiedDate',
  'revCount',
  'shortRev',
])

/** Compares two locks. Inputs that follow the same input as before are covered by that one. */
export function diffFlakeLocks(before: FlakeLock, after: FlakeLock): FlakeLockDiff {
  const inputs: FlakeInputChange[] = []
  for (const path of pathsOf(before, after)) {
    const [old, young] = [stateAt(before, path), stateAt(after, path)]
    if (old === undefined && young === undefined) continue // the root, by way of a follows
    if (old?.follows !== undefined && sameLinks(old, young)) continue
    const attributes = differing(old?.locked ?? {}, young?.locked ?? {})
    const change = kindOf(old, young, attributes)
    if (change === undefined) continue
    inputs.push({
      path,
      change,
      attributes,
      ...(old && { before: old }),
      ...(young && { after: young }),
    })
  }
  const rank = ({ change }: FlakeInputChange): number => FLAKE_INPUT_CHANGES.indexOf(change)
  inputs.sort((a, b) => rank(a) - rank(b) || byteOrder(a.path.join('/'), b.path.join('/')))
  return { schema: FLAKE_LOCK_DIFF_SCHEMA, inputs }
}

function kindOf(
  before: FlakeInputState | undefined,
  after: FlakeInputState | undefined,
  attributes: readonly string[],
): FlakeInputChangeKind | undefined {
  if (before === undefined) return 'added'
  if (after === undefined) return 'removed'
  const [old, young] = [before.locked, after.locked]
  if (attributes.some((name) => !LEARNT.has(name))) return 'retargeted'
  const revision = old['rev'] !== undefined && old['rev'] === young['rev']
  if (revision && 'narHash' in old && 'narHash' in young && attributes.includes('narHash'))
    return 'altered'
  if (attributes.includes('rev') || attributes.includes('narHash'))
    return Number(young['lastModified']) < Number(old['lastModified']) ? 'downgraded' : 'updated'
  if (!sameLinks(before, after)) return 'relinked'
  return differing(before.original, after.original).length > 0 ? 'asked' : undefined
}

function sameLinks(a: FlakeInputState, b: FlakeInputState | undefined): boolean {
  return JSON.stringify(a.follows) === JSON.stringify(b?.follows)
}

/** Paths of the nodes of both locks, and of inputs that follow another in one of them. */
function pathsOf(...locks: readonly FlakeLock[]): readonly string[][] {
  const paths = new Map<string, string[]>()
  for (const lock of locks)
    for (const { path, node } of [{ path: [], node: lock.root }, ...flakeInputs(lock)])
      for (const name of node.inputs.keys()) {
        const below = [...path, name]
        paths.set(JSON.stringify(below), below)
      }
  return [...paths.values()]
}

function stateAt(lock: FlakeLock, path: readonly string[]): FlakeInputState | undefined {
  const node = findFlakeInput(lock, path)
  if (node === undefined || !isLocked(node)) return undefined
  const follows = findFlakeInput(lock, path.slice(0, -1))?.inputs.get(path.at(-1) ?? '')?.follows
  return { ...(follows && { follows }), original: node.original, locked: node.locked }
}

function differing(a: FetchAttributes, b: FetchAttributes): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])]
    .filter((name) => a[name] !== b[name])
    .sort(byteOrder)
}
