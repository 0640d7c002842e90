// Is the store content behind a manifest what the manifest says?
//
// A full pass hashes the NAR of every store path: one sha256 per byte, the same work as Nix's own
// verification, largest path first, on this thread and on worker threads. Only where a path differs is it read
// again, file by file, to name what differs. With a ledger, later passes compare metadata and read the files that moved,
// and all of a path where that does not settle it; the result says so, and since when no full pass was made. A
// metadata pass reads nothing.
//
// Only a NAR hash, or a ledger that remembers one, makes content good. A file list names what differs and is
// believed in nothing else: whoever hands it over may have it from somebody the manifest's signer never met.
//
// Beyond the NAR, modes and owners must be as Nix leaves them: a writable file is not what it was
// measured as for long, and setuid is a right that no hash shows. File capabilities are extended attributes,
// which Node cannot list: they are looked for where the caller passes a function for it, and the result
// says whether they were. Hard links to elsewhere are told. docs/verification.md says what each proves.
import { availableParallelism } from 'node:os'
import type { FileList } from './file-list.ts'
import type { NarHash } from './hash.ts'
import type { Ledger, LedgerRecord } from './ledger.ts'
import type { PathInfo } from './manifest.ts'
import type { StorePath } from './store-path.ts'
import { findAttributes } from './verify/attributes.ts'
import type { ReadAttributes } from './verify/attributes.ts'
import type { Deviation } from './verify/deviations.ts'
import { locateMismatches } from './verify/locate.ts'
import type { LastLook } from './verify/locate.ts'
import type { Mismatch } from './verify/mismatch.ts'
import { findMovedEntries } from './verify/moved.ts'
import type { PathScan } from './verify/scan.ts'
import { INLINE_BYTES, scanPaths, settlePaths, surveyPaths } from './verify/scan-paths.ts'
import type { MovedPath, Outcome } from './verify/scan-paths.ts'
import type { SettledPath } from './verify/settle.ts'
import { isSettled, renewSnapshot } from './verify/snapshot.ts'
import type { Snapshot } from './verify/snapshot.ts'
import { LinkCount } from './verify/stray-links.ts'
import type { StrayLink } from './verify/stray-links.ts'
import { compareSurvey } from './verify/survey.ts'
import { startThreads } from './verify/threads.ts'

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
  /** The closure's file list, to name files that differ. Nothing passes because of it. */
  readonly files?: FileList
  /** What earlier passes found; without it every pass is full. Is brought up to date. */
  readonly ledger?: Ledger
  /** Read everything, whatever the ledger says. */
  readonly full?: boolean
  /** Read no content: compare names, kinds, sizes, modes and owners. The ledger only tells the age. */
  readonly metadataOnly?: boolean
  /** Lists extended attributes; without it they are not checked. Called on this thread. */
  readonly readAttributes?: ReadAttributes
  /** Stop collecting after so many; default 100. */
  readonly maxMismatches?: number
  /** The clock, in ms since 1970. */
  readonly now: () => number
  readonly onProgress?: (progress: VerifyProgress) => void
  readonly signal?: AbortSignal
  /** Threads at work on large closures, this one among them. Default: one per processor. */
  readonly parallelism?: number
  /** The uid that must own the store; default 0. */
  readonly owner?: number
}

/** How far a verification is. */
export interface VerifyProgress {
  readonly paths: number
  readonly totalPaths: number
  /** Of NARs, as the manifest gives their sizes. */
  readonly bytes: number
  readonly totalBytes: number
}

/** What a verification found. */
export interface ClosureVerification {
  /** True exactly when there is no mismatch. */
  readonly ok: boolean
  readonly strength: Strength
  /** When this pass began. */
  readonly checkedAtMs: number
  /** When the oldest of the full passes began that vouch for the paths; 0 when none is known. */
  readonly lastFullAtMs: number
  readonly mismatches: readonly Mismatch[]
  /** Also those that were not collected. */
  readonly mismatchCount: number
  /** Whether every path was looked at for extended attributes, now or when it was read last. */
  readonly attributes: 'checked' | 'not checked'
  /** Among the files that this pass read: those with a name that nothing in the store explains. */
  readonly strayLinks: readonly StrayLink[]
  /** Regular files that were looked at. */
  readonly filesChecked: number
  /** Regular files whose content was read. */
  readonly filesHashed: number
}

