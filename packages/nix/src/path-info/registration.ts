// Registrations: what `nix-store --dump-db` prints, `--load-db` reads, and images carry for their first
// boot (`closureInfo` of nixpkgs, file `registration`). Each path takes these lines:
//
//   full path
//   NAR hash: base16 (--dump-db), or prefixed by "sha256:" (closureInfo)
//   NAR size
//   full path of the deriver, or empty
//   number of references
//   full path of a reference, that many times
//
// There is no mark at the end: a text cut off between two paths is the text of fewer paths, which shows
// when a closure lacks one. https://github.com/NixOS/nix/blob/master/src/libstore/store-api.cc
import { NixError, quote } from '../error.ts'
import { narHashDigest, parseNarHash } from '../hash.ts'
import { parseDecimal, splitLines } from '../lines.ts'
import type { PathInfo } from '../manifest.ts'
import { byteOrder, parseStorePath } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'

/** Most bytes of registrations: a store of some 300,000 paths. */
export const REGISTRATION_MAX_BYTES: number = 256 << 20
const MAX_LINES = 8_000_000

/**
 * Parses registrations. Facts come in the order of the text.
 *
 * @throws {NixError} REGISTRATION_LINE – a line is malformed or missing, or a path stands twice;
 * `detail.line`; REGISTRATION_LIMIT
 */
export function parseRegistrations(bytes: Uint8Array): PathInfo[] {
  const { lines } = splitLines(bytes, 'REGISTRATION', REGISTRATION_MAX_BYTES, MAX_LINES)
  const infos: PathInfo[] = []
  const seen = new Set<StorePath>()
  let at = 0
  const next = <T>(what: string, parse: (line: string) => T): T => {
    const line = lines[at++]
    try {
      if (line === undefined) throw new NixError('REGISTRATION_LINE', 'the text ended')
      return parse(line)
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      const message = `line ${at}: expected ${what}: ${reason}`
      throw new NixError('REGISTRATION_LINE', message, { cause, detail: { line: at } })
    }
  }
  const addNew = (known: Set<StorePath>) => (line: string) => {
    const path = parseStorePath(line)
    if (known.has(path)) throw new NixError('REGISTRATION_LINE', `got ${quote(path)} twice`)
    known.add(path)
    return path
  }
  while (at < lines.length) {
    const path = next('a new path', addNew(seen))
    const narHash = next('a NAR hash', parseNarHash)
    const narSize = next('a NAR size', parseSize)
    const deriver = next('a deriver', (line) => (line === '' ? undefined : parseStorePath(line)))
    const count = next('a number of references', parseCount)
    const references = new Set<StorePath>()
    for (let index = 0; index < count; index++) next('a new reference', addNew(references))
    infos.push({
      path,
      narHash,
      narSize,
      references: [...references].sort(byteOrder),
      ...(deriver !== undefined && { deriver }),
    })
  }
  return infos
}

/** The text of registrations, as `nix-store --dump-db` prints them and `--load-db` reads them. */
export function formatRegistrations(infos: readonly PathInfo[]): string {
  return infos
    .map(({ path, narHash, narSize, deriver = '', references }) => {
      const hash = Buffer.from(narHashDigest(narHash)).toString('hex')
      return [path, hash, narSize, deriver, references.length, ...references, ''].join('\n')
    })
    .join('')
}

function parseSize(line: string): number {
  const size = parseCount(line)
  if (size > 0) return size
  throw new NixError('REGISTRATION_LINE', 'expected a size above 0')
}

function parseCount(line: string): number {
  return parseDecimal(line, 'REGISTRATION_LINE')
}
