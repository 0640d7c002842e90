// What is wrong with the inputs of a lock, before anything is fetched. `error` means that the lock does not
// fix what gets built, or that nobody can check it offline; `warning` that the content is fixed, but not
// where it comes from, or that the lock does not look as Nix writes it; `note` is for the record.
import { quote } from '../error.ts'
import { describeJson } from '../strict-json.ts'
import { flakeInputs, isCommit, isRelativePath } from './inputs.ts'
import type { FetchAttributes, FlakeLock, LockedNode } from './parse.ts'

/** Every problem that {@link auditFlakeLock} can name, with its severity. Stable. */
export const FLAKE_LOCK_PROBLEMS = {
  /** Nothing fixes the content: neither `narHash` nor a full commit id. */
  unlocked: 'error',
  /** A commit id but no `narHash`: what was fetched cannot be compared with the lock offline. */
  'nar-hash-missing': 'error',
  /** `rev` is not a full commit id. */
  'revision-malformed': 'error',
  /** A registry name in `locked`: whoever edits the registry chooses the input. */
  indirect: 'error',
  /** A relative path with neither the flake that it is relative to nor a hash; Nix 2.8 refuses such a lock. */
  'parent-missing': 'error',
  /** A relative path with both: Nix 2.26 and later read it in the parent's tree, older ones take the tree of the hash. */
  'parent-ambiguous': 'error',
  /** `__final` tells Nix to believe the other attributes; Nix itself never writes it to a lock. */
  'final-claimed': 'error',
  /** A repository without a commit id: `narHash` fixes the tree, but no history knows it. */
  'revision-missing': 'warning',
  /** The tree of a work tree with changes that are in no commit. */
  'dirty-tree': 'warning',
  /** A directory of the machine where the lock was written. */
  'local-path': 'warning',
  /** A URL that may serve something else tomorrow; then the lock can no longer be fetched. */
  'mutable-url': 'warning',
  /** Fetched without encryption or authentication. */
  'insecure-url': 'warning',
  /** Locked to another repository than `flake.nix` asks for. */
  'origin-differs': 'warning',
  /** A fetcher that is not known here. */
  'type-unknown': 'warning',
  /** A directory in the tree of another input, fixed by that input; before Nix 2.26 by a hash of its own. */
  'relative-path': 'note',
  /** No input leads to this node; Nix drops it when it writes the lock. */
  unreachable: 'note',
} as const

/** One of {@link FLAKE_LOCK_PROBLEMS}. */
export type FlakeLockProblem = keyof typeof FLAKE_LOCK_PROBLEMS

/** Something about one input. */
export interface FlakeLockFinding {
  readonly problem: FlakeLockProblem
  readonly severity: (typeof FLAKE_LOCK_PROBLEMS)[FlakeLockProblem]
  readonly node: string
  /** Input names from the root; undefined for an unreachable node. */
  readonly path: readonly string[] | undefined
  /** What was seen, for people. May quote the lock. */
  readonly message: string
}

type Found = readonly [problem: FlakeLockProblem, message: string]

const FORGES = ['github', 'gitlab', 'sourcehut']
const REPOSITORIES = ['git', 'hg', ...FORGES]
const DOWNLOADS = ['tarball', 'file']

/** Names the inputs of `lock` that are unlocked, mutable, or not as Nix would write them. */
export function auditFlakeLock(lock: FlakeLock): FlakeLockFinding[] {
  const reached = flakeInputs(lock).flatMap(({ node, path }) => audit(node, path))
  const unreachable = lock.unreachable.flatMap((key) => {
    const node = lock.nodes.get(key)
    const unused = finding(key, undefined, ['unreachable', 'no input leads to it'])
    return node === undefined ? [] : [unused, ...audit(node, undefined)]
  })
  return [...reached, ...unreachable]
}

function audit(node: LockedNode, path: readonly string[] | undefined): FlakeLockFinding[] {
  const { locked, original } = node
  return [
    ...checkPin(node),
    ...checkSource(locked, isRelativePath(node)),
    ...checkOrigin(original, locked),
  ].map((found) => finding(node.key, path, found))
}

