// The incremental look at a store path: compares the metadata of every entry with its record, and reads
// only files that moved. A new name in a directory moves the directory, so the recorded entries are all
// that has to be visited. Anything but the simple case goes back to a full scan, which also finds out
// what happened.
import { createHash } from 'node:crypto'
import { lstatSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { NixError } from '../error.ts'
import { fromLatin1, fsPath } from '../file-name.ts'
import type { FileList } from '../file-list.ts'
import type { LedgerRecord } from '../ledger.ts'
import { dumpNar } from '../nar/dump.ts'
import type { StorePath } from '../store-path.ts'
import { findDeviations } from './scan.ts'
import { isUnmoved, readSnapshot, replaceStat } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/** What the look came to. */
export type Recheck =
  /** Nothing moved, or what moved is still what the file list says; then `snapshot` is the new one. */
  | { readonly good: true; files: number; hashed: number; snapshot: Snapshot }
  /** The path has to be read in full. */
  | { readonly good: false }

/** Looks at `path`, whose content was good when `record` was made. */
export function recheckPath(
  path: StorePath,
  record: LedgerRecord,
  list: FileList | undefined,
  owner: number,
): Recheck {
  let snapshot = record.snapshot
  let files = 0
  let hashed = 0
  for (const [index, { name, kind }] of readSnapshot(snapshot).entries()) {
    const stat = lookAt(path + name)
    if (stat === undefined) return { good: false }
    if (kind === 'regular') files++
    if (isUnmoved(snapshot, index, stat)) continue
    if (kind !== 'regular' || list === undefined) return { good: false }
    const now = hashAsListed(path + name, list, owner)
    if (now === undefined) return { good: false }
    snapshot = replaceStat(snapshot, index, now)
    hashed++
  }
  return { good: true, files, hashed, snapshot }
}

function lookAt(latin1: string): BigIntStats | undefined {
  try {
    return lstatSync(fsPath(latin1), { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined // such as ENOTDIR; the full scan says what is wrong
  }
}

/** The metadata of a regular file whose content is what `list` says; else `undefined`. */
function hashAsListed(latin1: string, list: FileList, owner: number): BigIntStats | undefined {
  const path = fromLatin1(latin1)
  const listed = list.byPath.get(path)
  if (listed === undefined) return undefined
  const hash = createHash('sha256')
  let found: BigIntStats | undefined
  try {
    const dump = dumpNar(latin1, {
      regular: (_, stat) => void (found = stat),
      contents: (bytes) => void hash.update(bytes),
    })
    for (const _ of dump); // the observer sees what we need
  } catch (error) {
    if (error instanceof NixError) return undefined
    throw error
  }
  if (found === undefined || hash.digest('hex') !== listed.sha256) return undefined
  const executable = (found.mode & 0o100n) !== 0n
  if (executable !== listed.executable || findDeviations(path, found, owner).length > 0)
    return undefined
  return found
}
