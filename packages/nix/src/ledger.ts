// The ledger: for each store path when its content was last read in full, which NAR hash it had then, for
// every entry device, inode, mode, size and ctime at that moment, and for every regular file the sha256 of what
// was read. A later look compares metadata, and reads the files that moved and no others.
//
// What it rests on: the kernel sets ctime at every change of a file's content or metadata, to its own
// clock. Someone who is root can set that clock, or write to the raw disk; therefore a ledger gives the
// strength `incremental` and never `full`, and policy bounds the age of the last full pass. The file must
// be writable by root only: whoever writes it decides what counts as unmoved.
//
// It cannot prove that content is what it was: a disk that rots and a device that is written to beside the
// file system move no ctime. Nor can it prove that nobody changed a file and changed it back.
//
// Records are kept in memory and written behind, all that are due in one transaction, so that a crash at
// any point leaves what was written before or what was written now: a lost record only means that a path
// is read again. Each carries a digest over all of it, because SQLite does not notice a flipped bit: a
// record that is not exactly what was written is no record. Files' hashes are most of what a full pass finds
// and wanted only where something moved; they have rows of their own, which are read then.
import { createHash } from 'node:crypto'
import { closeSync, constants, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { NixError, quote } from './error.ts'
import type { NarHash } from './hash.ts'
import type { StorePath } from './store-path.ts'
import type { Snapshot } from './verify/snapshot.ts'
import { isSameSnapshot, restoreSnapshot } from './verify/snapshot.ts'

/** What is known about a store path that was found good. */
export interface LedgerRecord {
  readonly narHash: NarHash
  /** When the pass began that last read all of its content. */
  readonly fullAtMs: number
  /** Whether extended attributes were looked for, and none found. */
  readonly attributes: boolean
  readonly snapshot: Snapshot
}

const FORMAT = 3
const APPLICATION_ID = 0x42616763 // "Bagc"
const WRITE_DELAY_MS = 1000

// A record is long, and longer pages are read with fewer calls.
const PAGE_BYTES = 8192

const SCHEMA = `create table if not exists paths (
  path text primary key, nar_hash text not null, full_at_ms integer not null,
  attributes integer not null, stats blob not null, names blob not null, digest blob not null
) strict, without rowid;
create table if not exists file_hashes (
  path text primary key, nar_hash text not null, hashes blob not null, digest blob not null
) strict, without rowid`

/**
 * Opens the ledger at `file`, or makes it (mode 0600).
 *
 * @throws {NixError} LEDGER_OPEN – not a ledger, of another format, damaged or not writable. Removing the
 * file is safe: the next verification reads everything.
 */
export function openLedger(file: string): Ledger {
  let database: DatabaseSync | undefined
  try {
    // SQLite gives its other files the mode of this one.
    closeSync(openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600))
    database = new DatabaseSync(file, { timeout: 5000 })
    checkFormat(database)
    database.exec('pragma journal_mode = wal')
    database.exec('pragma synchronous = normal')
    database.exec(SCHEMA)
    return new Ledger(database)
  } catch (cause) {
    database?.close()
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('LEDGER_OPEN', `expected a ledger at ${quote(file)}: ${reason}`, {
      cause,
      detail: { file },
    })
  }
}

/**
 * An open ledger; made by {@link openLedger}. Where several processes have it open, each sees what it read
 * first, and the last to write a path is believed by the next that opens it.
 */
export class Ledger {
  readonly #database: DatabaseSync
  readonly #records = new Map<StorePath, LedgerRecord>()
  /** Paths whose row on disk is behind: in all of it, or in the time only. */
  readonly #stale = new Map<StorePath, 'all' | 'time'>()
  /** Files' hashes that are not on disk yet. */
  readonly #fileHashes = new Map<StorePath, { narHash: NarHash; hashes: Uint8Array }>()
  #timer: NodeJS.Timeout | undefined

  constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** The record of `path`, if it is about content with this NAR hash. */
  find(path: StorePath, narHash: NarHash): LedgerRecord | undefined {
    let record = this.#records.get(path)
    if (record === undefined && !this.#stale.has(path)) {
      record = this.#load(path)
      if (record !== undefined) this.#records.set(path, record)
    }
    return record?.narHash === narHash ? record : undefined
  }

  /**
   * The sha256 of every regular file of `path`, in the order of the archive, 32 bytes each, as they were read
   * when it had this NAR hash; they are the same whenever it has.
   */
  findFileHashes(path: StorePath, narHash: NarHash): Uint8Array | undefined {
    const due = this.#fileHashes.get(path)
    if (due !== undefined) return due.narHash === narHash ? due.hashes : undefined
    if (this.#stale.has(path) && !this.#records.has(path)) return undefined // forgotten
    return this.#loadFileHashes(path, narHash)
  }

  /** Remembers that `path` is good, and what its files hold unless that is known. */
  record(path: StorePath, record: LedgerRecord, fileHashes?: Uint8Array): void {
    if (fileHashes !== undefined)
      this.#fileHashes.set(path, { narHash: record.narHash, hashes: fileHashes })
    const before = this.find(path, record.narHash)
    // A full pass over unchanged content renews the time; the metadata, megabytes of it, are as they were.
    const same = before !== undefined && isSameSnapshot(before.snapshot, record.snapshot)
    this.#records.set(path, same ? { ...record, snapshot: before.snapshot } : record)
    this.#writeLater(path, same ? 'time' : 'all')
  }

  /** Drops what is known about `path`, which was found bad. */
  forget(path: StorePath): void {
    this.#records.delete(path)
    this.#fileHashes.delete(path)
    this.#writeLater(path, 'all')
  }

  /**
   * Writes what is only in memory so far.
   *
   * @throws {NixError} LEDGER_WRITE – a full disk, a damaged file; what was to be written stays in memory
   */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#stale.size === 0) return
    try {
      this.#database.exec('begin immediate')
      try {
        this.#writeStale()
        this.#database.exec('commit')
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec('rollback')
        throw error
      }
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new NixError('LEDGER_WRITE', `expected to write the ledger: ${reason}`, { cause })
    }
    this.#stale.clear()
    this.#fileHashes.clear()
  }

