// The metadata of one store path at the moment its content was found good: for the root and every entry
// below it, in archive order, what changes when content does. Kept flat, because a large system has
// 140,000 entries: five integers each and the names in one string. The integers are in shared memory, so
// that threads get them without a copy. Owner, group and mtime are not among them: to change one moves ctime.
import type { BigIntStats } from 'node:fs'
import { endianness } from 'node:os'

/** See the module's head. Serialisable as it is. */
export interface Snapshot {
  /** {@link SNAPSHOT_COLUMNS} integers per entry: device, inode, mode, size, ctime in ns. */
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
  /** In bytes, as the file system counts. */
  readonly size: number
  readonly executable: boolean
}

/** Integers per entry of {@link Snapshot.stats}. */
export const SNAPSHOT_COLUMNS = 5

const MODE_COLUMN = 2
const SIZE_COLUMN = 3
const CTIME_COLUMN = 4
const SETTLED_NS = 20_000_000n
const FORMAT_MASK = 0o170000
const REGULAR = 0o100000
const DIRECTORY = 0o040000
const SYMLINK = 0o120000
const OWNER_EXECUTES = 0o100
const LOW_WORD = endianness() === 'LE' ? 0 : 1

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
    if (stat.isFile()) this.#regularFiles++
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

/** Writes what `stat` says at `at`. */
export function setStat(stats: BigInt64Array, at: number, stat: BigIntStats): void {
  stats[at] = stat.dev
  stats[at + 1] = stat.ino
  stats[at + MODE_COLUMN] = stat.mode
  stats[at + SIZE_COLUMN] = stat.size
  stats[at + CTIME_COLUMN] = stat.ctimeNs
}

/** True when `stat` is what the snapshot holds for entry `index`. */
export function isUnmoved(snapshot: Snapshot, index: number, stat: BigIntStats): boolean {
  const { stats } = snapshot
  const at = index * SNAPSHOT_COLUMNS
  return (
    stats[at + CTIME_COLUMN] === stat.ctimeNs &&
    stats[at + SIZE_COLUMN] === stat.size &&
    stats[at + MODE_COLUMN] === stat.mode &&
    stats[at + 1] === stat.ino &&
    stats[at] === stat.dev
  )
}

/** Puts a snapshot together again from what was kept of it; `bytes` are those of its integers. */
export function restoreSnapshot(bytes: Uint8Array, names: string): Snapshot {
  const shared = new SharedArrayBuffer(bytes.length)
  new Uint8Array(shared).set(bytes)
  const modes = new Modes(shared)
  let regularFiles = 0
  for (let index = 0; index < modes.count; index++)
    if ((modes.of(index) & FORMAT_MASK) === REGULAR) regularFiles++
  return { stats: new BigInt64Array(shared), names, regularFiles }
}

/** The modes of a snapshot's entries as plain numbers: a bigint each would cost as much as the look. */
class Modes {
  readonly count: number
  readonly #words: Int32Array

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer)
    this.count = this.#words.length / (2 * SNAPSHOT_COLUMNS)
  }

  of(index: number): number {
    return this.#words[(index * SNAPSHOT_COLUMNS + MODE_COLUMN) * 2 + LOW_WORD] ?? 0
  }
}

/** The entries in order. */
export function readSnapshot({ stats, names }: Snapshot): SnapshotEntry[] {
  const strings = names.split('\0')
  const entries: SnapshotEntry[] = []
  let next = 0
  const modes = new Modes(stats.buffer)
  for (let index = 0; index < modes.count; index++) {
    const name = strings[next++] ?? ''
    const mode = modes.of(index)
    const size = Number(stats[index * SNAPSHOT_COLUMNS + SIZE_COLUMN])
    const executable = (mode & OWNER_EXECUTES) !== 0
    const format = mode & FORMAT_MASK
    if (format === SYMLINK)
      entries.push({ name, kind: 'symlink', target: strings[next++] ?? '', size, executable })
    else
      entries.push({ name, kind: format === DIRECTORY ? 'directory' : 'regular', size, executable })
  }
  return entries
}

/** Where entry `index` lies and how large it is. */
export function placeOf(
  { stats }: Snapshot,
  index: number,
): { device: bigint; inode: bigint; sizeBytes: number } {
  const at = index * SNAPSHOT_COLUMNS
  return {
    device: stats[at] ?? 0n,
    inode: stats[at + 1] ?? 0n,
    sizeBytes: Number(stats[at + SIZE_COLUMN]),
  }
}

/** `snapshot` with the entries at `indexes` as they are now; `stats` holds their integers in that order. */
export function renewSnapshot(
  snapshot: Snapshot,
  indexes: Uint32Array,
  stats: BigInt64Array,
): Snapshot {
  const renewed = sharedCopy(snapshot.stats)
  for (const [position, index] of indexes.entries()) {
    const from = position * SNAPSHOT_COLUMNS
    renewed.set(stats.subarray(from, from + SNAPSHOT_COLUMNS), index * SNAPSHOT_COLUMNS)
  }
  return { ...snapshot, stats: renewed }
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
  readonly #names: string
  readonly #modes: Modes
  #entry = 0
  #at = 0

  constructor(snapshot: Snapshot) {
    this.#names = snapshot.names
    this.#modes = new Modes(snapshot.stats.buffer)
    this.ascii = Buffer.byteLength(snapshot.names) === snapshot.names.length
  }

  /** Moves on to `entry`, which must not lie behind, and over it; returns its name. */
  nameOf(entry: number): string {
    while (this.#entry < entry) this.#skip()
    const start = this.#at
    return this.#names.slice(start, this.#skip())
  }

  /** Moves over one entry; returns where its name ends. */
  #skip(): number {
    const end = this.#names.indexOf('\0', this.#at)
    const symlink = (this.#modes.of(this.#entry++) & FORMAT_MASK) === SYMLINK
    this.#at = (symlink ? this.#names.indexOf('\0', end + 1) : end) + 1
    return end
  }
}

/**
 * False when something changed so shortly before it was looked at, at some time between `beganMs` and
 * `endedMs`, that another change could bear the same ctime: before Linux 6.13 ctime has the resolution of
 * the timer tick, up to 10 ms. (Git calls this racy.)
 */
export function isSettled({ stats }: Snapshot, beganMs: number, endedMs: number): boolean {
  const from = BigInt(Math.trunc(beganMs)) * 1_000_000n - SETTLED_NS
  const to = BigInt(Math.ceil(endedMs)) * 1_000_000n + SETTLED_NS
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
