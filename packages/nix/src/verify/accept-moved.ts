// Judges the entries of a store path that moved since its last good look. A regular file may have moved
// without changing (a hard link to it was made or removed): when it is still what the file list says, the
// look is good and the snapshot is brought up to date. A new name in a directory moves the directory, so
// anything else that moved sends the whole path back to a full scan, which also finds out what happened.
import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { NixError } from '../error.ts'
import { fromLatin1 } from '../file-name.ts'
import type { FileList } from '../file-list.ts'
import { dumpNar } from '../nar/dump.ts'
import type { StorePath } from '../store-path.ts'
import { attributesOf } from './attributes.ts'
import type { ReadAttributes } from './attributes.ts'
import { isAsNixLeavesIt } from './deviations.ts'
import { readSnapshot, replaceStats } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

// Beyond it a full scan, which worker threads share, is done sooner.
const MAX_MOVED = 1000

/** A snapshot brought up to date. */
export interface Accepted {
  readonly snapshot: Snapshot
  /** Files with several names: pairs of the index in the snapshot and the number of names. */
  readonly linked: readonly number[]
}

/**
 * The snapshot of `path` with the entries at `moved` brought up to date, after their content was compared
 * with `list`, and their attributes read where `read` can do that; `undefined` when the path has to be
 * read in full.
 */
export function acceptMoved(
  path: StorePath,
  snapshot: Snapshot,
  moved: readonly number[],
  list: FileList | undefined,
  owner: number,
  read: ReadAttributes | undefined,
): Accepted | undefined {
  if (list === undefined || moved.length > MAX_MOVED) return undefined
  const entries = readSnapshot(snapshot)
  const linked: number[] = []
  const stats: [index: number, stat: BigIntStats][] = []
  for (const index of moved) {
    const entry = entries[index]
    if (entry?.kind !== 'regular') return undefined
    const stat = hashAsListed(path + entry.name, list, owner)
    if (stat === undefined) return undefined
    if (read !== undefined && attributesOf(path + entry.name, read).length > 0) return undefined
    if (stat.nlink > 1n) linked.push(index, Number(stat.nlink))
    stats.push([index, stat])
  }
  return { snapshot: replaceStats(snapshot, stats), linked }
}

/** The metadata of a regular file whose content is what `list` says; else `undefined`. */
function hashAsListed(latin1: string, list: FileList, owner: number): BigIntStats | undefined {
  const listed = list.byPath.get(fromLatin1(latin1))
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
    if (error instanceof NixError) return undefined // the full scan says what is wrong
    throw error
  }
  if (found === undefined || hash.digest('hex') !== listed.sha256) return undefined
  const executable = (found.mode & 0o100n) !== 0n
  return executable === listed.executable && isAsNixLeavesIt(found, owner) ? found : undefined
}
