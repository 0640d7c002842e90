// The metadata of one store path at the moment its content was found good: for the root and every entry
// below it, in archive order, what changes when content does. Kept flat, because a large system has
// 140,000 entries: eight integers each and the names in one string. The integers are in shared memory, so
// that threads get them without a copy.
import type { BigIntStats } from 'node:fs'

/** See the module's head. Serialisable as it is. */
export interface Snapshot {
  /** {@link SNAPSHOT_COLUMNS} integers per entry: dev, ino, mode, uid, gid, size, mtime ns, ctime ns. */
  readonly stats: BigInt64Array<SharedArrayBuffer>
  /**
   * Each entry's name (`''` for the root, else `/bin/x`; one code unit per byte) and, for a symlink, its
   * target, every one followed by NUL.
   */
  readonly names: string
  /** How many of the entries are regular files. */
  readonly regularFiles: number
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
const CTIME_COLUMN = 7
const SETTLED_NS = 20_000_000n
const FORMAT_MASK = 0o170000n
const REGULAR = 0o100000n
const DIRECTORY = 0o040000n
const SYMLINK = 0o120000n

/** Collects a snapshot entry by entry, in flat buffers: kept objects would cost more than the reading. */
export class SnapshotBuilder {
  #stats = new BigInt64Array(SNAPSHOT_COLUMNS * 64)
  #integers = 0
  #names = Buffer.allocUnsafe(4096)
  #bytes = 0
  #regularFiles = 0

  add(name: string, stat: BigIntStats, target?: string): void {
    if (this.#integers === this.#stats.length) {
      const larger = new BigInt64Array(this.#stats.length * 2)
      larger.set(this.#stats)
      this.#stats = larger
    }
    setStat(this.#stats, this.#integers, stat)
    this.#integers += SNAPSHOT_COLUMNS
    if ((stat.mode & FORMAT_MASK) === REGULAR) this.#regularFiles++
    this.#addString(name)
    if (target !== undefined) this.#addString(target)
  }

  build(): Snapshot {
    return {
      stats: sharedCopy(this.#stats.subarray(0, this.#integers)),
      names: this.#names.toString('latin1', 0, this.#bytes),
      regularFiles: this.#regularFiles,
    }
  }

  #addString(latin1: string): void {
    if (this.#bytes + latin1.length >= this.#names.length) {
      const larger = Buffer.allocUnsafe((this.#names.length + latin1.length) * 2)
      larger.set(this.#names.subarray(0, this.#bytes))
      this.#names = larger
    }
    this.#bytes += this.#names.write(latin1, this.#bytes, 'latin1')
    this.#names[this.#bytes++] = 0
  }
}

/** A copy of `integers` in shared memory. */
function sharedCopy(integers: BigInt64Array): Snapshot['stats'] {
  const copy = new BigInt64Array(new SharedArrayBuffer(integers.byteLength))
  copy.set(integers)
  return copy
}

function setStat(stats: BigInt64Array, at: number, stat: BigIntStats): void {
  stats[at] = stat.dev
  stats[at + 1] = stat.ino
  stats[at + 2] = stat.mode
  stats[at + 3] = stat.uid
  stats[at + 4] = stat.gid
  stats[at + 5] = stat.size
  stats[at + 6] = stat.mtimeNs
  stats[at + 7] = stat.ctimeNs
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

/** Puts a snapshot together again from what was kept of it. */
export function restoreSnapshot(integers: BigInt64Array, names: string): Snapshot {
  let regularFiles = 0
  for (let at = MODE_COLUMN; at < integers.length; at += SNAPSHOT_COLUMNS)
    if (((integers[at] ?? 0n) & FORMAT_MASK) === REGULAR) regularFiles++
  return { stats: sharedCopy(integers), names, regularFiles }
}

/** The entries in order. */
export function readSnapshot({ stats, names }: Snapshot): SnapshotEntry[] {
  const strings = names.split('\0')
  const entries: SnapshotEntry[] = []
  let next = 0
  for (let at = MODE_COLUMN; at < stats.length; at += SNAPSHOT_COLUMNS) {
    const name = strings[next++] ?? ''
    const format = (stats[at] ?? 0n) & FORMAT_MASK
    if (format === SYMLINK) entries.push({ name, kind: 'symlink', target: strings[next++] ?? '' })
    else entries.push({ name, kind: format === DIRECTORY ? 'directory' : 'regular' })
  }
  return entries
}

/** How many entries a snapshot holds. */
export function countEntries({ stats }: Snapshot): number {
  return stats.length / SNAPSHOT_COLUMNS
}

/**
 * Walks the names of a snapshot in order without making an object of each: a pass over 140,000 entries
 * that finds nothing should do little else than ask the kernel.
 */
export class NameCursor {
  /** True when every name is ASCII, so that `node:fs` takes it as it is. */
  readonly ascii: boolean
  readonly #snapshot: Snapshot
  #entry = 0
  #at = 0

  constructor(snapshot: Snapshot) {
    this.#snapshot = snapshot
    this.ascii = Buffer.byteLength(snapshot.names) === snapshot.names.length
  }

  /** Moves on to `entry`, which must not lie behind, and over it; returns its name. */
  nameOf(entry: number): string {
    while (this.#entry < entry) this.#skip()
    const start = this.#at
    this.#skip()
    const { names } = this.#snapshot
    return names.slice(start, names.indexOf('\0', start))
  }

  #skip(): void {
    const { stats, names } = this.#snapshot
    const mode = stats[this.#entry * SNAPSHOT_COLUMNS + MODE_COLUMN] ?? 0n
    this.#at = names.indexOf('\0', this.#at) + 1
    if ((mode & FORMAT_MASK) === SYMLINK) this.#at = names.indexOf('\0', this.#at) + 1
    this.#entry++
  }
}

/**
 * False when something changed so shortly before `atMs` that another change could bear the same ctime:
 * before Linux 6.13 ctime has the resolution of the timer tick, up to 10 ms. (Git calls this racy.)
 */
export function isSettled({ stats }: Snapshot, atMs: number): boolean {
  const at = BigInt(Math.trunc(atMs)) * 1_000_000n
  const [from, to] = [at - SETTLED_NS, at + SETTLED_NS]
  for (let index = CTIME_COLUMN; index < stats.length; index += SNAPSHOT_COLUMNS) {
    const ctime = stats[index] ?? 0n
    if (ctime > from && ctime < to) return false
  }
  return true
}

/** True when both hold the same. */
export function isSameSnapshot(a: Snapshot, b: Snapshot): boolean {
  if (a.names !== b.names || a.stats.length !== b.stats.length) return false
  return Buffer.from(a.stats.buffer).equals(Buffer.from(b.stats.buffer))
}
