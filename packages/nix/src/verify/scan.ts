// Reads one store path completely: its NAR hash, the metadata a ledger needs, what is not as Nix leaves
// it, and on request the sha256 of each file.
import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { NixError } from '../error.ts'
import { fromLatin1 } from '../file-name.ts'
import { narHashFromDigest } from '../hash.ts'
import type { NarHash } from '../hash.ts'
import { dumpNar } from '../nar/dump.ts'
import type { DumpObserver } from '../nar/dump.ts'
import type { StorePath } from '../store-path.ts'
import { findDeviations, isAsNixLeavesIt } from './deviations.ts'
import type { Deviation } from './deviations.ts'
import { FileHashes } from './file-hashes.ts'
import { SnapshotBuilder } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/** What to read; crosses to a worker thread. */
export interface ScanRequest {
  readonly scan: StorePath
  /** Also hash every file on its own, which costs a second sha256 per byte. */
  readonly hashFiles: boolean
  /** The uid that owns the store. */
  readonly owner: number
}

/** What was read; crosses back. */
export interface PathScan {
  readonly path: StorePath
  readonly narHash: NarHash
  readonly narSize: number
  readonly snapshot: Snapshot
  readonly deviations: readonly Deviation[]
  /** Regular files with several names: pairs of the index in the snapshot and the number of names. */
  readonly linked: Uint32Array
  /** The sha256 of each regular file, in order; undefined unless asked for. */
  readonly fileHashes: Uint8Array | undefined
}

// Nix replaces files by hard links (`nix-store --optimise`) and deletes such links while it collects
// garbage; either moves the metadata of a file that we may just be reading.
const ATTEMPTS = 3

/**
 * Reads `request.scan`; yields after each piece of about 1 MiB.
 *
 * @throws {NixError} STORE_MISSING, STORE_TYPE, STORE_READ; STORE_CHANGED – at every attempt
 */
export function* scanPath(request: ScanRequest): Generator<void, PathScan> {
  for (let attempt = 1; ; attempt++) {
    try {
      return yield* scanOnce(request)
    } catch (error) {
      const changed = error instanceof NixError && error.code === 'STORE_CHANGED'
      if (!changed || attempt === ATTEMPTS) throw error
    }
  }
}

function* scanOnce(request: ScanRequest): Generator<void, PathScan> {
  const { scan: path } = request
  const hash = createHash('sha256')
  const observer = new ScanObserver(request)
  let narSize = 0
  // A name that comes into a directory after it was listed came after it was read. The snapshot has the directory as
  // it was before, so that with a ledger the next pass sees it moved.
  for (const chunk of dumpNar(path, observer, { lookAgain: false })) {
    hash.update(chunk)
    narSize += chunk.length
    yield
  }
  return { path, narHash: narHashFromDigest(hash.digest()), narSize, ...observer.build() }
}

/** Notes what is beside the archive. A class, so that the code which calls it is compiled once for all paths. */
class ScanObserver implements DumpObserver {
  readonly #path: StorePath
  readonly #owner: number
  readonly #snapshot = new SnapshotBuilder()
  readonly #fileHashes: FileHashes | undefined
  readonly #deviations: Deviation[] = []
  readonly #linked: number[] = []
  #entries = 0

  constructor({ scan, hashFiles, owner }: ScanRequest) {
    this.#path = scan
    this.#owner = owner
    this.#fileHashes = hashFiles ? new FileHashes() : undefined
  }

  directory(name: string, stat: BigIntStats, last: string): void {
    this.#note(name, stat, last)
  }

  endDirectory(): void {
    this.#snapshot.endDirectory()
  }

  symlink(name: string, stat: BigIntStats, last: string, target: string): void {
    this.#note(name, stat, last, target)
  }

  regular(name: string, stat: BigIntStats, last: string): void {
    if (stat.nlink > 1n) this.#linked.push(this.#entries, Number(stat.nlink))
    this.#note(name, stat, last)
    this.#fileHashes?.begin(Number(stat.size))
  }

  contents(buffer: Buffer, from: number, to: number): void {
    this.#fileHashes?.add(buffer.subarray(from, to))
  }

  build(): Pick<PathScan, 'snapshot' | 'deviations' | 'linked' | 'fileHashes'> {
    return {
      snapshot: this.#snapshot.build(),
      deviations: this.#deviations,
      linked: Uint32Array.from(this.#linked),
      fileHashes: this.#fileHashes?.build(),
    }
  }

  #note(name: string, stat: BigIntStats, last: string, target?: string): void {
    this.#snapshot.add(last, stat, target)
    this.#entries++
    if (isAsNixLeavesIt(stat, this.#owner)) return
    this.#deviations.push(...findDeviations(this.#path + fromLatin1(name), stat, this.#owner))
  }
}
