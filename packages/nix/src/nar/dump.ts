// Writes the NAR of a file tree, as `nix-store --dump` does. Full verification spends its time here, so it is
// synchronous, over one reused buffer: files are read straight into their place in the archive, and a small file
// costs open, fstat, read and close. The steps are small functions, because a process that starts anew runs them
// before they are compiled, and a large one is compiled again whenever a rare branch in it is taken first.
//
// The tree may change while it is read, by an attacker or by Nix. Every file is opened without following
// links or blocking, judged by the descriptor, and looked at again when it took more than one read; every
// directory is looked at again after its last entry, unless the caller has no use for that. What moved in between
// is STORE_CHANGED, never a wrong archive.
// (A parent directory swapped for a link to elsewhere is not seen here. It does not have to be: the hash
// vouches for the content that was read, and the ledger's device and inode for the place.)
import { closeSync, fstatSync, readSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import {
  changed,
  kindOf,
  openRegular,
  readError,
  readNames,
  readTarget,
  statPath,
  wrongKind,
} from './file-tree.ts'
import type { Kind, TreeEntry } from './file-tree.ts'
import {
  DIRECTORY,
  END,
  ENTRY,
  EXECUTABLE,
  MAGIC,
  NODE,
  NODE_END,
  REGULAR,
  SYMLINK,
} from './tokens.ts'

/**
 * What was found on the way. `name` is the path below the root, `''` or `/bin/x`, and `last` its last component,
 * `''` or `x`, both with one code unit per byte; `stat` was taken before the content was read.
 */
export interface DumpObserver {
  directory?(name: string, stat: BigIntStats, last: string): void
  /** All that is in the directory has come that was named last among those that are open. */
  endDirectory?(): void
  regular?(name: string, stat: BigIntStats, last: string): void
  /**
   * The next bytes of the regular file that was named last, `buffer` from `from` to `to`; once with none if it is
   * empty. The buffer is reused.
   */
  contents?(buffer: Buffer, from: number, to: number): void
  symlink?(name: string, stat: BigIntStats, last: string, target: string): void
}

const CHUNK_BYTES = 1 << 20
// More than the longest run of tokens between two looks at the buffer: a name, a target and their frame.
const HEADROOM_BYTES = 8192
// What ends a file: padding, and the end of its node.
const TAIL_BYTES = 64
const BIGINT = { bigint: true } as const

/** How to read. */
export interface DumpOptions {
  /**
   * Whether to look at directories again after their last entry. Without, what comes into one after it was listed is
   * missed; the `stat` that was observed is older, and shows it to whoever looks later. Default true.
   */
  readonly lookAgain?: boolean
}

/** A directory that is open: its entries from `next` on are to come. */
interface Frame {
  readonly name: string
  readonly stat: BigIntStats
  readonly names: readonly TreeEntry[]
  next: number
}

/** A file that did not fit into the buffer, and how much of it is to come. */
interface OpenFile {
  readonly name: string
  readonly fd: number
  readonly stat: BigIntStats
  left: number
}

/**
 * Yields the archive of `root`, a path with one code unit per byte, in pieces of 1 MiB and a little. Each piece is
 * valid until the next is asked for, the last until another archive is begun.
 *
 * @throws {NixError} STORE_MISSING – nothing at `root`; STORE_TYPE – a socket, device or pipe;
 * STORE_CHANGED – the tree moved while it was read; STORE_READ – the system refused.
 */
export function* dumpNar(
  root: string,
  observer: DumpObserver = {},
  options: DumpOptions = {},
): Generator<Uint8Array, void> {
  const dump = new Dump(root, observer, options)
  try {
    dump.begin()
    for (let piece = dump.next(); piece !== undefined; piece = dump.next()) yield piece
  } finally {
    dump.close()
  }
}

// The buffer of the last archive, unless one is under way. A closure has thousands of small paths, and a buffer for
// each would be most of what reading them takes.
let spare: Buffer | undefined

/** An archive under way. */
class Dump {
  readonly #root: string
  readonly #observer: DumpObserver
  readonly #lookAgain: boolean
  readonly #buffer: Buffer
  readonly #words: Int32Array
  /** How much of the buffer is filled; a multiple of 8 but while a string or a file is written. */
  #end = 0
  readonly #frames: Frame[] = []
  #file: OpenFile | undefined

  constructor(root: string, observer: DumpObserver, { lookAgain = true }: DumpOptions) {
    this.#root = root
    this.#observer = observer
    this.#lookAgain = lookAgain
    this.#buffer = spare ?? Buffer.allocUnsafeSlow(CHUNK_BYTES + HEADROOM_BYTES)
    this.#words = new Int32Array(this.#buffer.buffer)
    spare = undefined
  }

  /** To be called once, before {@link next}. */
  begin(): void {
    this.#put(MAGIC)
    this.#object('', '', kindOf(statPath(this.#root, '', 'STORE_MISSING')))
  }

  /** The next piece; `undefined` after the last. */
  next(): Uint8Array | undefined {
    // Never in the middle of a word, where a read that brought less than was asked for may have left a file.
    while ((this.#end < CHUNK_BYTES || (this.#end & 7) !== 0) && this.#step());
    const piece = this.#buffer.subarray(0, this.#end)
    this.#end = 0
    return piece.length === 0 ? undefined : piece
  }

  /** Closes what is open; to be called once, at the end or when no more is wanted. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file.fd)
    spare = this.#buffer
  }

  /** Adds the next little to the buffer; false when there is no more. */
  #step(): boolean {
    if (this.#file !== undefined) {
      this.#continueFile(this.#file)
      return true
    }
    const frame = this.#frames.at(-1)
    if (frame === undefined) return false
    const entry = frame.names[frame.next++]
    if (entry === undefined) {
      this.#endDirectory(frame)
    } else {
      this.#put(ENTRY)
      this.#putString(entry.name)
      this.#put(NODE)
      this.#object(`${frame.name}/${entry.name}`, entry.name, entry.kind)
    }
    return true
  }

  #object(name: string, last: string, kind: Kind): void {
    if (kind === 'regular') this.#beginFile(name, last)
    else if (kind === 'directory') this.#directory(name, last)
    else if (kind === 'symlink') this.#symlink(name, last)
    else throw wrongKind(this.#root, name)
  }

  #directory(name: string, last: string): void {
    const stat = statPath(this.#root, name)
    if (kindOf(stat) !== 'directory') throw changed(this.#root, name)
    this.#observer.directory?.(name, stat, last)
    this.#put(DIRECTORY)
    this.#frames.push({ name, stat, names: readNames(this.#root, name), next: 0 })
  }

  #endDirectory({ name, stat }: Frame): void {
    if (this.#lookAgain && moved(stat, statPath(this.#root, name))) throw changed(this.#root, name)
    this.#frames.pop()
    this.#observer.endDirectory?.()
    this.#endNode()
  }

  #symlink(name: string, last: string): void {
    const stat = statPath(this.#root, name)
    if (kindOf(stat) !== 'symlink') throw changed(this.#root, name)
    const target = readTarget(this.#root, name)
    this.#observer.symlink?.(name, stat, last, target)
    this.#put(SYMLINK)
    this.#putString(target)
    this.#endNode()
  }

  #beginFile(name: string, last: string): void {
    const fd = openRegular(this.#root, name)
    let left = 0
    try {
      const stat = fstatSync(fd, BIGINT)
      if (kindOf(stat) !== 'regular') throw changed(this.#root, name)
      this.#observer.regular?.(name, stat, last)
      this.#put((Number(stat.mode) & 0o100) === 0 ? REGULAR : EXECUTABLE)
      const size = Number(stat.size)
      this.#putNumber(size)
      left = this.#read(fd, name, size)
      if (left > 0) this.#file = { name, fd, stat, left }
      else this.#endFile(size)
    } catch (cause) {
      throw readError(this.#root, name, cause)
    } finally {
      if (this.#file === undefined) closeSync(fd)
    }
  }

  #continueFile(file: OpenFile): void {
    const { name, fd, stat } = file
    try {
      file.left = this.#read(fd, name, file.left)
      if (file.left > 0) return
      if (moved(stat, fstatSync(fd, BIGINT))) throw changed(this.#root, name)
    } catch (cause) {
      throw readError(this.#root, name, cause)
    }
    closeSync(fd)
    this.#file = undefined
    this.#endFile(Number(stat.size))
  }

  /** Reads as much as there is room for of what is `left`; returns what is left then. */
  #read(fd: number, name: string, left: number): number {
    const room = this.#buffer.length - TAIL_BYTES - this.#end
    // One byte more than is due: a file that grew shows itself.
    const count = readSync(fd, this.#buffer, this.#end, Math.min(left + 1, room), null)
    if (count > left || (count === 0 && left > 0)) throw changed(this.#root, name)
    this.#observer.contents?.(this.#buffer, this.#end, this.#end + count)
    this.#end += count
    return left - count
  }

  #endFile(size: number): void {
    this.#pad(size)
    this.#endNode()
  }

  #endNode(): void {
    this.#put(this.#frames.length > 0 ? NODE_END : END)
  }

  #put(token: Int32Array): void {
    const at = this.#end / 4
    for (let index = 0; index < token.length; index++) this.#words[at + index] = token[index] ?? 0
    this.#end += token.byteLength
  }

  #putNumber(value: number): void {
    const high = Math.floor(value / 2 ** 32)
    for (let byte = 0; byte < 4; byte++) {
      this.#buffer[this.#end + byte] = value >>> (byte * 8)
      this.#buffer[this.#end + 4 + byte] = high >>> (byte * 8)
    }
    this.#end += 8
  }

  #putString(latin1: string): void {
    this.#putNumber(latin1.length)
    for (let index = 0; index < latin1.length; index++)
      this.#buffer[this.#end++] = latin1.charCodeAt(index)
    this.#pad(latin1.length)
  }

  #pad(length: number): void {
    for (let left = (8 - (length & 7)) & 7; left > 0; left--) this.#buffer[this.#end++] = 0
  }
}

/** True when a file or directory is not what it was at the first look. */
function moved(before: BigIntStats, after: BigIntStats): boolean {
  return (
    before.ctimeNs !== after.ctimeNs ||
    before.mtimeNs !== after.mtimeNs ||
    before.size !== after.size ||
    before.ino !== after.ino ||
    before.dev !== after.dev
  )
}
