// Looks at a file tree that may change meanwhile. Names are relative to a root, `''` or `/bin/x`; both have
// one code unit per byte. What the system answers becomes a coded error: what a directory listed a moment ago and
// is gone, or is something else, is STORE_CHANGED.
import { constants, lstatSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import type { BigIntStats, Dirent } from 'node:fs'
import { NixError, quote } from '../error.ts'
import { fromLatin1, fsPath } from '../file-name.ts'

/** What an entry is. */
export type Kind = 'directory' | 'regular' | 'symlink' | 'other'

/** An entry of a directory. */
export interface TreeEntry {
  readonly name: string
  readonly kind: Kind
}

const BIGINT = { bigint: true } as const
const NAMES = { withFileTypes: true, encoding: 'latin1' } as const
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** The entries of a directory in byte order. */
export function readNames(root: string, name: string): readonly TreeEntry[] {
  try {
    const entries = readdirSync(fsPath(root + name), NAMES)
    const names = entries.map((entry) => ({ name: entry.name, kind: kindOfEntry(entry) }))
    return names.sort((a, b) => (a.name < b.name ? -1 : 1)) // code units are bytes; names are unique
  } catch (cause) {
    throw readError(root, name, cause)
  }
}

/** What was looked at. A stat's own `isFile` computes with bigints, which takes as long as to read a small file. */
export function kindOf({ mode }: BigIntStats): Kind {
  const format = Number(mode) & constants.S_IFMT
  if (format === constants.S_IFREG) return 'regular'
  if (format === constants.S_IFDIR) return 'directory'
  return format === constants.S_IFLNK ? 'symlink' : 'other'
}

function kindOfEntry(entry: Dirent): Kind {
  if (entry.isFile()) return 'regular'
  if (entry.isDirectory()) return 'directory'
  return entry.isSymbolicLink() ? 'symlink' : 'other'
}

/** The metadata of an entry, links not followed. */
export function statPath(root: string, name: string, missing?: 'STORE_MISSING'): BigIntStats {
  try {
    return lstatSync(fsPath(root + name), BIGINT)
  } catch (cause) {
    throw readError(root, name, cause, missing)
  }
}

/** The target of a symlink. */
export function readTarget(root: string, name: string): string {
  try {
    return readlinkSync(fsPath(root + name), 'latin1')
  } catch (cause) {
    throw readError(root, name, cause)
  }
}

/** Opens a regular file for reading, without following a link or waiting for a pipe. */
export function openRegular(root: string, name: string): number {
  try {
    return openSync(fsPath(root + name), OPEN_FLAGS)
  } catch (cause) {
    throw readError(root, name, cause)
  }
}

/** STORE_CHANGED at an entry. */
export function changed(root: string, name: string, cause?: unknown): NixError {
  const file = fromLatin1(root + name)
  const message = `expected ${quote(file)} to stay as it is while it is read`
  return new NixError('STORE_CHANGED', message, { cause, detail: { path: fromLatin1(root), file } })
}

/** STORE_TYPE: a socket, device or pipe. */
export function wrongKind(root: string, name: string): NixError {
  const file = fromLatin1(root + name)
  const message = `expected a file, directory or symlink at ${quote(file)}`
  return new NixError('STORE_TYPE', message, { detail: { path: fromLatin1(root), file } })
}

/** The coded error for what the system said of an entry. */
export function readError(
  root: string,
  name: string,
  cause: unknown,
  missing?: 'STORE_MISSING',
): unknown {
  if (cause instanceof NixError || !(cause instanceof Error)) return cause
  const file = fromLatin1(root + name)
  const code = (cause as NodeJS.ErrnoException).code ?? ''
  const detail = { path: fromLatin1(root), file }
  if (missing !== undefined && (code === 'ENOENT' || code === 'ENOTDIR'))
    return new NixError('STORE_MISSING', `expected ${quote(file)} to exist`, { cause, detail })
  // The directory listed it a moment ago.
  if (['ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL', 'ENXIO'].includes(code))
    return changed(root, name, cause)
  return new NixError('STORE_READ', `expected to read ${quote(file)}: ${code}`, { cause, detail })
}
