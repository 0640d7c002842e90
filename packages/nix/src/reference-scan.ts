// Which files of a store path hold a reference: where the 32 characters of the other path's hash occur, as
// when Nix itself scans a build's output, that is, in the contents of files, in the targets of symlinks and in
// names. References that are compressed or written in UTF-16 are not seen, by Nix neither.
//
// Memory is one buffer, whatever the size of files. A hash that lies across two reads is found, because the
// last 31 bytes of each stay in front of the next.
import { constants } from 'node:fs'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { NixError, quote } from './error.ts'
import { fromLatin1, fsPath } from './file-name.ts'
import { storePathBase } from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** A file that holds a reference. */
export interface ReferenceHolder {
  /** Relative to the store path; `''` is the store path itself. */
  readonly file: string
  /** Where in it: in its contents, in the target of a symlink, or in its own name. */
  readonly in: 'contents' | 'target' | 'name'
  /** Of the hash, in bytes from the start of the contents, target or name. The first only. */
  readonly offset: number
}

/** What {@link findReferenceHolders} found for one reference. */
export interface HoldersOfReference {
  /** In the order of an archive: by directory, names in byte order. */
  readonly holders: readonly ReferenceHolder[]
  /** False when there are more. */
  readonly complete: boolean
}

/** How {@link findReferenceHolders} reads. */
export interface ReferenceScanOptions {
  /** Most holders that are returned for each reference; default 100. */
  readonly maxHolders?: number
  /** Where the content of the store path is, if not at the path itself. */
  readonly location?: string
  readonly signal?: AbortSignal
}

const HASH_LENGTH = 32
const CHUNK_BYTES = 1 << 20
const OVERLAP = HASH_LENGTH - 1
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/**
 * Finds the files of `path` that refer to each of `references`.
 *
 * @throws {NixError} STORE_MISSING – nothing at `path`; STORE_READ – the system refused.
 */
export async function findReferenceHolders(
  path: StorePath,
  references: readonly StorePath[],
  { maxHolders = 100, location = path, signal }: ReferenceScanOptions = {},
): Promise<ReadonlyMap<StorePath, HoldersOfReference>> {
  const needles = references.map((reference) => {
    const hash = Buffer.from(storePathBase(reference).slice(0, HASH_LENGTH), 'latin1')
    return { reference, hash, holders: [] as ReferenceHolder[], complete: true }
  })
  const buffer = Buffer.allocUnsafe(OVERLAP + CHUNK_BYTES)
  const scan = (file: string, where: ReferenceHolder['in'], bytes: Buffer, start: number): void => {
    for (const needle of needles) {
      const at = bytes.indexOf(needle.hash)
      if (at < 0) continue
      const last = needle.holders.at(-1)
      if (last?.file === file && last.in === where) continue // found in an earlier chunk
      if (needle.holders.length < maxHolders)
        needle.holders.push({ file: fromLatin1(file), in: where, offset: start + at })
      else needle.complete = false
    }
  }

  // Names are bytes (latin1 strings) until they are reported. Depth first, in byte order.
  const pending = ['']
  for (let file = pending.pop(); file !== undefined; file = pending.pop()) {
    signal?.throwIfAborted()
    const place = fsPath(Buffer.from(location).toString('latin1') + (file === '' ? '' : `/${file}`))
    try {
      scan(file, 'name', Buffer.from(file.slice(file.lastIndexOf('/') + 1), 'latin1'), 0)
      const stat = await lstat(place)
      if (stat.isSymbolicLink()) scan(file, 'target', await readlink(place, 'buffer'), 0)
      else if (stat.isDirectory()) {
        const names = await readdir(place, 'latin1')
        const below = names.map((name) => (file === '' ? name : `${file}/${name}`))
        // One by one: a directory may hold more than a call takes arguments.
        for (const one of below.sort((a, b) => (a < b ? 1 : -1))) pending.push(one)
      } else if (stat.isFile()) await scanContents(file, place)
    } catch (cause) {
      throw readError(path, file, cause)
    }
  }
  return new Map(
    needles.map(({ reference, holders, complete }) => [reference, { holders, complete }]),
  )

  async function scanContents(file: string, place: string | Buffer): Promise<void> {
    await using handle = await open(place, OPEN_FLAGS)
    let kept = 0
    let offset = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, kept, CHUNK_BYTES, null)
      if (bytesRead === 0) return
      const end = kept + bytesRead
      scan(file, 'contents', buffer.subarray(0, end), offset)
      const keep = Math.min(OVERLAP, end)
      buffer.copy(buffer, 0, end - keep, end)
      offset += end - keep
      kept = keep
      signal?.throwIfAborted()
    }
  }
}

function readError(path: StorePath, file: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException
  if (cause instanceof NixError || code === undefined || (cause as Error).name === 'AbortError')
    return cause
  const where = `${path}${file === '' ? '' : `/${fromLatin1(file)}`}`
  const missing = file === '' && (code === 'ENOENT' || code === 'ENOTDIR')
  return new NixError(
    missing ? 'STORE_MISSING' : 'STORE_READ',
    `expected to read ${quote(where)}: ${code}`,
    { cause, detail: { path, file: where } },
  )
}
