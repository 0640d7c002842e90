// The closure manifest: one line per store path, in byte order of the path.
//
//   line = path SP narHash SP narSize *( SP ref ) LF
//
//   path     full store path                    narHash  SRI, sha256-…
//   narSize  decimal, no leading zero           ref      base names in byte order, self included
//
// Its sha256 is the closure digest. The text has no root field: the root is the one path that no other
// path refers to, from which all others are reached. There is exactly one text for a closure, so parsing
// refuses every other spelling; the text comes from attestations, that is, from anyone.
import { NixError, quote } from './error.ts'
import { parseNarHash, sha256Hex } from './hash.ts'
import type { NarHash, Sha256 } from './hash.ts'
import { lineError, parseDecimal, splitLines } from './lines.ts'
import {
  byteOrder,
  parseStorePath,
  parseStorePathBase,
  STORE_DIR,
  storePathBase,
} from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** What Nix knows about a valid store path. A manifest holds the first four. */
export interface PathInfo {
  readonly path: StorePath
  readonly narHash: NarHash
  /** Size of the NAR in bytes. */
  readonly narSize: number
  /** In byte order, without duplicates; a path that refers to itself is included. */
  readonly references: readonly StorePath[]
  /** A hint only, and wrong in practice: Nix keeps whatever built or copied the path last said. */
  readonly deriver?: StorePath
  /** True when the path was built here. A claim of the database, not proof. */
  readonly ultimate?: boolean
  /** `key-name:base64`, unverified. */
  readonly signatures?: readonly string[]
  /** How the path was computed from its content, such as `fixed:r:sha256:…`; a claim. */
  readonly ca?: string
}

/** A closure: every path that {@link ClosureManifest.root} reaches. */
export interface ClosureManifest {
  readonly root: StorePath
  /** In byte order of path. */
  readonly entries: readonly PathInfo[]
  /** The closure digest: sha256 of {@link ClosureManifest.text}. */
  readonly digest: Sha256
  readonly text: string
}

/** Most bytes of a manifest: ten times that of a large system (4.3 MB at 10,000 paths). */
export const MANIFEST_MAX_BYTES: number = 64 << 20
const MAX_PATHS = 200_000
const MAX_REFERENCES = 4_000_000

/**
 * Builds the manifest of `root` from the facts about its paths, in any order.
 *
 * @throws {NixError} MANIFEST_REFERENCE – a reference leads to no given path; MANIFEST_ROOT – `root` is
 * not given, is referred to, or does not reach every path; MANIFEST_ORDER – a path is given twice;
 * MANIFEST_LIMIT.
 */
export function buildManifest(root: StorePath, infos: readonly PathInfo[]): ClosureManifest {
  const entries = infos
    .map((info) => ({ ...info, references: inOrder(info.references) }))
    .sort((a, b) => byteOrder(a.path, b.path))
  const found = checkClosure(entries)
  if (found !== root)
    throw new NixError('MANIFEST_ROOT', `expected the root ${quote(root)}, got ${quote(found)}`)
  const text = entries.map(formatLine).join('')
  if (text.length > MANIFEST_MAX_BYTES)
    throw new NixError('MANIFEST_LIMIT', `expected at most ${MANIFEST_MAX_BYTES} bytes`)
  return { root, entries, digest: sha256Hex(text), text }
}

/** `paths` in byte order; most sources give them so. */
function inOrder(paths: readonly StorePath[]): readonly StorePath[] {
  const ordered = paths.every((path, index) => index === 0 || (paths[index - 1] ?? '') <= path)
  return ordered ? paths : [...paths].sort(byteOrder)
}

/**
 * Parses the one canonical text of a closure.
 *
 * @throws {NixError} MANIFEST_LINE, MANIFEST_ORDER, MANIFEST_REFERENCE, MANIFEST_ROOT, MANIFEST_LIMIT
 */
export function parseManifest(bytes: Uint8Array): ClosureManifest {
  const { text, lines } = splitLines(bytes, 'MANIFEST', MANIFEST_MAX_BYTES, MAX_PATHS)
  // One string for each path, wherever it is named: comparing and looking up references is most of the
  // work, and a string that is known to be the same, or whose hash is known, costs next to nothing.
  const paths = new Map(lines.map((line) => pathOfLine(line)))
  const entries = lines.map((line, index) => parseLine(line, index, paths))
  const root = checkClosure(entries)
  return { root, entries, digest: sha256Hex(text), text }
}

