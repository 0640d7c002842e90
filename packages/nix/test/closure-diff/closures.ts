// Closures for tests, written as lists of paths.
import { hash } from 'node:crypto'
import { buildManifest, parseNarHash, parseStorePathBase } from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'

/** A path, written `x-name` for the hash xxx…: `a-glibc-2.38`. */
export function at(short: string): StorePath {
  return parseStorePathBase(`${(short[0] ?? '').repeat(32)}${short.slice(1)}`)
}

/** `[path, content, size, ...references]`; contents that are equal have equal hashes. */
export type Row = readonly [path: string, content: string, narSize: number, ...references: string[]]

/** The closure of the last row. */
export function closure(...rows: readonly Row[]): ClosureManifest {
  const infos = rows.map(([path, content, narSize, ...references]) => ({
    path: at(path),
    narHash: parseNarHash(`sha256:${hash('sha256', content)}`),
    narSize,
    references: references.map(at),
  }))
  return buildManifest(at(rows.at(-1)?.[0] ?? ''), infos)
}

/** As {@link closure}, with a root above all rows, so that any set of paths is a closure. */
export function bag(...rows: readonly Row[]): ClosureManifest {
  return closure(...rows, ['z-root', 'root', 10, ...rows.map(([path]) => path)])
}