  /** Writes the rest and closes the file. @throws {NixError} LEDGER_WRITE – and the file is closed */
  close(): void {
    try {
      this.flush()
    } finally {
      this.#database.close()
    }
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #writeLater(path: StorePath, what: 'all' | 'time'): void {
    if (this.#stale.get(path) !== 'all') this.#stale.set(path, what)
    this.#timer ??= setTimeout(() => this.#writeBehind(), WRITE_DELAY_MS).unref()
  }

  #writeBehind(): void {
    try {
      this.flush()
    } catch {
      // A full disk must not end the process; the records stay in memory and the next change, or
      // `close`, tries again.
    }
  }

  #writeStale(): void {
    const put = this.#database.prepare('insert or replace into paths values (?, ?, ?, ?, ?, ?, ?)')
    const renew = this.#database.prepare(
      'update paths set full_at_ms = ?, attributes = ?, digest = ? where path = ?',
    )
    const remove = this.#database.prepare('delete from paths where path = ?')
    const removeHashes = this.#database.prepare('delete from file_hashes where path = ?')
    const putHashes = this.#database.prepare(
      'insert or replace into file_hashes values (?, ?, ?, ?)',
    )
    for (const [path, what] of this.#stale) {
      const record = this.#records.get(path)
      if (record === undefined) {
        remove.run(path)
        removeHashes.run(path)
        continue
      }
      const due = this.#fileHashes.get(path)
      if (due !== undefined) {
        const digest = digestOfHashes(path, due.narHash, due.hashes)
        putHashes.run(path, due.narHash, due.hashes, digest)
      }
      const { narHash, fullAtMs, attributes } = record
      const { stats, names } = encodeSnapshot(record.snapshot)
      const digest = digestOf(path, { narHash, fullAtMs, attributes }, stats, names)
      if (what === 'time') renew.run(fullAtMs, Number(attributes), digest, path)
      else put.run(path, narHash, fullAtMs, Number(attributes), stats, names, digest)
    }
  }

  #load(path: StorePath): LedgerRecord | undefined {
    let row
    try {
      row = this.#database.prepare('select * from paths where path = ?').get(path)
    } catch {
      return undefined // A damaged file knows nothing; the next write says what is wrong with it.
    }
    if (row === undefined) return undefined
    const { stats, names, digest } = row
    if (!isBytes(stats) || !isBytes(names) || !isBytes(digest)) return undefined
    const head = {
      narHash: row['nar_hash'] as NarHash, // compared with a parsed one before it is used
      fullAtMs: Number(row['full_at_ms']),
      attributes: row['attributes'] === 1,
    }
    if (!digestOf(path, head, stats, names).equals(digest)) return undefined
    const text = Buffer.from(names.buffer, names.byteOffset, names.length).toString('latin1')
    return { ...head, snapshot: restoreSnapshot(stats, text) }
  }

  #loadFileHashes(path: StorePath, narHash: NarHash): Uint8Array | undefined {
    let row
    try {
      row = this.#database.prepare('select * from file_hashes where path = ?').get(path)
    } catch {
      return undefined // as above
    }
    const { hashes, digest } = row ?? {}
    if (!isBytes(hashes) || !isBytes(digest)) return undefined
    return digestOfHashes(path, narHash, hashes).equals(digest) ? hashes : undefined
  }
}

function checkFormat(database: DatabaseSync): void {
  const pragma = (name: string): unknown => database.prepare(`pragma ${name}`).get()?.[name]
  const format = pragma('user_version')
  const application = pragma('application_id')
  const tables = database.prepare('select count(*) as n from sqlite_schema').get()?.['n']
  if (format === 0 && application === 0 && tables === 0) {
    database.exec(`pragma page_size = ${PAGE_BYTES}`)
    database.exec(`pragma application_id = ${APPLICATION_ID}`)
    database.exec(`pragma user_version = ${FORMAT}`)
  } else if (application === APPLICATION_ID && (format === 1 || format === 2)) {
    // They know no single files. What they knew is read again.
    database.exec(`begin immediate; drop table paths; pragma user_version = ${FORMAT}; commit`)
  } else if (format !== FORMAT || application !== APPLICATION_ID) {
    throw new Error(`expected format ${FORMAT}, got ${String(format)}`)
  }
}

function encodeSnapshot({ stats, names }: Snapshot): { stats: Uint8Array; names: Uint8Array } {
  // SQLite takes no shared memory.
  return { stats: new Uint8Array(stats.buffer).slice(), names: Buffer.from(names, 'latin1') }
}

function digestOf(
  path: StorePath,
  head: Omit<LedgerRecord, 'snapshot'>,
  stats: Uint8Array,
  names: Uint8Array,
): Buffer {
  const { narHash, fullAtMs, attributes } = head
  const first = JSON.stringify([path, narHash, fullAtMs, attributes, stats.length])
  return createHash('sha256').update(`${first}\n`).update(stats).update(names).digest()
}

/** Binds the hashes to the path and the NAR hash that they were read with. */
function digestOfHashes(path: StorePath, narHash: NarHash, hashes: Uint8Array): Buffer {
  const first = JSON.stringify([path, narHash, hashes.length])
  return createHash('sha256').update(`${first}\n`).update(hashes).digest()
}

const isBytes = (value: unknown): value is Uint8Array => value instanceof Uint8Array