const DEFAULT_MAX_MISMATCHES = 100

/**
 * Compares the store with the paths of `manifest`, a closure or any others. Differences are in the result;
 * they do not throw.
 *
 * @throws {NixError} STORE_READ – the system refused to read; STORE_CHANGED – a path kept changing while
 * it was read. Neither says anything good about the closure.
 */
export async function verifyClosure(
  manifest: { readonly entries: readonly PathInfo[] },
  options: VerifyOptions,
): Promise<ClosureVerification> {
  const pass = new Pass(manifest.entries, options)
  if (options.metadataOnly === true) await pass.survey()
  else await pass.scan(await pass.recheckKnown())
  return pass.result()
}

/** A path that the ledger knows. */
interface Known {
  readonly entry: PathInfo
  readonly path: StorePath
  readonly record: LedgerRecord
  readonly snapshot: Snapshot
}

/** One in which something moved. */
type KnownMoved = Known & MovedPath

/** One verification under way. */
class Pass {
  readonly #entries: readonly PathInfo[]
  readonly #options: VerifyOptions
  readonly #owner: number
  readonly #checkedAtMs: number
  /** The same moment on the clock that nobody sets. */
  readonly #began = performance.now()
  readonly #mismatches: Mismatch[] = []
  readonly #links = new LinkCount()
  #strayLinks: readonly StrayLink[] = []
  #strength: Strength = 'full'
  #attributes: boolean
  #lastFullAtMs: number
  readonly #totalBytes: number
  #paths = 0
  #bytes = 0
  #filesChecked = 0
  #filesHashed = 0

  constructor(entries: readonly PathInfo[], options: VerifyOptions) {
    this.#entries = entries
    this.#options = options
    this.#owner = options.owner ?? 0
    this.#checkedAtMs = options.now()
    this.#lastFullAtMs = this.#checkedAtMs
    this.#attributes = options.readAttributes !== undefined
    this.#totalBytes = entries.reduce((sum, { narSize }) => sum + narSize, 0)
  }