function formatLine({ path, narHash, narSize, references }: PathInfo): string {
  return `${[path, narHash, narSize, ...references.map(storePathBase)].join(' ')}\n`
}

/** What is in the place of the path, by base name; not parsed yet. */
function pathOfLine(line: string): [base: string, path: string] {
  const path = line.slice(0, line.indexOf(' '))
  return [path.slice(STORE_DIR.length + 1), path]
}

function parseLine(line: string, index: number, paths: ReadonlyMap<string, string>): PathInfo {
  try {
    const [path = '', hash = '', size = '', ...references] = line.split(' ')
    const narHash = parseNarHash(hash)
    if (narHash !== hash) throw new NixError('HASH', `expected ${narHash}, got ${quote(hash)}`)
    const own = parseStorePath(path)
    return {
      path: (paths.get(storePathBase(own)) ?? own) as StorePath,
      narHash,
      narSize: parseDecimal(size, 'MANIFEST_LINE'),
      // What `paths` holds is parsed as the path of its own line.
      references: references.map(
        (base) => (paths.get(base) as StorePath | undefined) ?? parseStorePathBase(base),
      ),
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw lineError('MANIFEST_LINE', index, reason, cause)
  }
}

/** The root of sorted `entries`, after checking that they are one closure in canonical order. */
function checkClosure(entries: readonly PathInfo[]): StorePath {
  if (entries.length > MAX_PATHS)
    throw new NixError('MANIFEST_LIMIT', `expected at most ${MAX_PATHS} paths`)
  const indices = new Map<StorePath, number>()
  for (const [index, { path }] of entries.entries()) {
    const previous = entries[index - 1]
    if (previous !== undefined && previous.path >= path)
      throw lineError('MANIFEST_ORDER', index, `expected a path after ${quote(previous.path)}`)
    indices.set(path, index)
  }
  // From here on by index: paths are in order, so references are if their indices are.
  const below = resolveReferences(entries, indices)
  const referred = new Uint8Array(entries.length)
  for (const [index, references] of below.entries())
    for (const reference of references) if (reference !== index) referred[reference] = 1
  const roots = entries.filter((_, index) => referred[index] === 0)
  const root = roots[0]
  if (root === undefined || roots.length > 1) {
    const seen = roots.length === 0 ? 'none' : quote(roots.map((entry) => entry.path).join(' '))
    throw new NixError('MANIFEST_ROOT', `expected one path that no other refers to, got ${seen}`)
  }
  // Paths that refer to each other in a circle would hide behind one good root.
  const reached = new Uint8Array(entries.length)
  const pending = [referred.indexOf(0)]
  for (let index = pending.pop(); index !== undefined; index = pending.pop()) {
    if (reached[index] === 1) continue
    reached[index] = 1
    for (const reference of below[index] ?? [])
      if (reached[reference] === 0) pending.push(reference)
  }
  const lost = entries[reached.indexOf(0)]
  if (lost !== undefined)
    throw new NixError('MANIFEST_ROOT', `expected the root to reach ${quote(lost.path)}`)
  return root.path
}

/** The index of each reference of each entry. */
function resolveReferences(
  entries: readonly PathInfo[],
  indices: ReadonlyMap<StorePath, number>,
): Uint32Array[] {
  let count = 0
  return entries.map((entry, index) => {
    count += entry.references.length
    if (count > MAX_REFERENCES)
      throw new NixError('MANIFEST_LIMIT', `expected at most ${MAX_REFERENCES} references`)
    const resolved = new Uint32Array(entry.references.length)
    let last = -1
    for (const [position, reference] of entry.references.entries()) {
      const found = indices.get(reference)
      if (found === undefined)
        throw lineError('MANIFEST_REFERENCE', index, `expected a line for ${quote(reference)}`)
      if (found <= last)
        throw lineError(
          'MANIFEST_ORDER',
          index,
          `expected a reference after ${quote(entry.references[position - 1] ?? '')}`,
        )
      resolved[position] = last = found
    }
    return resolved
  })
}
