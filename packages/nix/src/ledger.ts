// The ledger: for each store path when its content was last read in full, which NAR hash it had then, and
// the metadata of every entry at that moment. A later look compares metadata and reads only what moved.
//
// What it rests on: the kernel sets ctime at every change of a file's content or metadata, to its own
// clock. Someone who is root can set that clock, or write to the raw disk; therefore a ledger gives the
// strength `incremental` and never `full`, and policy bounds the age of the last full pass. The file must
// be writable by root only: whoever writes it decides what counts as unmoved.
//
// Records are kept in memory and written behind. A crash loses the last seconds of records, and all that a
// lost record means is that a path is read again; a record that is there was written in one transaction.
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
  readonly snapshot: Snapshot
}

const FORMAT = 1
const APPLICATION_ID = 0x42616763 // "Bagc"
const WRITE_DELAY_MS = 1000

const SCHEMA = `create table if not exists paths (
  path text primary key, nar_hash text not null, full_at_ms integer not null,
  stats blob not null, names blob not null
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

/** An open ledger; made by {@link openLedger}. For one process at a time. */
export class Ledger {
  readonly #database: DatabaseSync
  readonly #records = new Map<StorePath, LedgerRecord>()
  /** Paths whose row on disk is behind: in all of it, or in the time only. */
  readonly #stale = new Map<StorePath, 'all' | 'time'>()
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

  record(path: StorePath, record: LedgerRecord): void {
    const before = this.#records.get(path)
    // A full pass over unchanged content renews the time; the metadata, megabytes of it, are as they were.
    const same = before !== undefined && isSameSnapshot(before.snapshot, record.snapshot)
    const renewed = same && before.narHash === record.narHash
    this.#records.set(path, renewed ? { ...record, snapshot: before.snapshot } : record)
    this.#writeLater(path, renewed ? 'time' : 'all')
  }

  /** Drops what is known about `path`, which was found bad. */
  forget(path: StorePath): void {
    this.#records.delete(path)
    this.#writeLater(path, 'all')
  }

  /** Writes what is only in memory so far. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#stale.size === 0) return
    const put = this.#database.prepare('insert or replace into paths values (?, ?, ?, ?, ?)')
    const renew = this.#database.prepare('update paths set full_at_ms = ? where path = ?')
    const remove = this.#database.prepare('delete from paths where path = ?')
    this.#database.exec('begin immediate')
    try {
      for (const [path, what] of this.#stale) {
        const record = this.#records.get(path)
        if (record === undefined) remove.run(path)
        else if (what === 'time') renew.run(record.fullAtMs, path)
        else put.run(path, record.narHash, record.fullAtMs, ...encodeSnapshot(record.snapshot))
      }
      this.#database.exec('commit')
    } catch (error) {
      this.#database.exec('rollback')
      throw error
    }
    this.#stale.clear()
  }

  /** Writes the rest and closes the file. */
  close(): void {
    this.flush()
    this.#database.close()
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

  #load(path: StorePath): LedgerRecord | undefined {
    const row = this.#database
      .prepare('select nar_hash, full_at_ms, stats, names from paths where path = ?')
      .get(path)
    if (row === undefined) return undefined
    const { stats, names } = row
    if (!(stats instanceof Uint8Array) || !(names instanceof Uint8Array)) return undefined
    if (stats.length % 8 !== 0) return undefined
    const snapshot = restoreSnapshot(
      new BigInt64Array(stats.slice().buffer),
      Buffer.from(names).toString('latin1'),
    )
    if (snapshot === undefined) return undefined
    const narHash = row['nar_hash'] as NarHash // compared with a parsed one before it is used
    return { narHash, fullAtMs: Number(row['full_at_ms']), snapshot }
  }
}

function checkFormat(database: DatabaseSync): void {
  const pragma = (name: string): unknown => database.prepare(`pragma ${name}`).get()?.[name]
  const format = pragma('user_version')
  const application = pragma('application_id')
  const tables = database.prepare('select count(*) as n from sqlite_schema').get()?.['n']
  if (format === 0 && application === 0 && tables === 0) {
    database.exec(`pragma application_id = ${APPLICATION_ID}`)
    database.exec(`pragma user_version = ${FORMAT}`)
  } else if (format !== FORMAT || application !== APPLICATION_ID) {
    throw new Error(`expected format ${FORMAT}, got ${String(format)}`)
  }
}

function encodeSnapshot({ stats, names }: Snapshot): [Uint8Array, Uint8Array] {
  return [new Uint8Array(stats.buffer).slice(), Buffer.from(names, 'latin1')]
}
