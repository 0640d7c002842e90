// Is the store content behind a manifest what the manifest says?
//
// A full pass hashes the NAR of every store path: one sha256 per byte, the same work as Nix's own
// verification, largest path first over worker threads. Only where a path differs is it read again, file
// by file, to name what differs. With a ledger, later passes compare metadata and read what moved; the
// result says so, and since when no full pass was made.
//
// Beyond the NAR, modes and owners must be as Nix leaves them: a writable file is not what it was
// measured as for long, and setuid is a right that no hash shows. Extended attributes, and with them file
// capabilities, cannot be seen from here; a store mounted `nosuid` takes their effect away.
import { availableParallelism } from 'node:os'
import type { FileList } from './file-list.ts'
import type { Ledger, LedgerRecord } from './ledger.ts'
import type { ClosureManifest, PathInfo } from './manifest.ts'
import type { StorePath } from './store-path.ts'
import { acceptMoved } from './verify/accept-moved.ts'
import { locateMismatches } from './verify/locate.ts'
import type { Mismatch } from './verify/mismatch.ts'
import { findAllMoved } from './verify/moved.ts'
import type { PathScan } from './verify/scan.ts'
import { scanPaths } from './verify/scan-paths.ts'
import type { ScanOutcome } from './verify/scan-paths.ts'
import { isSettled } from './verify/snapshot.ts'
import type { Snapshot } from './verify/snapshot.ts'

/** How store content was checked, weakest first. At tier 0 it is the agent's claim. */
export const STRENGTHS = [
  'path-claim',
  'metadata',
  'incremental',
  'full',
  'fs-verity',
  'verity',
] as const

/** One of {@link STRENGTHS}. */
export type Strength = (typeof STRENGTHS)[number]

/** How to verify. */
export interface VerifyOptions {
  /** The closure's file list, to name files that differ and to accept files that merely moved. */
  readonly files?: FileList
  /** What earlier passes found; without it every pass is full. Is brought up to date. */
  readonly ledger?: Ledger
  /** Read everything, whatever the ledger says. */
  readonly full?: boolean
  /** Stop collecting after so many; default 100. */
  readonly maxMismatches?: number
  /** The clock, in ms since 1970. */
  readonly now: () => number
  readonly onProgress?: (progress: VerifyProgress) => void
  readonly signal?: AbortSignal
  /** Worker threads for large closures; 0 for none. Default: one per processor. */
  readonly workers?: number
  /** The uid that must own the store; default 0. */
  readonly owner?: number
}

/** How far a verification is. */
export interface VerifyProgress {
  readonly paths: number
  readonly totalPaths: number
}

/** What a verification found. */
export interface ClosureVerification {
  /** True exactly when there is no mismatch. */
  readonly ok: boolean
  readonly strength: Strength
  /** When this pass began. */
  readonly checkedAtMs: number
  /** When the oldest of the full passes began that vouch for the paths. */
  readonly lastFullAtMs: number
  readonly mismatches: readonly Mismatch[]
  /** Regular files that were looked at. */
  readonly filesChecked: number
  /** Regular files whose content was read. */
  readonly filesHashed: number
}

const DEFAULT_MAX_MISMATCHES = 100

/**
 * Compares the store with `manifest`. Differences are in the result; they do not throw.
 *
 * @throws {NixError} STORE_READ – the system refused to read; STORE_CHANGED – a path kept changing while
 * it was read. Neither says anything good about the closure.
 */
export async function verifyClosure(
  manifest: ClosureManifest,
  options: VerifyOptions,
): Promise<ClosureVerification> {
  const pass = new Pass(manifest, options)
  const unknown = await pass.recheckKnown()
  await pass.scan(unknown)
  return pass.result()
}

/** One verification under way. */
class Pass {
  readonly #manifest: ClosureManifest
  readonly #options: VerifyOptions
  readonly #owner: number
  readonly #checkedAtMs: number
  readonly #mismatches: Mismatch[] = []
  #lastFullAtMs: number
  #incremental = false
  #paths = 0
  #filesChecked = 0
  #filesHashed = 0

  constructor(manifest: ClosureManifest, options: VerifyOptions) {
    this.#manifest = manifest
    this.#options = options
    this.#owner = options.owner ?? 0
    this.#checkedAtMs = options.now()
    this.#lastFullAtMs = this.#checkedAtMs
  }

