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
// record that is not exactly what was written is no record.
//
// A record lies in three tables, by when its parts are wanted:
//   paths        NAR hash, times and the digest of the metadata, under the digest of the record. A full pass over
//                what has not moved renews this short row alone.
//   snapshots    the metadata: read to compare them with what is there now, vouched for by `paths`.
//   file_hashes  of every file: read where something moved, under a digest that binds them to path and NAR hash.
import { createHash } from 'node:crypto'
import { closeSync, constants, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import type { StatementSync } from 'node:sqlite'
import { NixError, quote } from './error.ts'
import type { NarHash } from './hash.ts'
import type { StorePath } from './store-path.ts'
import type { Snapshot } from './verify/snapshot.ts'
import { restoreSnapshot, SNAPSHOT_COLUMNS } from './verify/snapshot.ts'

/** What is known about a store path that was found good. */
export interface LedgerRecord {
  readonly narHash: NarHash
  /** When the pass began that last read all of its content. */
  readonly fullAtMs: number
  /** Whether extended attributes were looked for, and none found. */
  readonly attributes: boolean
  readonly snapshot: Snapshot
}

/** A record as far as it can be told without the metadata. */
type Head = Omit<LedgerRecord, 'snapshot'> & { readonly snapshot: Pick<Snapshot, 'digest'> }

const FORMAT = 4
const ENTRY_BYTES = SNAPSHOT_COLUMNS * BigInt64Array.BYTES_PER_ELEMENT
const APPLICATION_ID = 0x42616763 // "Bagc"
const WRITE_DELAY_MS = 1000

// A record is long, and longer pages are read with fewer calls.
const PAGE_BYTES = 8192

const SCHEMA = `create table if not exists paths (
  path text primary key, nar_hash text not null, full_at_ms integer not null,
  attributes integer not null, snapshot text not null, digest blob not null
) strict, without rowid;
create table if not exists snapshots (
  path text primary key, stats blob not null, names blob not null
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
  /** Paths of which something on disk is not what was written, so that all of it is due again. */
  readonly #damaged = new Set<StorePath>()
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

  /** Whether {@link findFileHashes} will find some, as far as can be said without reading them. */
  hasFileHashes(path: StorePath, narHash: NarHash): boolean {
    const due = this.#fileHashes.get(path)
    if (due !== undefined) return due.narHash === narHash
    if ((this.#stale.has(path) && !this.#records.has(path)) || this.#damaged.has(path)) return false
    return (
      this.#row('select nar_hash from file_hashes where path = ?', path)?.['nar_hash'] === narHash
    )
  }

  /** Remembers that `path` is good, and what its files hold unless that is known. */
  record(path: StorePath, record: LedgerRecord, fileHashes?: Uint8Array): void {
    if (fileHashes !== undefined)
      this.#fileHashes.set(path, { narHash: record.narHash, hashes: fileHashes })
    const known = this.#stale.has(path) ? this.#records.get(path) : this.#peek(path)
    // A full pass over unchanged content renews the time; the metadata, megabytes of it, are as they were.
    const same =
      !this.#damaged.has(path) &&
      known?.narHash === record.narHash &&
      known.snapshot.digest === record.snapshot.digest
    const snapshot = (same && this.#records.get(path)?.snapshot) || record.snapshot
    this.#records.set(path, { ...record, snapshot })
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
    for (const [path, what] of this.#stale) if (what === 'all') this.#damaged.delete(path)
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
    const prepare = (sql: string): StatementSync => this.#database.prepare(sql)
    const put = prepare('insert or replace into paths values (?, ?, ?, ?, ?, ?)')
    const putSnapshot = prepare('insert or replace into snapshots values (?, ?, ?)')
    const putHashes = prepare('insert or replace into file_hashes values (?, ?, ?, ?)')
    const renew = prepare(
      'update paths set full_at_ms = ?, attributes = ?, digest = ? where path = ? and nar_hash = ? and snapshot = ?',
    )
    const removals = ['paths', 'snapshots', 'file_hashes'].map((table) =>
      prepare(`delete from ${table} where path = ?`),
    )
    for (const [path, what] of this.#stale) {
      const record = this.#records.get(path)
      if (record === undefined) {
        for (const remove of removals) remove.run(path)
        continue
      }
      const due = this.#fileHashes.get(path)
      if (due !== undefined) {
        const digest = digestOfHashes(path, due.narHash, due.hashes)
        putHashes.run(path, due.narHash, due.hashes, digest)
      }
      const { narHash, fullAtMs, attributes, snapshot } = record
      const digest = digestOf(path, record)
      const head = [fullAtMs, Number(attributes), digest] as const
      // Another process may have written something else meanwhile.
      if (what === 'time' && renew.run(...head, path, narHash, snapshot.digest).changes === 1)
        continue
      // SQLite takes no shared memory.
      putSnapshot.run(path, new Uint8Array(snapshot.stats.buffer).slice(), snapshot.names.slice())
      put.run(path, narHash, fullAtMs, Number(attributes), snapshot.digest, digest)
    }
  }

  #load(path: StorePath): LedgerRecord | undefined {
    const head = this.#peek(path)
    if (head === undefined) return undefined
    const { stats, names } = this.#row('select * from snapshots where path = ?', path) ?? {}
    if (isBytes(stats) && isBytes(names) && stats.length % ENTRY_BYTES === 0) {
      const snapshot = restoreSnapshot(stats, names)
      if (snapshot.digest === head.snapshot.digest) return { ...head, snapshot }
    }
    this.#damaged.add(path)
    return undefined
  }

  /** What is known of `path`, without the long rows: of the snapshot only its digest. */
  #peek(path: StorePath): Head | undefined {
    if (this.#damaged.has(path)) return undefined
    const known = this.#records.get(path)
    if (known !== undefined) return known
    const row = this.#row('select * from paths where path = ?', path)
    if (row === undefined) return undefined
    const head = {
      narHash: row['nar_hash'] as NarHash, // compared with a parsed one before it is used
      fullAtMs: Number(row['full_at_ms']),
      attributes: row['attributes'] === 1,
      snapshot: { digest: String(row['snapshot']) },
    }
    const { digest } = row
    return isBytes(digest) && digestOf(path, head).equals(digest) ? head : undefined
  }

  /** A row of a path; none where the file is damaged: the next write says what is wrong with it. */
  #row(sql: string, path: StorePath): Readonly<Record<string, unknown>> | undefined {
    try {
      return this.#database.prepare(sql).get(path)
    } catch {
      return undefined
    }
  }

  #loadFileHashes(path: StorePath, narHash: NarHash): Uint8Array | undefined {
    const { hashes, digest } = this.#row('select * from file_hashes where path = ?', path) ?? {}
    if (isBytes(hashes) && isBytes(digest) && digestOfHashes(path, narHash, hashes).equals(digest))
      return hashes
    this.#damaged.add(path)
    return undefined
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
  } else if (application === APPLICATION_ID && [1, 2, 3].some((old) => old === format)) {
    // Their rows lack columns or have others; what they knew is read again.
    database.exec(`begin immediate; drop table paths; drop table if exists file_hashes;
      pragma user_version = ${FORMAT}; commit`)
  } else if (format !== FORMAT || application !== APPLICATION_ID) {
    throw new Error(`expected format ${FORMAT}, got ${String(format)}`)
  }
}

function digestOf(path: StorePath, { narHash, fullAtMs, attributes, snapshot }: Head): Buffer {
  const head = JSON.stringify([path, narHash, fullAtMs, attributes, snapshot.digest])
  return createHash('sha256').update(head).digest()
}

/** Binds the hashes to the path and the NAR hash that they were read with. */
function digestOfHashes(path: StorePath, narHash: NarHash, hashes: Uint8Array): Buffer {
  const first = JSON.stringify([path, narHash, hashes.length])
  return createHash('sha256').update(`${first}\n`).update(hashes).digest()
}

const isBytes = (value: unknown): value is Uint8Array => value instanceof Uint8Array
