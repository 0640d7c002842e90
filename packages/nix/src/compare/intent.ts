// What somebody asked for: locked inputs, own sources, which part of the flake, for which system. Two builds of one
// intent should be one build.
import { hash } from 'node:crypto'
import { byteOrder } from '../store-path.ts'
import type { FetchAttributes, FlakeLock } from '../flake-lock/parse.ts'
import type { NarHash, Sha256 } from '../hash.ts'

/** The intent of a build, as far as it is known. */
export interface BuildIntent {
  readonly lock?: FlakeLock
  /** The commit that was built; `null` if the tree had changes that no commit holds. */
  readonly revision?: string | null
  /** The hash of the tree that was built, which says more than the commit. */
  readonly tree?: NarHash
  /** The attribute of the flake, such as `packages.x86_64-linux.default`. */
  readonly attribute?: string
  readonly system?: string
}

/** One thing that two intents say differently, or that one does not say. */
export interface IntentDifference {
  /** `lock.KEY` for an input, otherwise the name of the field. */
  readonly what: string
  readonly from: string | null
  readonly to: string | null
}

/** What is known about two intents. */
export interface IntentComparison {
  readonly result: 'same' | 'different' | 'unknown'
  /** Digest of the intent; `null` where it is not known in full. */
  readonly from: Sha256 | null
  readonly to: Sha256 | null
  readonly differences: readonly IntentDifference[]
  /** What would have to be known on both sides. */
  readonly missing: readonly string[]
}

/**
 * Compares two intents. They are the same only if both say the lock, and the tree or a commit; and agree on
 * everything that either says.
 */
export function compareIntents(a: BuildIntent = {}, b: BuildIntent = {}): IntentComparison {
  const old = flatten(a)
  const young = flatten(b)
  const differences: IntentDifference[] = []
  for (const what of [...new Set([...old.keys(), ...young.keys()])].toSorted(byteOrder)) {
    const from = old.get(what) ?? null
    const to = young.get(what) ?? null
    // An input is missing where there is a lock without it; a field is unknown where it is missing.
    const comparable = what.startsWith('lock.') ? a.lock && b.lock : from !== null && to !== null
    if (comparable && from !== to) differences.push({ what, from, to })
  }
  const sayings = (intent: BuildIntent): string[] => [
    ...(intent.lock === undefined ? ['lock'] : []),
    ...(intent.tree === undefined && typeof intent.revision !== 'string' ? ['revision'] : []),
  ]
  const onOneSide = (['attribute', 'system', 'tree', 'revision'] as const).filter(
    (field) => ((a[field] ?? undefined) === undefined) !== ((b[field] ?? undefined) === undefined),
  )
  // A tree on both sides says all that a revision could.
  const needed = onOneSide.filter(
    (field) => field !== 'revision' || a.tree === undefined || b.tree === undefined,
  )
  const missing = [...new Set([...sayings(a), ...sayings(b), ...needed])]
  const result = differences.length > 0 ? 'different' : missing.length > 0 ? 'unknown' : 'same'
  return { result, from: digestOf(a, old), to: digestOf(b, young), differences, missing }
}

/**
 * sha256 of the canonical JSON of an intent (sorted keys, no white space), or `null` where the lock or the sources
 * are not known.
 */
export function intentDigest(intent: BuildIntent): Sha256 | null {
  return digestOf(intent, flatten(intent))
}

function digestOf(intent: BuildIntent, fields: ReadonlyMap<string, string>): Sha256 | null {
  const hasSources = intent.tree !== undefined || typeof intent.revision === 'string'
  if (intent.lock === undefined || !hasSources) return null
  const sorted = [...fields].toSorted(([x], [y]) => byteOrder(x, y))
  return hash('sha256', JSON.stringify(Object.fromEntries(sorted)), 'hex') as Sha256
}

function flatten({ lock, revision, tree, attribute, system }: BuildIntent): Map<string, string> {
  const fields = new Map<string, string>()
  for (const [key, { locked }] of lock?.nodes ?? [])
    if (lock?.unreachable.includes(key) !== true) fields.set(`lock.${key}`, describePin(locked))
  if (typeof revision === 'string') fields.set('revision', revision)
  if (tree !== undefined) fields.set('tree', tree)
  if (attribute !== undefined) fields.set('attribute', attribute)
  if (system !== undefined) fields.set('system', system)
  return fields
}

/** What fixes an input: where it came from is no part of what was asked for, once its content is pinned. */
function describePin(locked: FetchAttributes): string {
  const fields = ['type', 'rev', 'narHash', 'dir', 'path', 'url'].filter(
    (field) => locked[field] !== undefined && (field !== 'url' || locked['narHash'] === undefined),
  )
  return fields.map((field) => `${field}=${locked[field]}`).join(' ')
}
