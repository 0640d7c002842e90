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

function* scanOnce({ scan: path, hashFiles, owner }: ScanRequest): Generator<void, PathScan> {
  const hash = createHash('sha256')
  const snapshot = new SnapshotBuilder()
  const fileHashes = hashFiles ? new FileHashes() : undefined
  const deviations: Deviation[] = []
  const linked: number[] = []
  let entries = 0
  let narSize = 0

  const note = (name: string, stat: BigIntStats, last: string, target?: string): void => {
    snapshot.add(last, stat, target)
    entries++
    if (isAsNixLeavesIt(stat, owner)) return
    deviations.push(...findDeviations(path + fromLatin1(name), stat, owner))
  }
  const observer: DumpObserver = {
    directory: note,
    symlink: note,
    endDirectory: () => snapshot.endDirectory(),
    regular(name, stat, last) {
      if (stat.nlink > 1n) linked.push(entries, Number(stat.nlink))
      note(name, stat, last)
      fileHashes?.begin(Number(stat.size))
    },
    ...(fileHashes && { contents: (bytes) => fileHashes.add(bytes) }),
  }
  // What moves meanwhile is not what the snapshot says, and is read again next time.
  for (const chunk of dumpNar(path, observer, { lookAgain: false })) {
    hash.update(chunk)
    narSize += chunk.length
    yield
  }
  const narHash = narHashFromDigest(hash.digest())
  return {
    path,
    narHash,
    narSize,
    snapshot: snapshot.build(),
    deviations,
    linked: Uint32Array.from(linked),
    fileHashes: fileHashes?.build(),
  }
}
