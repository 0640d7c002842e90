// NAR listings: `<hash>.ls` beside the narinfo of a binary cache, JSON of version 1, for reading a single
// file of an archive by a ranged request.
//
//   { "version": 1, "root": node }
//   node = { "type": "regular", "size": n, "executable"?: bool, "narOffset"?: n }
//        | { "type": "symlink", "target": text }
//        | { "type": "directory", "entries": { name: node, … } }
//
// Nobody signs a listing: it is a hint of where to look, and what is found there proves nothing until the
// whole archive was hashed. Harmonia leaves `narOffset` out. JSON cannot hold names that are not UTF-8.
// https://github.com/NixOS/nix/blob/master/src/libutil/nar-accessor.cc
import { NixError, quote } from '../error.ts'
import { encodeFileName } from '../file-name.ts'
import { describeJson, isJsonObject, parseStrictJson } from '../strict-json.ts'
import type { JsonObject } from '../strict-json.ts'
import { readNar } from './reader.ts'
import type { NarLimits } from './reader.ts'
import { findNameBreach, findTargetBreach, NAR_MAX_DEPTH } from './rules.ts'

/** What lies at one place of an archive. */
export type NarListing = NarRegular | NarSymlink | NarDirectory

/** A regular file of an archive. */
export interface NarRegular {
  readonly type: 'regular'
  readonly size: number
  readonly executable: boolean
  /** Where the contents start, in bytes from the start of the (uncompressed) archive. */
  readonly narOffset?: number
}

/** A symlink of an archive. */
export interface NarSymlink {
  readonly type: 'symlink'
  readonly target: string
}

/** A directory of an archive, its entries in byte order. */
export interface NarDirectory {
  readonly type: 'directory'
  readonly entries: ReadonlyMap<string, NarListing>
}

/** Most bytes of a listing: a source tree of half a million files. */
export const LISTING_MAX_BYTES: number = 64 << 20
const MAX_ENTRIES = 1_000_000
// The document, and two levels for each directory: the node and its entries.
const MAX_JSON_DEPTH = 2 * NAR_MAX_DEPTH + 2

/**
 * The listing of an archive, as `nix copy` writes it with `write-nar-listing`.
 *
 * @throws {NixError} LISTING_LIMIT – more than a million entries; what `readNar` throws.
 */
export async function listNar(
  chunks: AsyncIterable<Uint8Array>,
  limits: NarLimits = {},
): Promise<NarListing> {
  const open: Map<string, NarListing>[] = []
  let root: NarListing | undefined
  let name = ''
  let entries = 0
  for await (const event of readNar(chunks, limits)) {
    if (event.type === 'chunk') continue
    if (event.type === 'end') {
      open.pop()
      continue
    }
    if (event.type === 'entry') {
      name = event.name
      if (++entries > MAX_ENTRIES)
        throw new NixError('LISTING_LIMIT', `expected at most ${MAX_ENTRIES} entries`)
      continue
    }
    let node: NarListing
    const parent = open.at(-1)
    if (event.type === 'directory') {
      const children = new Map<string, NarListing>()
      node = { type: 'directory', entries: children }
      open.push(children)
    } else if (event.type === 'symlink') {
      node = { type: 'symlink', target: event.target }
    } else {
      const { size, executable, offset } = event
      node = {
        type: 'regular',
        size,
        executable,
        ...(offset !== undefined && { narOffset: offset }),
      }
    }
    if (parent === undefined) root = node
    else parent.set(name, node)
  }
  return root as NarListing // the reader has seen a whole archive
}

/**
 * Parses a listing.
 *
 * @throws {NixError} LISTING_ENTRY – a node, name or target that no archive has; JSON_SYNTAX,
 * JSON_DUPLICATE_KEY, JSON_LIMIT
 */
export function parseNarListing(bytes: Uint8Array): NarListing {
  const value = parseStrictJson(bytes, LISTING_MAX_BYTES, { maxDepth: MAX_JSON_DEPTH })
  if (!isJsonObject(value) || value['version'] !== 1)
    throw entryError('', 'version 1 of a listing', isJsonObject(value) ? value['version'] : value)
  checkKeys('', value, ['version', 'root'])
  return parseNode(value['root'], '', 0)
}

/**
 * The text of a listing, keys in the order in which Nix writes them.
 *
 * @throws {NixError} LISTING_ENTRY – a name or target that is not UTF-8
 */
export function formatNarListing(listing: NarListing): string {
  return `{"version":1,"root":${toJson(listing, '')}}`
}

function parseNode(node: unknown, place: string, depth: number): NarListing {
  if (!isJsonObject(node)) throw entryError(place, 'an object', node)
  const type = node['type']
  if (type === 'directory') {
    checkKeys(place, node, ['type', 'entries'])
    const entries = node['entries']
    if (!isJsonObject(entries)) throw entryError(place, 'entries', entries)
    const names = Object.keys(entries)
      .map((name) => ({ name, bytes: encodeFileName(name) }))
      .sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    if (names.length > 0 && depth + 1 >= NAR_MAX_DEPTH)
      throw entryError(place, `at most ${NAR_MAX_DEPTH} levels`, names[0]?.name)
    const children = new Map<string, NarListing>()
    for (const { name, bytes } of names) {
      if (findNameBreach(bytes, undefined) !== undefined)
        throw entryError(place, 'a file name', name)
      children.set(name, parseNode(entries[name], `${place}/${name}`, depth + 1))
    }
    return { type, entries: children }
  }
  if (type === 'symlink') {
    checkKeys(place, node, ['type', 'target'])
    const target = node['target']
    if (typeof target !== 'string' || findTargetBreach(encodeFileName(target)) !== undefined)
      throw entryError(place, 'a symlink target', target)
    return { type, target }
  }
  if (type !== 'regular') throw entryError(place, '"regular", "symlink" or "directory"', type)
  checkKeys(place, node, ['type', 'size', 'executable', 'narOffset'])
  const { size, executable = false, narOffset } = node
  if (!isSize(size)) throw entryError(place, 'a size', size)
  if (typeof executable !== 'boolean')
    throw entryError(place, '"executable" to be a flag', executable)
  if (narOffset === undefined) return { type, size, executable }
  if (!isSize(narOffset)) throw entryError(place, 'an offset', narOffset)
  return { type, size, executable, narOffset }
}

/** Written by hand: objects of JavaScript move names such as "1" to the front. */
function toJson(node: NarListing, place: string): string {
  if (node.type === 'directory') {
    const entries = [...node.entries].map(([name, child]) => {
      if (!name.isWellFormed()) throw entryError(place, 'a name in UTF-8', name)
      return `${JSON.stringify(name)}:${toJson(child, `${place}/${name}`)}`
    })
    return `{"type":"directory","entries":{${entries.join(',')}}}`
  }
  if (node.type === 'symlink') {
    if (!node.target.isWellFormed()) throw entryError(place, 'a target in UTF-8', node.target)
    return JSON.stringify({ type: node.type, target: node.target })
  }
  const { type, size, executable, narOffset } = node
  return JSON.stringify({ type, size, ...(executable && { executable }), narOffset })
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function checkKeys(place: string, node: JsonObject, known: readonly string[]): void {
  const unknown = Object.keys(node).find((key) => !known.includes(key))
  if (unknown !== undefined) throw entryError(place, `only ${known.join(', ')}`, unknown)
}

function entryError(place: string, expected: string, seen: unknown): NixError {
  const at = place === '' ? 'the root' : quote(place)
  const message = `expected ${expected} at ${at}, got ${describeJson(seen)}`
  return new NixError('LISTING_ENTRY', message, { detail: { file: place } })
}
