// The inputs of a locked flake, and the store paths that their trees have: a tree is content-addressed,
// so its path follows from `narHash` alone, with no network and no Nix.
import { NixError, quote } from '../error.ts'
import { narHashDigest } from '../hash.ts'
import { makeStorePath } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import type { FlakeLink, FlakeLock, FlakeNode, LockedNode } from './parse.ts'

/** What fixes the content of an input; `commit` alone does not give the store path of its tree. */
export type FlakePin = 'narHash' | 'commit' | 'parent' | 'nothing'

/** Where the tree of an input is: below `directory` in a store path or in the locked flake's own tree. */
export interface FlakeTree {
  /** Undefined for the tree of the locked flake itself, of which its lock knows no hash. */
  readonly storePath: StorePath | undefined
  /** `''`, or a path without leading slash. */
  readonly directory: string
}

/** An input of a locked flake, reached from the root. */
export interface FlakeInput {
  /** Input names from the root, the shortest that do not pass through a follows. */
  readonly path: readonly string[]
  readonly node: LockedNode
  /** Where each input of its own leads, follows resolved. */
  readonly inputs: ReadonlyMap<string, FlakeLink>
  readonly pinnedBy: FlakePin
  /** Undefined when the lock does not say, that is, where there is no `narHash`. */
  readonly tree: FlakeTree | undefined
}

/** Names from the root to an input, their characters, and bytes of a directory: a lock from a pull request must not cost more. */
const MAX_DEPTH = 256
const MAX_PATH = 1024
const MAX_DIRECTORY = 4096

/**
 * Every node that the root reaches, once, nearest first.
 *
 * @throws {NixError} FLAKE_LOCK_NODE – a relative path that leads out of its parent's tree; FLAKE_LOCK_LIMIT
 */
export function flakeInputs(lock: FlakeLock): FlakeInput[] {
  const trees: Trees = new Map()
  const paths = new Map<string, readonly string[]>([[lock.root.key, []]])
  const inputs: FlakeInput[] = []
  for (const [key, path] of paths) {
    // Whoever lists the inputs of this one writes its path once for each.
    if (path.join('/').length > MAX_PATH)
      throw new NixError(
        'FLAKE_LOCK_LIMIT',
        `expected at most ${MAX_PATH} characters from the root to an input`,
      )
    const node = lock.nodes.get(key)
    if (node !== undefined)
      inputs.push({
        path,
        node,
        inputs: node.inputs,
        pinnedBy: pinOf(node),
        tree: findTree(lock, node, trees),
      })
    for (const [name, link] of (node ?? lock.root).inputs)
      if (link.follows === undefined && !paths.has(link.node)) {
        if (path.length === MAX_DEPTH)
          throw new NixError('FLAKE_LOCK_LIMIT', `expected inputs at most ${MAX_DEPTH} levels deep`)
        paths.set(link.node, [...path, name])
      }
  }
  return inputs
}

/**
 * The node that input names lead to from the root, through follows too; undefined when they lead nowhere.
 */
export function findFlakeInput(lock: FlakeLock, path: readonly string[]): FlakeNode | undefined {
  let at: FlakeNode | undefined = lock.root
  for (const name of path) {
    const link: FlakeLink | undefined = at.inputs.get(name)
    if (link === undefined) return undefined
    at = link.node === lock.root.key ? lock.root : lock.nodes.get(link.node)
    if (at === undefined) return undefined
  }
  return at
}

/** True for a path input that is given from the directory of the flake that has it. */
export function isRelativePath({ locked }: LockedNode): boolean {
  const { type, path } = locked
  return type === 'path' && typeof path === 'string' && !path.startsWith('/')
}

/**
 * The tree of an input, or for `type: "file"` the file, at the path that Nix 2.26 and 2.34 give it. Undefined
 * where the lock does not say, that is, without `narHash`.
 *
 * @throws {NixError} FLAKE_LOCK_NODE – a relative path that leads out of its parent's tree; FLAKE_LOCK_LIMIT
 */
export function flakeTree(lock: FlakeLock, node: LockedNode): FlakeTree | undefined {
  return findTree(lock, node, new Map())
}

/** Trees that were found: many relative paths may start in one, at the end of a long way. */
type Trees = Map<LockedNode, FlakeTree | undefined>

function findTree(lock: FlakeLock, node: LockedNode, trees: Trees): FlakeTree | undefined {
  if (trees.has(node)) return trees.get(node)
  const tree = isInParent(node) ? relativeTree(lock, node, trees) : ownTree(node)
  trees.set(node, tree)
  return tree
}

/** Whether it is a directory in the tree of its parent. Before Nix 2.26 it was copied, and locked as a tree of its own. */
function isInParent(node: LockedNode): boolean {
  return isRelativePath(node) && (node.parent !== undefined || node.narHash === undefined)
}

function ownTree(node: LockedNode): FlakeTree | undefined {
  if (node.narHash === undefined) return undefined
  const { name = 'source' } = node.locked
  const storePath = makeStorePath('source', narHashDigest(node.narHash), String(name))
  return { storePath, directory: '' }
}

function pinOf(node: LockedNode): FlakePin {
  if (isInParent(node)) return node.parent === undefined ? 'nothing' : 'parent'
  if (node.narHash !== undefined) return 'narHash'
  return isCommit(node.locked['rev']) ? 'commit' : 'nothing'
}

/** A full commit id: 40 or 64 hexadecimal digits. */
export function isCommit(rev: unknown): boolean {
  return typeof rev === 'string' && /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(rev)
}

/** Relative to the directory of the parent's flake.nix, as Nix's own call-flake.nix has it. */
function relativeTree(lock: FlakeLock, node: LockedNode, trees: Trees): FlakeTree | undefined {
  if (node.parent === undefined) return undefined
  const parent = findFlakeInput(lock, node.parent) ?? lock.root // parsing checked that it is there
  const base = isLocked(parent)
    ? findTree(lock, parent, trees)
    : { storePath: undefined, directory: '' }
  if (base === undefined) return undefined
  const parts = isLocked(parent) ? [base.directory, String(parent.locked['dir'] ?? '')] : []
  const directory = joinPath([...parts, String(node.locked['path'])])
  if (directory !== undefined && directory.length > MAX_DIRECTORY)
    throw new NixError(
      'FLAKE_LOCK_LIMIT',
      `expected the directory of node ${quote(node.key)} to have at most ${MAX_DIRECTORY} bytes`,
    )
  if (directory !== undefined) return { ...base, directory }
  throw new NixError(
    'FLAKE_LOCK_NODE',
    `expected the path of node ${quote(node.key)} to stay in its parent's tree, ` +
      `got ${quote(String(node.locked['path']))}`,
  )
}

/** True for any node but the root. */
export function isLocked(node: FlakeNode): node is LockedNode {
  return 'locked' in node
}

/** Joined and without `.` and `..`; undefined when it leads above its start. */
function joinPath(parts: readonly string[]): string | undefined {
  const names: string[] = []
  for (const name of parts.flatMap((part) => part.split('/')))
    if (name === '..') {
      if (names.pop() === undefined) return undefined
    } else if (name !== '' && name !== '.') names.push(name)
  return names.join('/')
}