  /** Takes the short way where the ledger allows; returns the paths that must be read in full. */
  async recheckKnown(): Promise<PathInfo[]> {
    const { ledger, full, parallelism = availableParallelism(), signal } = this.#options
    const reads = ledger === undefined || full === true
    // A path is read by one thread, and the entries of one are looked at by several. They start while the ledger
    // is read.
    const useful = reads ? Math.min(parallelism, this.#entries.length) : parallelism
    if (this.#totalBytes >= INLINE_BYTES) startThreads(useful - 1)
    if (reads) return [...this.#entries]
    const unknown: PathInfo[] = []
    const known: Known[] = []
    for (const entry of this.#entries) {
      const record = this.#find(entry)
      if (record === undefined) unknown.push(entry)
      else known.push({ entry, path: entry.path, record, snapshot: record.snapshot })
    }
    if (unknown.length === 0) this.#attributes = true // until a record says otherwise
    const looks = known.map(({ path, snapshot }) => ({ path, snapshot }))
    const moved = await findMovedEntries(looks, parallelism, signal)
    const open: KnownMoved[] = []
    for (const [position, look] of known.entries()) {
      const indexes = moved.get(position)
      if (indexes !== undefined) {
        const fileHashes = ledger.findFileHashes(look.path, look.entry.narHash)
        if (fileHashes === undefined) unknown.push(look.entry)
        else open.push({ ...look, fileHashes, moved: indexes })
      } else if (!(await this.#acceptKnown(look))) {
        unknown.push(look.entry)
      }
    }
    unknown.push(...(await this.#settle(open)))
    return unknown
  }

  /** Reads what moved in paths that the ledger knows; returns those that must be read in full. */
  async #settle(open: readonly KnownMoved[]): Promise<PathInfo[]> {
    if (open.length === 0) return []
    const { parallelism, signal } = this.#options
    const unknown: PathInfo[] = []
    const settled: [KnownMoved, SettledPath][] = []
    await settlePaths(open, { owner: this.#owner, parallelism, signal }, (outcome) => {
      if ('error' in outcome) throw outcome.error
      if (outcome.found.same) settled.push([outcome.entry, outcome.found])
      else unknown.push(outcome.entry.entry)
    })
    for (const [look, found] of settled)
      if (!(await this.#acceptSettled(look, found))) unknown.push(look.entry)
    return unknown
  }

  /** Takes a path in which nothing moved for what it was; false when it has to be read in full. */
  async #acceptKnown({ entry, path, record, snapshot }: Known): Promise<boolean> {
    const { readAttributes, signal } = this.#options
    let now = record
    if (readAttributes !== undefined && !record.attributes) {
      const found = await findAttributes(path, snapshot, readAttributes, signal)
      if (found.length > 0) return false // the full scan reports them
      now = { ...now, attributes: true }
    }
    if (now !== record) this.#remember(path, now)
    this.#countIncremental(entry, now)
    return true
  }

  /** Takes a path in which what moved is what it was; false when it has to be read in full. */
  async #acceptSettled(look: KnownMoved, found: SettledPath): Promise<boolean> {
    const { entry, path, record, moved } = look
    const { readAttributes, signal } = this.#options
    const snapshot = renewSnapshot(look.snapshot, moved, found.stats)
    const attributes = readAttributes !== undefined
    if (attributes) {
      const indexes = record.attributes ? moved : undefined
      const seen = await findAttributes(path, snapshot, readAttributes, signal, indexes)
      if (seen.length > 0) return false // the full scan reports them
    }
    const now = { ...record, attributes, snapshot }
    this.#links.add(path, snapshot, found.linked)
    this.#remember(path, now)
    this.#filesHashed += found.filesHashed
    this.#countIncremental(entry, now)
    return true
  }

  #countIncremental(entry: PathInfo, { fullAtMs, attributes, snapshot }: LedgerRecord): void {
    this.#strength = 'incremental'
    this.#lastFullAtMs = Math.min(this.#lastFullAtMs, fullAtMs)
    this.#attributes &&= attributes
    this.#filesChecked += snapshot.regularFiles
    this.#progress(entry)
  }

  /** Reads `entries` in full, and what differs once more, file by file. */
  async scan(entries: readonly PathInfo[]): Promise<void> {
    const { files, ledger, readAttributes, signal } = this.#options
    if (entries.length > 0 && readAttributes === undefined) this.#attributes = false
    const differing = new Map<PathInfo, NarHash>()
    const accepting: Promise<void>[] = []
    const hashFiles = ({ path, narHash }: PathInfo): boolean =>
      ledger !== undefined && !ledger.hasFileHashes(path, narHash)
    await this.#scanAll(entries, hashFiles, (entry, scan) => {
      this.#filesChecked += scan.snapshot.regularFiles
      this.#filesHashed += scan.snapshot.regularFiles
      this.#progress(entry)
      if (scan.narHash !== entry.narHash) return void differing.set(entry, scan.narHash)
      const accepted = this.#accept(entry, scan)
      accepted.catch(() => undefined) // awaited below, unless a scan fails first
      accepting.push(accepted)
    })
    await Promise.all(accepting)
    const all = (): boolean => true
    await this.#scanAll([...differing.keys()], all, (entry, scan) => {
      // What is good again was bad a moment ago.
      const narHash = scan.narHash === entry.narHash ? differing.get(entry) : scan.narHash
      const seen = { ...scan, narHash: narHash ?? scan.narHash }
      this.#reportAll(locateMismatches(entry, seen, files, this.#lastLook(entry)))
      this.#reportDeviations(entry.path, scan.deviations)
    })
    const bad = new Set(this.#mismatches.map((mismatch) => mismatch.path))
    for (const path of bad) ledger?.forget(path)
    this.#strayLinks = await this.#links.findStray(signal)
  }

  /** Looks at metadata alone. */
  async survey(): Promise<void> {
    const { files, parallelism, signal } = this.#options
    this.#strength = 'metadata'
    this.#attributes = false
    for (const entry of this.#entries)
      this.#lastFullAtMs = Math.min(this.#lastFullAtMs, this.#find(entry)?.fullAtMs ?? 0)
    await surveyPaths(this.#entries, { owner: this.#owner, parallelism, signal }, (outcome) => {
      const { entry } = outcome
      this.#progress(entry)
      if ('error' in outcome) return this.#reportError(outcome)
      this.#filesChecked += outcome.found.files.length
      this.#reportAll(compareSurvey(entry, outcome.found, files))
      this.#reportDeviations(entry.path, outcome.found.deviations)
    })
  }

  result(): ClosureVerification {
    const { maxMismatches = DEFAULT_MAX_MISMATCHES } = this.#options
    return {
      ok: this.#mismatches.length === 0,
      strength: this.#strength,
      checkedAtMs: this.#checkedAtMs,
      lastFullAtMs: this.#lastFullAtMs,
      mismatches: this.#mismatches.slice(0, maxMismatches),
      mismatchCount: this.#mismatches.length,
      attributes: this.#attributes ? 'checked' : 'not checked',
      strayLinks: this.#strayLinks.slice(0, maxMismatches),
      filesChecked: this.#filesChecked,
      filesHashed: this.#filesHashed,
    }
  }

  async #scanAll(
    entries: readonly PathInfo[],
    hashFiles: (entry: PathInfo) => boolean,
    onScan: (entry: PathInfo, scan: PathScan) => void,
  ): Promise<void> {
    if (entries.length === 0) return
    const { parallelism, signal } = this.#options
    await scanPaths(entries, { hashFiles, owner: this.#owner, parallelism, signal }, (outcome) => {
      if ('found' in outcome) return onScan(outcome.entry, outcome.found)
      this.#progress(outcome.entry)
      this.#reportError(outcome)
    })
  }

