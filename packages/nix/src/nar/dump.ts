// Writes the NAR of a file tree, as `nix-store --dump` does. This is the loop that full verification
// spends its time in, so it is one synchronous generator over one reused buffer: files are read straight
// into their place in the archive, and a small file costs open, fstat, read and close.
//
// The tree may change while it is read, by an attacker or by Nix. Every file is opened without following
// links or blocking, judged by the descriptor, and looked at again when it took more than one read; every
// directory is looked at again after its last entry. What moved in between is STORE_CHANGED, never a wrong
// archive.
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
import type { TreeEntry } from './file-tree.ts'
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
 * What was found on the way. `name` is the path below the root, `''` or `/bin/x`, one code unit per byte;
 * `stat` was taken before the content was read.
 */
export interface DumpObserver {
  directory?(name: string, stat: BigIntStats): void
  regular?(name: string, stat: BigIntStats): void
  /** The next bytes of the regular file that was named last, once with none if it is empty; the buffer is reused. */
  contents?(bytes: Uint8Array): void
  symlink?(name: string, stat: BigIntStats, target: string): void
}

const CHUNK_BYTES = 1 << 20
// More than the longest run of tokens between two looks at the buffer: a name, a target and their frame.
const HEADROOM_BYTES = 8192
const BIGINT = { bigint: true } as const

interface Frame {
  readonly name: string
  readonly stat: BigIntStats
  readonly names: readonly TreeEntry[]
  next: number
}

/**
 * Yields the archive of `root`, a path with one code unit per byte, in pieces of up to 1 MiB. Each piece is valid until the next is asked for.
 *
 * @throws {NixError} STORE_MISSING – nothing at `root`; STORE_TYPE – a socket, device or pipe;
 * STORE_CHANGED – the tree moved while it was read; STORE_READ – the system refused.
 */
export function* dumpNar(root: string, observer: DumpObserver = {}): Generator<Uint8Array, void> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES + HEADROOM_BYTES)
  let end = 0
  const put = (bytes: Buffer): void => {
    buffer.set(bytes, end)
    end += bytes.length
  }
  const putNumber = (value: number): void => {
    end = buffer.writeUInt32LE(value % 2 ** 32, end)
    end = buffer.writeUInt32LE(Math.floor(value / 2 ** 32), end)
  }
  const putString = (latin1: string): void => {
    putNumber(latin1.length)
    end += buffer.write(latin1, end, 'latin1')
    for (let left = -latin1.length & 7; left > 0; left--) buffer[end++] = 0
  }

  put(MAGIC)
  const frames: Frame[] = []
  let name = ''
  let kind = kindOf(statPath(root, '', 'STORE_MISSING'))
  for (;;) {
    // One object, `name`, of which only the kind is known.
    if (kind === 'directory') {
      const stat = statPath(root, name)
      if (!stat.isDirectory()) throw changed(root, name)
      observer.directory?.(name, stat)
      put(DIRECTORY)
      frames.push({ name, stat, names: readNames(root, name), next: 0 })
    } else if (kind === 'symlink') {
      const stat = statPath(root, name)
      const target = readTarget(root, name)
      observer.symlink?.(name, stat, target)
      put(SYMLINK)
      putString(target)
      put(frames.length > 0 ? NODE_END : END)
    } else if (kind === 'regular') {
      const fd = openRegular(root, name)
      try {
        const stat = fstatSync(fd, BIGINT)
        if (!stat.isFile()) throw changed(root, name)
        observer.regular?.(name, stat)
        put((stat.mode & 0o100n) === 0n ? REGULAR : EXECUTABLE)
        const size = Number(stat.size)
        putNumber(size)
        let left = size
        let reads = 0
        do {
          if (end >= CHUNK_BYTES) {
            yield buffer.subarray(0, end)
            end = 0
          }
          // One byte more than is due: a file that grew shows itself.
          const count = readSync(fd, buffer, end, Math.min(left + 1, buffer.length - end), null)
          if (count > left || (count === 0 && left > 0)) throw changed(root, name)
          reads++
          observer.contents?.(buffer.subarray(end, end + count))
          end += count
          left -= count
        } while (left > 0)
        if (reads > 1 && moved(stat, fstatSync(fd, BIGINT))) throw changed(root, name)
        if (end >= CHUNK_BYTES) {
          yield buffer.subarray(0, end)
          end = 0
        }
        for (let pad = (8 - (size % 8)) % 8; pad > 0; pad--) buffer[end++] = 0
      } catch (cause) {
        throw readError(root, name, cause)
      } finally {
        closeSync(fd)
      }
      put(frames.length > 0 ? NODE_END : END)
    } else {
      throw wrongKind(root, name)
    }

    // Close what is complete, then take the next entry.
    let frame = frames.at(-1)
    while (frame !== undefined && frame.next === frame.names.length) {
      if (moved(frame.stat, statPath(root, frame.name))) throw changed(root, frame.name)
      frames.pop()
      put(END)
      frame = frames.at(-1)
      if (frame !== undefined) put(END)
      if (end >= CHUNK_BYTES) {
        yield buffer.subarray(0, end)
        end = 0
      }
    }
    if (frame === undefined) break
    if (end >= CHUNK_BYTES) {
      yield buffer.subarray(0, end)
      end = 0
    }
    const entry = frame.names[frame.next++] as TreeEntry // next < length, above
    put(ENTRY)
    putString(entry.name)
    put(NODE)
    name = `${frame.name}/${entry.name}`
    kind = entry.kind
  }
  if (end > 0) yield buffer.subarray(0, end)
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
