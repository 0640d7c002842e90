// Reads one store path completely: its NAR hash, the metadata a ledger needs, what is not as Nix leaves
// it, and on request the sha256 of each file. Synchronous; runs in a worker thread for large paths.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { NixError } from '../error.ts'
import type { NixErrorCode } from '../error.ts'
import { fromLatin1 } from '../file-name.ts'
import type { ListedFile } from '../file-list.ts'
import { narHashFromDigest } from '../hash.ts'
import type { NarHash, Sha256 } from '../hash.ts'
import { dumpNar } from '../nar/dump.ts'
import type { DumpObserver } from '../nar/dump.ts'
import type { StorePath } from '../store-path.ts'
import { SnapshotBuilder } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/** What to read; crosses to a worker thread. */
export interface ScanRequest {
  readonly path: StorePath
  /** Also hash every file on its own, which costs a second sha256 per byte. */
  readonly listFiles: boolean
  /** The uid that owns the store. */
  readonly owner: number
}

/** What was read; crosses back. */
export interface PathScan {
  readonly path: StorePath
  readonly narHash: NarHash
  readonly narSize: number
  readonly regularFiles: number
  readonly snapshot: Snapshot
  readonly deviations: readonly Deviation[]
  /** Only if asked for. */
  readonly files: readonly ListedFile[]
}

/** Metadata that a NAR does not show and that Nix would not have left. */
export interface Deviation {
  readonly file: string
  readonly kind: 'mode' | 'owner'
  readonly expected: string
  readonly seen: string
}

// Nix replaces files by hard links (`nix-store --optimise`) and deletes such links while it collects
// garbage; either moves the metadata of a file that we may just be reading.
const ATTEMPTS = 3
const PERMISSIONS = 0o7777n

/**
 * Reads `request.path`.
 *
 * @throws {NixError} STORE_MISSING, STORE_TYPE, STORE_READ; STORE_CHANGED – at every attempt
 */
export function scanPath(request: ScanRequest): PathScan {
  for (let attempt = 1; ; attempt++) {
    try {
      return scanOnce(request)
    } catch (error) {
      const changed = error instanceof NixError && error.code === 'STORE_CHANGED'
      if (!changed || attempt === ATTEMPTS) throw error
    }
  }
}

/** What a scan came to, as a value that crosses threads. */
export type ScanReply =
  | { readonly scan: PathScan }
  | { readonly code: NixErrorCode; readonly message: string; readonly detail: NixError['detail'] }

/** As {@link scanPath}, with coded errors as values. */
export function replyToScan(request: ScanRequest): ScanReply {
  try {
    return { scan: scanPath(request) }
  } catch (error) {
    if (!(error instanceof NixError)) throw error
    return { code: error.code, message: error.message, detail: error.detail }
  }
}

function scanOnce({ path, listFiles, owner }: ScanRequest): PathScan {
  const hash = createHash('sha256')
  const snapshot = new SnapshotBuilder()
  const deviations: Deviation[] = []
  const files: ListedFile[] = []
  let regularFiles = 0
  let narSize = 0

  const note = (name: string, stat: BigIntStats, target?: string): void => {
    snapshot.add(name, stat, target)
    if (isAsNixLeavesIt(stat, owner)) return
    deviations.push(...findDeviations(path + fromLatin1(name), stat, owner))
  }
  const observer: DumpObserver = {
    directory: note,
    symlink: note,
    regular(name, stat) {
      regularFiles++
      note(name, stat)
    },
  }
  if (listFiles) collectFiles(path, files, observer)

  for (const chunk of dumpNar(path, observer)) {
    hash.update(chunk)
    narSize += chunk.length
  }
  const narHash = narHashFromDigest(hash.digest())
  return { path, narHash, narSize, regularFiles, snapshot: snapshot.build(), deviations, files }
}

/** Makes `observer` also hash each regular file and add it to `files`. */
function collectFiles(root: string, files: ListedFile[], observer: DumpObserver): void {
  const count = observer.regular
  let fileHash: Hash
  let file: Omit<ListedFile, 'sha256'>
  observer.regular = (name, stat) => {
    count?.(name, stat)
    fileHash = createHash('sha256')
    const executable = (stat.mode & 0o100n) !== 0n
    file = { path: root + fromLatin1(name), size: Number(stat.size), executable }
  }
  observer.contents = (bytes) => void fileHash.update(bytes)
  observer.regularEnd = () => {
    files.push({ ...file, sha256: fileHash.digest('hex') as Sha256 })
  }
}

/** 0444 or 0555 for files, 0555 for directories, the store's owner, no setuid. */
export function isAsNixLeavesIt(stat: BigIntStats, owner: number): boolean {
  return hasUsualMode(stat) && stat.uid === BigInt(owner)
}

function hasUsualMode(stat: BigIntStats): boolean {
  const mode = stat.mode & PERMISSIONS
  return mode === 0o555n || (mode === 0o444n && stat.isFile()) || stat.isSymbolicLink()
}

function findDeviations(file: string, stat: BigIntStats, owner: number): Deviation[] {
  const found: Deviation[] = []
  if (!hasUsualMode(stat)) {
    const expected = stat.isFile() ? '0444 or 0555' : '0555'
    const seen = (stat.mode & PERMISSIONS).toString(8).padStart(4, '0')
    found.push({ file, kind: 'mode', expected, seen })
  }
  if (stat.uid !== BigInt(owner))
    found.push({ file, kind: 'owner', expected: `uid ${owner}`, seen: `uid ${stat.uid}` })
  return found
}
