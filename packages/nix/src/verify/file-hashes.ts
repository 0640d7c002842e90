// The sha256 of every regular file of a store path, 32 bytes each, in the order of the archive. They follow
// from the NAR: two trees with one NAR hash have the same ones, whatever their metadata. So they are computed
// once, in the first full pass that a ledger sees, where they cost a second hash of every byte; a later full
// pass that finds the same NAR hash has proven them again.
import { createHash, hash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { fromLatin1 } from '../file-name.ts'
import type { ListedFile } from '../file-list.ts'
import type { Sha256 } from '../hash.ts'
import type { StorePath } from '../store-path.ts'
import { readSnapshot } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/** Bytes of one hash. */
export const FILE_HASH_BYTES = 32

/** Takes the bytes of file after file. */
export class FileHashes {
  readonly #hashes: Buffer[] = []
  #rest: Hash | undefined
  #left = 0

  /** The next file, of `size` bytes. */
  begin(size: number): void {
    this.#left = size
    this.#rest = undefined
  }

  /** The next bytes of it; for an empty file, none. */
  add(bytes: Uint8Array): void {
    if (this.#rest === undefined && bytes.length === this.#left) {
      this.#hashes.push(hash('sha256', bytes, 'buffer')) // most files come in one piece
      return
    }
    this.#rest ??= createHash('sha256')
    this.#rest.update(bytes)
    this.#left -= bytes.length
    if (this.#left === 0) this.#hashes.push(this.#rest.digest())
  }

  build(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#hashes))
  }
}

/** True when `fileHashes` has one for each regular file of `snapshot`. */
export function hasFileHashes(
  { regularFiles }: Snapshot,
  fileHashes: Uint8Array | undefined,
): fileHashes is Uint8Array {
  return fileHashes?.length === regularFiles * FILE_HASH_BYTES
}

/** The regular files of a store path as a file list holds them. */
export function listFiles(
  path: StorePath,
  snapshot: Snapshot,
  fileHashes: Uint8Array,
): ListedFile[] {
  const hex = Buffer.from(fileHashes).toString('hex')
  return readSnapshot(snapshot)
    .filter(({ kind }) => kind === 'regular')
    .map(({ name, size, executable }, index) => ({
      path: path + fromLatin1(name),
      sha256: hex.slice(index * 64, index * 64 + 64) as Sha256,
      size,
      executable,
    }))
}
