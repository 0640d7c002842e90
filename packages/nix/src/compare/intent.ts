// What somebody asked for: locked inputs, own sources, which part of the flake, for which system. Two builds of one
// intent should be one build.
import { hash } from 'node:crypto'
import { byteOrder } from '../store-path.ts'
import { flakeInputs } from '../flake-lock/inputs.ts'
import type { FlakeLock, LockedNode } from '../flake-lock/parse.ts'
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
  /** `lock.NAME/NAME` for an input, by the names that lead to it from the root; otherwise the name of the field. */
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
 *
 * @throws {NixError} FLAKE_LOCK_NODE, FLAKE_LOCK_LIMIT – as `flakeInputs`.
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
 *
 * @throws {NixError} FLAKE_LOCK_NODE, FLAKE_LOCK_LIMIT – as `flakeInputs`.
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
  for (const [path, pin] of lock ? describeInputs(lock) : []) fields.set(`lock.${path}`, pin)
  if (typeof revision === 'string') fields.set('revision', revision)
  if (tree !== undefined) fields.set('tree', tree)
  if (attribute !== undefined) fields.set('attribute', attribute)
  if (system !== undefined) fields.set('system', system)
  return fields
}

/**
 * Every input of every node: what fixes it, or of which other one it takes the place. By names and not by the keys of
 * nodes, which a lock may choose as it likes; two locks with the same trees, linked otherwise, ask for two things.
 */
function describeInputs(lock: FlakeLock): Map<string, string> {
  const inputs = flakeInputs(lock)
  const pathOf = new Map([[lock.root.key, '']])
  for (const { node, path } of inputs) pathOf.set(node.key, path.map(plainName).join('/'))
  const described = new Map<string, string>()
  for (const [key, path] of pathOf) {
    const node = lock.nodes.get(key) ?? lock.root
    for (const [name, { node: target }] of node.inputs) {
      const below = path === '' ? plainName(name) : `${path}/${plainName(name)}`
      const place = pathOf.get(target) ?? ''
      const locked = place === below ? lock.nodes.get(target) : undefined
      described.set(below, locked ? describePin(locked) : `= ${place === '' ? 'the root' : place}`)
    }
  }
  return described
}

const NAR_HASH = /^sha256-[A-Za-z0-9+/]{43}=$/

/** Learnt while fetching, and no part of what was asked for. */
const LEARNT: ReadonlySet<string> = new Set(['lastModified', 'lastModifiedDate', 'revCount'])

/** Where it came from is no part of what was asked for, once the content is pinned; without that it is all there is. */
function describePin({ locked, narHash, flake, parent }: LockedNode): string {
  const fields =
    narHash === undefined
      ? Object.keys(locked).filter((field) => !LEARNT.has(field))
      : ['type', 'rev', 'narHash', 'dir', 'path'].filter((field) => locked[field] !== undefined)
  return [
    ...fields.map((field) => `${plain(field)}=${plain(String(locked[field]))}`),
    ...(flake ? [] : ['flake=false']),
    ...(parent ? [`parent=${parent.map(plainName).join('/')}`] : []),
  ].join(' ')
}

/** Quoted where it is not one plain word: no lock may say with one value what another says with two. */
function plain(text: string): string {
  return /^[\w.:/+~@?&-]+$/.test(text) || NAR_HASH.test(text) ? text : JSON.stringify(text)
}

/** No name that holds a slash reads as two. */
function plainName(name: string): string {
  return name.includes('/') ? JSON.stringify(name).replaceAll('/', '%2f') : plain(name)
}
