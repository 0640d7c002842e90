// SQLite in WAL mode. The writer's connection is the worker's alone; readers never wait for it.
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { Kysely, SqliteDialect, type SqliteDatabase, type SqliteStatement } from 'kysely'
import type { BrokerErrorCode } from '../error.ts'
import type { Engine, Parameter, Statement, Transaction } from './engine.ts'
import type { Tables, Types } from './schema.ts'

/** How long a statement waits for another process's lock; STORE_TIMEOUT after that. */
const BUSY_TIMEOUT_MS = 5_000
/** Statements of Kysely's kept compiled; their texts vary, and would fill memory without a bound. */
const MAX_PREPARED = 200

// A commit's cost is mostly pages written, twice each: to the WAL, and from there to the file. A WAL of
// 16 MiB holds an index page that many commits change only once when it is copied; the look-ups' index
// pages stay in a cache of 32 MiB.
const WAL_PAGES = 4_096
const CACHE_KIB = 32 * 1_024

const types: Types = {
  integer: 'integer',
  bytes: 'blob',
  options: 'strict',
  keyed: 'strict, without rowid',
  hashText: 'hex(hash)',
}

/** Opens the file; the writer makes it, readable by its owner alone. */
export function openSqlite(config: { readonly file: string }, mode: 'write' | 'read'): Engine {
  if (mode === 'write') closeSync(openSync(config.file, 'a', 0o600))
  const database = new DatabaseSync(config.file, {
    readOnly: mode === 'read',
    timeout: BUSY_TIMEOUT_MS,
  })
  if (mode === 'write')
    database.exec(`pragma journal_mode = wal; pragma wal_autocheckpoint = ${WAL_PAGES};
      pragma cache_size = -${CACHE_KIB}`)
  // FULL: a commit is on the disk when it returns, not only in the WAL's page cache.
  database.exec('pragma synchronous = full; pragma trusted_schema = off')
  const db = new Kysely<Tables>({ dialect: new SqliteDialect({ database: adapt(database) }) })
  const prepare = preparedBy(database)
  const tx = transaction(prepare)
  return {
    db,
    types,
    write: (work) => db.transaction().execute(work),
    // Nothing else runs on this connection meanwhile: the sequencer takes one batch after the other.
    async commit(work) {
      prepare('begin immediate').run()
      try {
        const result = await work(tx)
        prepare('commit').run()
        return result
      } catch (error) {
        // A full disk has rolled back already.
        if (database.isTransaction) prepare('rollback').run()
        throw error
      }
    },
    // NORMAL: the WAL is not synced. The next commit under FULL syncs all of it, and until then a
    // power failure loses this transaction whole.
    async relaxed(statement, ...parameters) {
      database.exec('pragma synchronous = normal')
      try {
        prepare(statement.sqlite).run(...parameters)
      } finally {
        database.exec('pragma synchronous = full')
      }
    },
    close: () => db.destroy(),
  }
}

/** Statements by their text, kept for good: there are as many as are written down in these files. */
function preparedBy(database: DatabaseSync): (text: string) => StatementSync {
  const prepared = new Map<string, StatementSync>()
  return (text) => {
    const known = prepared.get(text)
    if (known !== undefined) return known
    const statement = database.prepare(text)
    prepared.set(text, statement)
    return statement
  }
}

function transaction(prepare: (text: string) => StatementSync): Transaction {
  // Rows come back as the statement's text says; the caller wrote both.
  const all = <Row>({ sqlite }: Statement, parameters: readonly Parameter[]): Row[] =>
    prepare(sqlite).all(...parameters) as Row[]
  return {
    query: async (statement, ...parameters) => all(statement, parameters),
    lookup: async (statement, keys) => all(statement, [JSON.stringify(keys)]),
    async insert(table, rows) {
      const [first] = rows
      if (first === undefined) return
      const columns = Object.keys(first)
      const places = columns.map(() => '?').join(', ')
      const text = `insert into ${table} (${columns.join(', ')}) values (${places})`
      const statement = prepare(text)
      for (const row of rows) statement.run(...(Object.values(row) as Parameter[]))
    },
  }
}

// Primary result codes, and the extended one for a full disk under the shared memory file.
const CODES: Readonly<Record<number, BrokerErrorCode>> = {
  5: 'STORE_TIMEOUT', // BUSY
  6: 'STORE_TIMEOUT', // LOCKED
  11: 'LOG_CORRUPT', // CORRUPT
  13: 'STORE_FULL', // FULL
  19: 'STORE_CONFLICT', // CONSTRAINT
  26: 'LOG_CORRUPT', // NOTADB
}
const IOERR_SHMSIZE = 4874

/** What an error of SQLite is called; undefined for any other. */
export function sqliteCodeOf(cause: Error): BrokerErrorCode | undefined {
  if (!('errcode' in cause) || typeof cause.errcode !== 'number') return undefined
  if (cause.errcode === IOERR_SHMSIZE) return 'STORE_FULL'
  return CODES[cause.errcode & 0xff] ?? 'STORE_UNAVAILABLE'
}

function adapt(database: DatabaseSync): SqliteDatabase {
  const prepared = new Map<string, SqliteStatement>()
  return {
    close: () => database.close(),
    prepare(text) {
      // Every transaction here writes: taking the lock at once keeps "read, then write" from failing.
      const statement = text === 'begin' ? 'begin immediate' : text
      // A full disk has rolled back already; Kysely's own rollback must not hide that error.
      if (text === 'rollback' && !database.isTransaction) return nothing
      const known = prepared.get(statement)
      if (known !== undefined) return known
      if (prepared.size >= MAX_PREPARED) prepared.clear()
      const compiled = compile(database, statement)
      prepared.set(statement, compiled)
      return compiled
    },
  }
}

function compile(database: DatabaseSync, text: string): SqliteStatement {
  const statement = database.prepare(text)
  // Kysely passes what our queries pass: numbers, text, bytes and null.
  const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[]
  return {
    reader: statement.columns().length > 0,
    all: (parameters) => statement.all(...values(parameters)),
    run: (parameters) => statement.run(...values(parameters)),
    iterate: (parameters) => statement.iterate(...values(parameters)),
  }
}

const nothing: SqliteStatement = {
  reader: false,
  all: () => [],
  run: () => ({ changes: 0, lastInsertRowid: 0 }),
  iterate: () => [][Symbol.iterator](),
}