function finding(
  node: string,
  path: readonly string[] | undefined,
  [problem, message]: Found,
): FlakeLockFinding {
  return { problem, severity: FLAKE_LOCK_PROBLEMS[problem], node, path, message }
}

function* checkPin(node: LockedNode): Generator<Found> {
  const { locked, narHash, parent } = node
  const { type, rev } = locked
  if ('__final' in locked) yield ['final-claimed', `__final is ${locked['__final']}`]
  if (isRelativePath(node)) {
    const path = say(locked['path'])
    if (parent !== undefined && narHash !== undefined)
      yield ['parent-ambiguous', `${path} in the tree of ${sayInput(parent)}, or by its own hash`]
    else if (parent !== undefined)
      yield ['relative-path', `${path} in the tree of ${sayInput(parent)}`]
    else if (narHash !== undefined) yield ['relative-path', `${path} by its own hash`]
    else yield ['parent-missing', `the path ${path} starts nowhere`]
    return
  }
  if (rev !== undefined && !isCommit(rev)) yield ['revision-malformed', `rev is ${say(rev)}`]
  if (narHash === undefined) {
    if (isCommit(rev)) yield ['nar-hash-missing', `only rev fixes it, ${say(rev)}`]
    else yield ['unlocked', 'it has neither narHash nor a commit id']
  }
  if ('dirtyRev' in locked || 'dirtyShortRev' in locked)
    yield ['dirty-tree', `based on ${say(locked['dirtyRev'] ?? locked['dirtyShortRev'])}`]
  else if (rev === undefined && REPOSITORIES.includes(String(type)))
    yield ['revision-missing', `a ${type} repository without rev`]
}

function* checkSource(locked: FetchAttributes, relative: boolean): Generator<Found> {
  const { type, rev } = locked
  const url = String(locked['url'] ?? '')
  if (type === 'indirect') yield ['indirect', `the registry entry ${say(locked['id'])}`]
  else if (type === 'path') {
    if (!relative) yield ['local-path', say(locked['path'])]
  } else if (DOWNLOADS.includes(String(type))) {
    if (rev === undefined) yield ['mutable-url', say(url)]
  } else if (!REPOSITORIES.includes(String(type))) yield ['type-unknown', say(type)]
  const scheme = /^(?:[a-z]+\+)?([a-z]+):/i.exec(url)?.[1]?.toLowerCase()
  if (scheme === 'http' || scheme === 'git' || scheme === 'ftp') yield ['insecure-url', say(url)]
  if (scheme === 'file' || url.startsWith('/') || url.startsWith('.'))
    yield ['local-path', say(url)]
}

/**
 * A download may be redirected to where it is kept for good, and a registry name must become something
 * else; a repository has no reason to become another one.
 */
function* checkOrigin(original: FetchAttributes, locked: FetchAttributes): Generator<Found> {
  const type = String(original['type'])
  if (!REPOSITORIES.includes(type)) return
  const compared = FORGES.includes(type) ? ['type', 'host', 'owner', 'repo'] : ['type', 'url']
  // Forges do not tell upper from lower case in owners and repositories; other servers may.
  const sayable = (value: unknown): string =>
    FORGES.includes(type) ? String(value).toLowerCase() : String(value)
  for (const name of compared)
    if (sayable(original[name]) !== sayable(locked[name]))
      yield [
        'origin-differs',
        `flake.nix asks for ${name} ${say(original[name])}, locked is ${say(locked[name])}`,
      ]
  if (isCommit(original['rev']) && original['rev'] !== locked['rev'])
    yield [
      'origin-differs',
      `flake.nix asks for rev ${say(original['rev'])}, locked is ${say(locked['rev'])}`,
    ]
}

function sayInput(path: readonly string[]): string {
  return path.length === 0 ? 'the locked flake' : `input ${say(path.join('/'))}`
}

function say(value: unknown): string {
  return typeof value === 'string' ? quote(value) : describeJson(value)
}
