// flake.lock, versions 5 to 7.
//
//   lock  = { "version": 5|6|7, "root": KEY, "nodes": { KEY: node, … } }
//   node  = { "inputs"?: { NAME: KEY | [NAME…] }, "original", "locked", "info"?, "flake"?, "parent"?: [NAME…] }
//
// An input is the key of a node, or a "follows" path of input names from the root (which may pass through
// further follows; [] is the root). The root node has inputs only. `info` exists in version 5, where it
// holds what later moved into `locked`. `parent` (Nix 2.26) is the flake that a relative path starts from.
//
// Stricter than Nix, because the text comes from a pull request: unknown members are refused (`parent`
// came without a new version number, and who ignores it misreads the lock), so are duplicate names, nodes
// that lead back to themselves, and follows paths that lead nowhere, also in nodes that nothing reaches.
// Every link of a parsed lock leads to a node.
// https://github.com/NixOS/nix/blob/master/src/libflake/lockfile.cc
import { NixError, quote } from '../error.ts'
import { parseNarHash } from '../hash.ts'
import type { NarHash } from '../hash.ts'
import { describeJson, isJsonObject, parseStrictJson } from '../strict-json.ts'
import type { JsonObject } from '../strict-json.ts'
import { findUnreachable, linkNodes } from './link.ts'

/** What a fetcher gets or gives: `type`, `owner`, `repo`, `rev`, `url`, `narHash`, `lastModified`, … */
export type FetchAttributes = Readonly<Record<string, string | number | boolean>>

/** Where an input leads. */
export interface FlakeLink {
  /** Key of the node. */
  readonly node: string
  /** Input names from the root, when the lock says so instead of naming the node. */
  readonly follows?: readonly string[]
}

/** A node of the lock: one tree of sources. */
export interface FlakeNode {
  readonly key: string
  /** By input name. */
  readonly inputs: ReadonlyMap<string, FlakeLink>
  /** False when the tree is fetched but not evaluated as a flake. */
  readonly flake: boolean
}

/** A node that is an input, that is, any but the root. */
export interface LockedNode extends FlakeNode {
  /** What `flake.nix` asked for. */
  readonly original: FetchAttributes
  /** What it was resolved to. */
  readonly locked: FetchAttributes
  /** Hash of the tree, from `locked`. */
  readonly narHash?: NarHash
  /** Input names from the root to the flake whose tree a relative path starts in. */
  readonly parent?: readonly string[]
}

/** A flake.lock whose links all lead somewhere. */
export interface FlakeLock {
  readonly version: 5 | 6 | 7
  readonly root: FlakeNode
  /** All nodes but the root, by key, in the order of the text (integer-like keys first). */
  readonly nodes: ReadonlyMap<string, LockedNode>
  /** Keys of nodes that no input reaches from the root; Nix ignores and drops them. */
  readonly unreachable: readonly string[]
}

/** Most bytes of a lock: large ones have a few hundred nodes and 200 kB. */
export const FLAKE_LOCK_MAX_BYTES: number = 4 << 20
const MAX_NODES = 10_000
const MAX_LINKS = 100_000

const NODE_MEMBERS = ['inputs', 'original', 'locked', 'info', 'flake', 'parent']

/**
 * Parses a flake.lock of version 5, 6 or 7.
 *
 * @throws {NixError} FLAKE_LOCK_VERSION; FLAKE_LOCK_NODE – a member that is missing, unknown or of the wrong
 * kind; FLAKE_LOCK_INPUT – an input or parent that leads to no node; FLAKE_LOCK_CYCLE; FLAKE_LOCK_LIMIT;
 * JSON_LIMIT, JSON_SYNTAX, JSON_DUPLICATE_KEY
 */
export function parseFlakeLock(bytes: Uint8Array): FlakeLock {
  const json = parseStrictJson(bytes, FLAKE_LOCK_MAX_BYTES)
  if (!isJsonObject(json)) throw nodeError('the lock', 'an object', json)
  const { version, root: rootKey, nodes: entries } = json
  if (version !== 5 && version !== 6 && version !== 7)
    throw new NixError(
      'FLAKE_LOCK_VERSION',
      `expected version 5, 6 or 7, got ${describeJson(version)}`,
    )
  refuseOthers('the lock', json, ['version', 'root', 'nodes'])
  if (typeof rootKey !== 'string') throw nodeError('"root"', 'the key of a node', rootKey)
  if (!isJsonObject(entries)) throw nodeError('"nodes"', 'an object', entries)
  const keys = Object.keys(entries)
  if (keys.length > MAX_NODES)
    throw new NixError('FLAKE_LOCK_LIMIT', `expected at most ${MAX_NODES} nodes`)
  if (!Object.hasOwn(entries, rootKey))
    throw new NixError('FLAKE_LOCK_INPUT', `expected a node ${quote(rootKey)}, the root`)

  let links = 0
  const raw = new Map(
    keys.map((key) => {
      const inputs = parseInputs(key, entries[key])
      links += inputs.size
      if (links > MAX_LINKS)
        throw new NixError('FLAKE_LOCK_LIMIT', `expected at most ${MAX_LINKS} inputs`)
      return [key, inputs]
    }),
  )
  const nodes = new Map(
    keys
      .filter((key) => key !== rootKey)
      .map((key) => [key, parseLockedNode(key, entries[key] as JsonObject, version)]),
  )
  const parents = new Map(
    [...nodes.values()].flatMap(({ key, parent }) => (parent === undefined ? [] : [[key, parent]])),
  )
  const linked = linkNodes(rootKey, raw, parents)
  const inputsOf = (key: string): FlakeNode['inputs'] => linked.get(key) ?? new Map()
  return {
    version,
    root: { ...parseRoot(rootKey, entries[rootKey]), inputs: inputsOf(rootKey) },
    nodes: new Map(Array.from(nodes, ([key, node]) => [key, { ...node, inputs: inputsOf(key) }])),
    unreachable: findUnreachable(rootKey, raw),
  }
}

