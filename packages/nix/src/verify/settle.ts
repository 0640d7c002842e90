// Entries moved, and their content may still be what it was: `nix-store --optimise` links files together, a
// mode is changed there and back. Then the moved entries alone are read: a file is hashed and compared with
// its sha256 of the last full pass, a directory listed, a symlink read. When all are what they were, so is
// the NAR, because nothing else moved; the ledger takes over the new metadata, and the time of the last full
// pass stays. In any other case nothing is said here, and the whole path is read in full.
//
// Each entry is looked at before and after it is read, so that what is remembered is what was read.
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, readSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { NixError } from '../error.ts'
import { kindOf, openRegular, readNames, readTarget, statPath } from '../nar/file-tree.ts'
import type { StorePath } from '../store-path.ts'
import { isAsNixLeavesIt } from './deviations.ts'
import { FILE_HASH_BYTES, hasFileHashes } from './file-hashes.ts'
import { readSnapshot, setStat, SNAPSHOT_COLUMNS } from './snapshot.ts'
import type { Snapshot, SnapshotEntry } from './snapshot.ts'

/** What to settle; crosses to a worker thread. */
export interface SettleRequest {
  readonly settle: StorePath
  readonly snapshot: Snapshot
  /** Of the files of `snapshot`. */
  readonly fileHashes: Uint8Array
  /** The entries that moved, by their index in the snapshot, in order. */
  readonly moved: Uint32Array
  /** The uid that owns the store. */
  readonly owner: number
}

/** What was found; crosses back. */
export type Settlement = { readonly same: false } | SettledPath

/** A path in which everything that moved holds what it held. */
export interface SettledPath {
  readonly same: true
  /** The metadata of the moved entries as they are now, in their order. */
  readonly stats: BigInt64Array
  /** As of a scan: pairs of an index in the snapshot and a number of names. */
  readonly linked: Uint32Array
  /** Regular files that were read. */
  readonly filesHashed: number
}

const CHUNK_BYTES = 256 << 10
const BIGINT = { bigint: true } as const

/** Reads what moved; yields after each entry and each piece of a file. Where that fails, it has not been settled. */
export function* settlePath(request: SettleRequest): Generator<void, Settlement> {
  try {
    return yield* settle(request)
  } catch (error) {
    if (error instanceof NixError) return { same: false } // the full scan says what is wrong
    throw error
  }
}

function* settle({
  settle: path,
  snapshot,
  fileHashes,
  moved,
  owner,
}: SettleRequest): Generator<void, Settlement> {
  if (!hasFileHashes(snapshot, fileHashes)) return { same: false }
  const entries = readSnapshot(snapshot)
  const names = namesBelow(entries, moved)
  const stats = new BigInt64Array(moved.length * SNAPSHOT_COLUMNS)
  const linked: number[] = []
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  let [next, files, filesHashed] = [0, 0, 0]
  for (const [index, entry] of entries.entries()) {
    const file = files
    if (entry.kind === 'regular') files++
    if (index !== moved[next]) continue
    let stat: BigIntStats | undefined
    if (entry.kind === 'regular') {
      const expected = fileHashes.subarray(file * FILE_HASH_BYTES, (file + 1) * FILE_HASH_BYTES)
      stat = yield* readSameFile(path, entry, expected, buffer)
      filesHashed++
      if (stat !== undefined && stat.nlink > 1n) linked.push(index, Number(stat.nlink))
    } else {
      stat = readSame(path, entry, names.get(entry.name) ?? '')
    }
    if (stat === undefined || !isAsNixLeavesIt(stat, owner)) return { same: false }
    setStat(stats, next * SNAPSHOT_COLUMNS, stat)
    next++
    yield
  }
  if (next < moved.length) return { same: false }
  return { same: true, stats, linked: Uint32Array.from(linked), filesHashed }
}

/** What the moved directories listed, by their names: each name followed by `/`. */
function namesBelow(
  entries: readonly SnapshotEntry[],
  moved: Uint32Array,
): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  for (const index of moved) {
    const entry = entries[index]
    if (entry?.kind === 'directory') names.set(entry.name, '')
  }
  if (names.size === 0) return names
  for (const { name } of entries.slice(1)) {
    const parent = name.slice(0, name.lastIndexOf('/'))
    const before = names.get(parent)
    if (before !== undefined) names.set(parent, `${before}${name.slice(parent.length + 1)}/`)
  }
  return names
}

/** The metadata of a directory or symlink that holds what it held. */
function readSame(root: string, entry: SnapshotEntry, names: string): BigIntStats | undefined {
  const { name, kind, target } = entry
  const stat = statPath(root, name)
  if (kindOf(stat) !== kind) return undefined
  const same =
    kind === 'symlink'
      ? readTarget(root, name) === target
      : readNames(root, name)
          .map((child) => `${child.name}/`)
          .join('') === names
  return same && isSameMoment(stat, statPath(root, name)) ? stat : undefined
}

/** The metadata of a file whose content has the sha256 `expected`. */
function* readSameFile(
  root: string,
  { name, size, executable }: SnapshotEntry,
  expected: Uint8Array,
  buffer: Buffer,
): Generator<void, BigIntStats | undefined> {
  const fd = openRegular(root, name)
  try {
    const stat = fstatSync(fd, BIGINT)
    const same = kindOf(stat) === 'regular' && Number(stat.size) === size
    if (!same || ((stat.mode & 0o100n) !== 0n) !== executable) return undefined
    const hash = createHash('sha256')
    let left = size
    do {
      // One byte more than is due: a file that grew shows itself.
      const count = readSync(fd, buffer, 0, Math.min(left + 1, buffer.length), null)
      if (count > left || (count === 0 && left > 0)) return undefined
      hash.update(buffer.subarray(0, count))
      left -= count
      yield
    } while (left > 0)
    if (!isSameMoment(stat, fstatSync(fd, BIGINT))) return undefined
    return hash.digest().equals(expected) ? stat : undefined
  } catch (cause) {
    if (cause instanceof NixError) throw cause
    return undefined // such as EIO, which the full scan will meet too
  } finally {
    closeSync(fd)
  }
}

function isSameMoment(before: BigIntStats, after: BigIntStats): boolean {
  return before.ctimeNs === after.ctimeNs && before.ino === after.ino && before.dev === after.dev
}