  /** Takes the short way where the ledger allows; returns the paths that must be read in full. */
  async recheckKnown(): Promise<PathInfo[]> {
    const { ledger, full, files, workers, signal } = this.#options
    if (ledger === undefined || full === true) return [...this.#manifest.entries]
    const unknown: PathInfo[] = []
    const known: { path: StorePath; entry: PathInfo; record: LedgerRecord; snapshot: Snapshot }[] =
      []
    for (const entry of this.#manifest.entries) {
      const record = ledger.find(entry.path, entry.narHash)
      // A record from the future says that a clock was turned back; its age would be unknown.
      if (record === undefined || record.fullAtMs > this.#checkedAtMs) unknown.push(entry)
      else known.push({ path: entry.path, entry, record, snapshot: record.snapshot })
    }
    const looks = known.map(({ path, snapshot }) => ({ path, snapshot }))
    const moved = Map.groupBy(
      await findAllMoved(looks, workers ?? availableParallelism(), signal),
      ([position]) => position,
    )
    for (const [position, { path, entry, record, snapshot }] of known.entries()) {
      const indices = (moved.get(position) ?? []).map(([, index]) => index)
      if (indices.length > 0) {
        const accepted = acceptMoved(path, snapshot, indices, files, this.#owner)
        if (accepted === undefined) {
          unknown.push(entry)
          continue
        }
        this.#remember(path, { ...record, snapshot: accepted })
        this.#filesHashed += indices.length
      }
      this.#incremental = true
      this.#lastFullAtMs = Math.min(this.#lastFullAtMs, record.fullAtMs)
      this.#filesChecked += snapshot.regularFiles
      this.#progress()
    }
    return unknown
  }

  /** Reads `entries` in full, and what differs once more, file by file. */
  async scan(entries: readonly PathInfo[]): Promise<void> {
    const differing: PathInfo[] = []
    await this.#scanAll(entries, false, ({ entry, scan }) => {
      this.#filesChecked += scan.regularFiles
      this.#filesHashed += scan.regularFiles
      this.#progress()
      if (scan.narHash !== entry.narHash) differing.push(entry)
      else this.#accept(entry, scan)
    })
    await this.#scanAll(differing, true, ({ entry, scan }) => {
      const { files, ledger } = this.#options
      const last = ledger?.find(entry.path, entry.narHash)?.snapshot
      this.#report(...locateMismatches(entry, scan, files, last))
      this.#report(...scan.deviations.map((deviation) => ({ path: entry.path, ...deviation })))
    })
    const bad = new Set(this.#mismatches.map((mismatch) => mismatch.path))
    for (const path of bad) this.#options.ledger?.forget(path)
  }

  result(): ClosureVerification {
    const mismatches = this.#mismatches.slice(
      0,
      this.#options.maxMismatches ?? DEFAULT_MAX_MISMATCHES,
    )
    return {
      ok: this.#mismatches.length === 0,
      strength: this.#incremental ? 'incremental' : 'full',
      checkedAtMs: this.#checkedAtMs,
      lastFullAtMs: this.#lastFullAtMs,
      mismatches,
      filesChecked: this.#filesChecked,
      filesHashed: this.#filesHashed,
    }
  }

  async #scanAll(
    entries: readonly PathInfo[],
    listFiles: boolean,
    onScan: (outcome: { entry: PathInfo; scan: PathScan }) => void,
  ): Promise<void> {
    if (entries.length === 0) return
    const { workers, signal } = this.#options
    const scanOptions = {
      listFiles,
      owner: this.#owner,
      ...(workers === undefined ? {} : { workers }),
      ...(signal === undefined ? {} : { signal }),
    }
    await scanPaths(entries, scanOptions, (outcome) => {
      if ('scan' in outcome) onScan(outcome)
      else this.#reportError(outcome)
    })
  }

  #accept({ path, narHash }: PathInfo, scan: PathScan): void {
    if (scan.deviations.length > 0) {
      this.#report(...scan.deviations.map((deviation) => ({ path, ...deviation })))
      return
    }
    const { snapshot } = scan
    this.#remember(path, { narHash, fullAtMs: this.#checkedAtMs, snapshot })
  }

  #remember(path: StorePath, record: LedgerRecord): void {
    // What has just changed is read again next time, when its ctime can be told from a later one.
    if (isSettled(record.snapshot, this.#checkedAtMs)) this.#options.ledger?.record(path, record)
  }

  #reportError({ entry, error }: Extract<ScanOutcome, { error: unknown }>): void {
    const { path } = entry
    if (error.code === 'STORE_MISSING')
      this.#report({ path, kind: 'missing', expected: entry.narHash, seen: 'nothing' })
    else if (error.code === 'STORE_TYPE')
      this.#report({
        path,
        file: String(error.detail['file'] ?? path),
        kind: 'type',
        expected: 'a file, directory or symlink',
        seen: 'another kind',
      })
    else throw error
    this.#progress()
  }

  #report(...mismatches: readonly Mismatch[]): void {
    this.#mismatches.push(...mismatches)
  }

  #progress(): void {
    this.#paths++
    this.#options.onProgress?.({
      paths: this.#paths,
      totalPaths: this.#manifest.entries.length,
    })
  }
}
