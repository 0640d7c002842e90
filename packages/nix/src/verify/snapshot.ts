// The metadata of one store path at the moment its content was found good: for the root and every entry
// below it, in archive order, what changes when content does. Kept flat, because a large system has
// 140,000 entries: five integers each and the names in one run of bytes, both in shared memory, so that threads
// get them without a copy. Owner, group and mtime are not among them: to change one moves ctime.
import { isAscii } from 'node:buffer'
import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { endianness } from 'node:os'

/** See the module's head. Each array fills its memory, and crosses to a thread as it is. */
export interface Snapshot {
  /** {@link SNAPSHOT_COLUMNS} integers per entry: device, inode, mode, size, ctime in ns. */
  readonly stats: BigInt64Array<SharedArrayBuffer>
  /**
   * Of each entry the last component of its name (none for the root) and, for a symlink, its target; after the
   * last entry of a directory nothing; every one followed by NUL.
   */
  readonly names: Uint8Array<SharedArrayBuffer>
  /** The sha256 of both, hex: two snapshots are the same when it is, and a stored one is what was stored. */
  readonly digest: string
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
  #names = new Uint8Array(4096)
  #bytes = 0
  #regularFiles = 0

  /** The next entry; what is in a directory comes between it and {@link endDirectory}. */
  add(lastComponent: string, stat: BigIntStats, target?: string): void {
    if (this.#integers === this.#stats.length) {
      const larger = new BigInt64Array(this.#stats.length * 2)
      larger.set(this.#stats)
      this.#stats = larger
    }
    setStat(this.#stats, this.#integers, stat)
    this.#integers += SNAPSHOT_COLUMNS
    if ((Number(stat.mode) & FORMAT_MASK) === REGULAR) this.#regularFiles++
    this.#addString(lastComponent)
    if (target !== undefined) this.#addString(target)
  }

  endDirectory(): void {
    this.#addString('')
  }

  build(): Snapshot {
    const stats = sharedCopy(this.#stats.subarray(0, this.#integers))
    const names = sharedBytes(this.#names.subarray(0, this.#bytes))
    return { stats, names, digest: digestOf(stats, names), regularFiles: this.#regularFiles }
  }

  #addString(latin1: string): void {
    if (this.#bytes + latin1.length >= this.#names.length) {
      const larger = new Uint8Array((this.#names.length + latin1.length) * 2)
      larger.set(this.#names.subarray(0, this.#bytes))
      this.#names = larger
    }
    for (let index = 0; index < latin1.length; index++)
      this.#names[this.#bytes++] = latin1.charCodeAt(index)
    this.#names[this.#bytes++] = 0
  }
}

/** A copy of `integers` in shared memory. */
function sharedCopy(integers: BigInt64Array): Snapshot['stats'] {
  const copy = new BigInt64Array(new SharedArrayBuffer(integers.byteLength))
  copy.set(integers)
  return copy
}

function sharedBytes(bytes: Uint8Array): Snapshot['names'] {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length))
  copy.set(bytes)
  return copy
}

function digestOf(stats: Snapshot['stats'], names: Uint8Array): string {
  const hash = createHash('sha256').update(`${stats.byteLength}\n`)
  return hash.update(new Uint8Array(stats.buffer)).update(names).digest('hex')
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

/** Puts a snapshot together again from what was kept of it: the bytes of its integers, and its names. */
export function restoreSnapshot(integers: Uint8Array, nameBytes: Uint8Array): Snapshot {
  const stats = new BigInt64Array(sharedBytes(integers).buffer)
  const names = sharedBytes(nameBytes)
  const modes = new Modes(stats.buffer)
  let regularFiles = 0
  for (let index = 0; index < modes.count; index++)
    if ((modes.of(index) & FORMAT_MASK) === REGULAR) regularFiles++
  return { stats, names, digest: digestOf(stats, names), regularFiles }
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
export function readSnapshot(snapshot: Snapshot): SnapshotEntry[] {
  const { stats } = snapshot
  const entries: SnapshotEntry[] = []
  const modes = new Modes(stats.buffer)
  const names = new NameCursor(snapshot, '')
  for (let index = 0; index < modes.count; index++) {
    const name = names.nameOf(index)
    const mode = modes.of(index)
    const size = Number(stats[index * SNAPSHOT_COLUMNS + SIZE_COLUMN])
    const executable = (mode & OWNER_EXECUTES) !== 0
    const format = mode & FORMAT_MASK
    if (format === SYMLINK)
      entries.push({ name, kind: 'symlink', target: names.target, size, executable })
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
  return { ...snapshot, stats: renewed, digest: digestOf(renewed, snapshot.names) }
}

/** How many entries a snapshot holds. */
export function countEntries({ stats }: Snapshot): number {
  return stats.length / SNAPSHOT_COLUMNS
}

/**
 * Walks the names of a snapshot in order, each below `root`, which may be empty. Makes no object of an entry: a
 * pass over 140,000 of them that finds nothing should do little else than ask the kernel.
 */
export class NameCursor {
  /** True when every name is ASCII, so that `node:fs` takes it as it is. */
  readonly ascii: boolean
  /** Of the symlink that was named last. */
  target = ''
  readonly #names: string
  readonly #modes: Modes
  /** The directories around the next entry, outermost first, each with `/` at its end. */
  readonly #around: string[] = []
  #directory: string
  #entry = 0
  #at = 0

  constructor({ names, stats }: Snapshot, root: string) {
    this.#names = Buffer.from(names.buffer).toString('latin1')
    this.#modes = new Modes(stats.buffer)
    this.#directory = root
    this.ascii = isAscii(names)
  }

  /** Moves on to `entry`, which must not lie behind, and over it; returns its name. */
  nameOf(entry: number): string {
    while (this.#entry < entry) this.#next()
    return this.#next()
  }

  #next(): string {
    let end = this.#names.indexOf('\0', this.#at)
    // An empty string, but the root's name, ends a directory.
    for (; end === this.#at && this.#entry > 0; end = this.#names.indexOf('\0', this.#at)) {
      this.#directory = this.#around.pop() ?? ''
      this.#at++
    }
    const name = this.#directory + this.#names.slice(this.#at, end)
    this.#at = end + 1
    const format = this.#modes.of(this.#entry++) & FORMAT_MASK
    if (format === DIRECTORY) {
      this.#around.push(this.#directory)
      this.#directory = `${name}/`
    } else if (format === SYMLINK) {
      end = this.#names.indexOf('\0', this.#at)
      this.target = this.#names.slice(this.#at, end)
      this.#at = end + 1
    }
    return name
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
