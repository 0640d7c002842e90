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
import { parseDecimal, splitLines } from './lines.ts'
import { byteOrder, parseStorePath, parseStorePathBase, storePathBase } from './store-path.ts'
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
    .map((info) => ({ ...info, references: [...info.references].sort(byteOrder) }))
    .sort((a, b) => byteOrder(a.path, b.path))
  const found = checkClosure(entries)
  if (found !== root)
    throw new NixError('MANIFEST_ROOT', `expected the root ${quote(root)}, got ${quote(found)}`)
  const text = entries.map(formatLine).join('')
  if (text.length > MANIFEST_MAX_BYTES)
    throw new NixError('MANIFEST_LIMIT', `expected at most ${MANIFEST_MAX_BYTES} bytes`)
  return { root, entries, digest: sha256Hex(text), text }
}

/**
 * Parses the one canonical text of a closure.
 *
 * @throws {NixError} MANIFEST_LINE, MANIFEST_ORDER, MANIFEST_REFERENCE, MANIFEST_ROOT, MANIFEST_LIMIT
 */
export function parseManifest(bytes: Uint8Array): ClosureManifest {
  const { text, lines } = splitLines(bytes, 'MANIFEST', MANIFEST_MAX_BYTES, MAX_PATHS)
  const entries = lines.map(parseLine)
  const root = checkClosure(entries)
  return { root, entries, digest: sha256Hex(text), text }
}

function formatLine({ path, narHash, narSize, references }: PathInfo): string {
  return `${[path, narHash, narSize, ...references.map(storePathBase)].join(' ')}\n`
}

function parseLine(line: string, index: number): PathInfo {
  try {
    const [path = '', hash = '', size = '', ...references] = line.split(' ')
    const narHash = parseNarHash(hash)
    if (narHash !== hash) throw new NixError('HASH', `expected ${narHash}, got ${quote(hash)}`)
    return {
      path: parseStorePath(path),
      narHash,
      narSize: parseDecimal(size, 'MANIFEST_LINE'),
      references: references.map(parseStorePathBase),
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
  const byPath = new Map(entries.map((entry) => [entry.path, entry]))
  const referred = new Set<StorePath>()
  let references = 0
  for (const [index, entry] of entries.entries()) {
    const previous = entries[index - 1]
    if (previous !== undefined && previous.path >= entry.path)
      throw lineError('MANIFEST_ORDER', index, `expected a path after ${quote(previous.path)}`)
    references += entry.references.length
    if (references > MAX_REFERENCES)
      throw new NixError('MANIFEST_LIMIT', `expected at most ${MAX_REFERENCES} references`)
    for (const [position, reference] of entry.references.entries()) {
      const before = entry.references[position - 1]
      if (before !== undefined && before >= reference)
        throw lineError('MANIFEST_ORDER', index, `expected a reference after ${quote(before)}`)
      if (!byPath.has(reference))
        throw lineError('MANIFEST_REFERENCE', index, `expected a line for ${quote(reference)}`)
      if (reference !== entry.path) referred.add(reference)
    }
  }
  const roots = entries.filter((entry) => !referred.has(entry.path))
  const root = roots[0]
  if (root === undefined || roots.length > 1) {
    const seen = roots.length === 0 ? 'none' : quote(roots.map((entry) => entry.path).join(' '))
    throw new NixError('MANIFEST_ROOT', `expected one path that no other refers to, got ${seen}`)
  }
  // Paths that refer to each other in a circle would hide behind one good root.
  const reached = new Set([root.path])
  for (const path of reached)
    for (const next of byPath.get(path)?.references ?? []) reached.add(next)
  const lost = entries.find((entry) => !reached.has(entry.path))
  if (lost !== undefined)
    throw new NixError('MANIFEST_ROOT', `expected the root to reach ${quote(lost.path)}`)
  return root.path
}

function lineError(
  code: NixError['code'],
  index: number,
  reason: string,
  cause?: unknown,
): NixError {
  const detail = { line: index + 1 }
  return new NixError(code, `line ${index + 1}: ${reason}`, { cause, detail })
}