type Unlinked<N extends FlakeNode> = Omit<N, 'inputs'>

function parseRoot(key: string, json: unknown): Unlinked<FlakeNode> {
  refuseOthers(`node ${quote(key)}, the root,`, json as JsonObject, ['inputs'])
  return { key, flake: true }
}

function parseLockedNode(key: string, json: JsonObject, version: number): Unlinked<LockedNode> {
  const where = `node ${quote(key)}`
  refuseOthers(where, json, NODE_MEMBERS)
  const { original, flake = true, parent, info } = json
  if (typeof flake !== 'boolean') throw nodeError(`"flake" of ${where}`, 'true or false', flake)
  if (info !== undefined && version !== 5)
    throw nodeError(`"info" of ${where}`, `nothing in version ${version}`, info)
  const locked = {
    ...parseAttributes(`"locked" of ${where}`, json['locked']),
    ...(info === undefined ? {} : parseAttributes(`"info" of ${where}`, info)),
  }
  const asked = parseAttributes(`"original" of ${where}`, original)
  requireType(`"original" of ${where}`, asked)
  requireType(`"locked" of ${where}`, locked)
  const { narHash } = locked
  return {
    key,
    flake,
    original: asked,
    locked,
    ...(narHash === undefined ? {} : { narHash: parseSri(where, narHash) }),
    ...(parent === undefined ? {} : { parent: parseInputPath(`"parent" of ${where}`, parent) }),
  }
}

function parseSri(where: string, value: unknown): NarHash {
  try {
    const narHash = parseNarHash(String(value))
    if (narHash === value) return narHash
  } catch {
    // The error below says what was expected of a lock.
  }
  throw nodeError(`"narHash" of ${where}`, 'sha256-<base64>', value)
}

/** As Nix reads them: strings, numbers that are not negative, booleans. */
function parseAttributes(where: string, json: unknown): FetchAttributes {
  if (!isJsonObject(json)) throw nodeError(where, 'an object', json)
  for (const [name, value] of Object.entries(json)) {
    const isNumber = Number.isSafeInteger(value) && !Object.is(value, -0) && (value as number) >= 0
    if (typeof value !== 'string' && typeof value !== 'boolean' && !isNumber)
      throw nodeError(`${quote(name)} in ${where}`, 'a string, a number or a boolean', value)
  }
  return json as FetchAttributes
}

function requireType(where: string, { type }: FetchAttributes): void {
  if (typeof type !== 'string') throw nodeError(`"type" in ${where}`, 'a string', type)
}

function parseInputs(key: string, node: unknown): ReadonlyMap<string, string | readonly string[]> {
  if (!isJsonObject(node)) throw nodeError(`node ${quote(key)}`, 'an object', node)
  const { inputs = {} } = node
  if (!isJsonObject(inputs)) throw nodeError(`"inputs" of node ${quote(key)}`, 'an object', inputs)
  return new Map(
    Object.entries(inputs).map(([name, input]) => [
      name,
      typeof input === 'string'
        ? input
        : parseInputPath(`input ${quote(name)} of node ${quote(key)}`, input),
    ]),
  )
}

function parseInputPath(where: string, json: unknown): readonly string[] {
  if (Array.isArray(json) && json.every((part) => typeof part === 'string')) return json
  throw nodeError(where, 'a list of input names', json)
}

function refuseOthers(where: string, json: JsonObject, members: readonly string[]): void {
  const other = Object.keys(json).find((name) => !members.includes(name))
  if (other !== undefined)
    throw new NixError('FLAKE_LOCK_NODE', `expected no ${quote(other)} in ${where}`)
}

function nodeError(where: string, expected: string, seen: unknown): NixError {
  return new NixError(
    'FLAKE_LOCK_NODE',
    `expected ${where} to be ${expected}, got ${describeJson(seen)}`,
  )
}
