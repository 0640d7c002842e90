// The metadata of one store path at the moment its content was found good: for the root and every entry
// below it, in archive order, what changes when content does. Kept flat, because a large system has
// 140,000 entries: eight integers each and the names in one string.
import type { BigIntStats } from 'node:fs'

/** See the module's head. Serialisable as it is. */
export interface Snapshot {
  /** {@link SNAPSHOT_COLUMNS} integers per entry: dev, ino, mode, uid, gid, size, mtime ns, ctime ns. */
  readonly stats: BigInt64Array<ArrayBuffer>
  /**
   * Each entry's name (`''` for the root, else `/bin/x`; one code unit per byte) and, for a symlink, its
   * target, every one followed by NUL.
   */
  readonly names: string
}

/** One entry of a snapshot, decoded. */
export interface SnapshotEntry {
  readonly name: string
  readonly kind: 'directory' | 'regular' | 'symlink'
  readonly target?: string
}

/** Integers per entry of {@link Snapshot.stats}. */
export const SNAPSHOT_COLUMNS = 8

const MODE_COLUMN = 2
const FORMAT_MASK = 0o170000n
const DIRECTORY = 0o040000n
const SYMLINK = 0o120000n

/** Collects a snapshot entry by entry. */
export class SnapshotBuilder {
  readonly #stats: bigint[] = []
  #names = ''

  add(name: string, stat: BigIntStats, target?: string): void {
    this.#stats.push(stat.dev, stat.ino, stat.mode, stat.uid)
    this.#stats.push(stat.gid, stat.size, stat.mtimeNs, stat.ctimeNs)
    this.#names += target === undefined ? `${name}\0` : `${name}\0${target}\0`
  }

  build(): Snapshot {
    return { stats: BigInt64Array.from(this.#stats), names: this.#names }
  }
}

/** True when `stat` is what the snapshot holds for entry `index`. */
export function isUnmoved(snapshot: Snapshot, index: number, stat: BigIntStats): boolean {
  const { stats } = snapshot
  const at = index * SNAPSHOT_COLUMNS
  return (
    stats[at + 7] === stat.ctimeNs &&
    stats[at + 6] === stat.mtimeNs &&
    stats[at + 5] === stat.size &&
    stats[at + 4] === stat.gid &&
    stats[at + 3] === stat.uid &&
    stats[at + 2] === stat.mode &&
    stats[at + 1] === stat.ino &&
    stats[at] === stat.dev
  )
}

/** `snapshot` with the metadata of entry `index` replaced. */
export function replaceStat(snapshot: Snapshot, index: number, stat: BigIntStats): Snapshot {
  const stats = snapshot.stats.slice()
  const row = [stat.dev, stat.ino, stat.mode, stat.uid, stat.gid, stat.size]
  stats.set([...row, stat.mtimeNs, stat.ctimeNs], index * SNAPSHOT_COLUMNS)
  return { stats, names: snapshot.names }
}

/**
 * The entries in order. Empty when names and metadata do not fit together, as in a damaged ledger: a
 * snapshot of anything has at least its root.
 */
export function readSnapshot(snapshot: Snapshot): SnapshotEntry[] {
  const names = snapshot.names.split('\0')
  const entries: SnapshotEntry[] = []
  let next = 0
  for (let at = MODE_COLUMN; at < snapshot.stats.length; at += SNAPSHOT_COLUMNS) {
    const name = names[next++]
    if (name === undefined) return []
    const format = (snapshot.stats[at] ?? 0n) & FORMAT_MASK
    if (format === SYMLINK) entries.push({ name, kind: 'symlink', target: names[next++] ?? '' })
    else entries.push({ name, kind: format === DIRECTORY ? 'directory' : 'regular' })
  }
  return next === names.length - 1 ? entries : []
}