  /** What a path whose NAR is right must show besides. */
  async #accept({ path, narHash }: PathInfo, scan: PathScan): Promise<void> {
    const { readAttributes, signal } = this.#options
    const { snapshot, linked, fileHashes } = scan
    const attributes = readAttributes !== undefined
    const found = attributes ? await findAttributes(path, snapshot, readAttributes, signal) : []
    const deviations = [...scan.deviations, ...found]
    if (deviations.length > 0) return this.#reportDeviations(path, deviations)
    this.#links.add(path, snapshot, linked)
    const record = { narHash, fullAtMs: this.#checkedAtMs, attributes, snapshot }
    this.#remember(path, record, fileHashes)
  }

  #find({ path, narHash }: PathInfo): LedgerRecord | undefined {
    const record = this.#options.ledger?.find(path, narHash)
    // A record from the future says that a clock was turned back; its age would be unknown.
    return record === undefined || record.fullAtMs > this.#checkedAtMs ? undefined : record
  }

  #lastLook({ path, narHash }: PathInfo): LastLook | undefined {
    const { ledger } = this.#options
    const snapshot = ledger?.find(path, narHash)?.snapshot
    if (snapshot === undefined) return undefined
    return { snapshot, fileHashes: ledger?.findFileHashes(path, narHash) }
  }

  #remember(path: StorePath, record: LedgerRecord, fileHashes?: Uint8Array): void {
    // What has just changed is read again next time, when its ctime can be told from a later one.
    const nowMs = this.#checkedAtMs + (performance.now() - this.#began)
    if (isSettled(record.snapshot, this.#checkedAtMs, nowMs))
      this.#options.ledger?.record(path, record, fileHashes)
  }

  #reportError({ entry, error }: Extract<Outcome<unknown>, { error: unknown }>): void {
    const { path } = entry
    if (error.code === 'STORE_MISSING')
      this.#mismatches.push({ path, kind: 'missing', expected: entry.narHash, seen: 'nothing' })
    else if (error.code === 'STORE_TYPE')
      this.#mismatches.push({
        path,
        file: String(error.detail['file'] ?? path),
        kind: 'type',
        expected: 'a file, directory or symlink',
        seen: 'another kind',
      })
    else throw error
  }

  #reportDeviations(path: StorePath, deviations: readonly Deviation[]): void {
    this.#reportAll(deviations.map((deviation) => ({ path, ...deviation })))
  }

  #reportAll(mismatches: readonly Mismatch[]): void {
    for (const mismatch of mismatches) this.#mismatches.push(mismatch)
  }

  #progress({ narSize }: PathInfo): void {
    this.#paths++
    this.#bytes += narSize
    this.#options.onProgress?.({
      paths: this.#paths,
      totalPaths: this.#entries.length,
      bytes: this.#bytes,
      totalBytes: this.#totalBytes,
    })
  }
}
