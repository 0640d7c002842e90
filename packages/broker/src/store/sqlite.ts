// SQLite in WAL mode. The writer's connection is the worker's alone; readers never wait for it.
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { Kysely, SqliteDialect, sql, type SqliteDatabase, type SqliteStatement } from 'kysely'
import type { Engine } from './engine.ts'
import type { Tables, Types } from './schema.ts'

/** How long a statement waits for another process's lock; STORE_TIMEOUT after that. */
const BUSY_TIMEOUT_MS = 5_000
/** Statements kept compiled; batches of many sizes would fill memory without a bound. */
const MAX_PREPARED = 200

const types: Types = { integer: 'integer', bytes: 'blob', options: 'strict' }

/** Opens the file; the writer makes it, readable by its owner alone. */
export function openSqlite(config: { readonly file: string }, mode: 'write' | 'read'): Engine {
  if (mode === 'write') closeSync(openSync(config.file, 'a', 0o600))
  const database = new DatabaseSync(config.file, {
    readOnly: mode === 'read',
    timeout: BUSY_TIMEOUT_MS,
  })
  if (mode === 'write') database.exec('pragma journal_mode = wal')
  // FULL: a commit is on the disk when it returns, not only in the WAL's page cache.
  database.exec('pragma synchronous = full; pragma trusted_schema = off')
  const db = new Kysely<Tables>({ dialect: new SqliteDialect({ database: adapt(database) }) })
  return {
    db,
    types,
    write: (work) => db.transaction().execute(work),
    // NORMAL: the WAL is not synced. The next commit under FULL syncs all of it, and until then a
    // power failure loses this transaction whole.
    async writeRelaxed(work) {
      await sql`pragma synchronous = normal`.execute(db)
      try {
        await db.transaction().execute(work)
      } finally {
        await sql`pragma synchronous = full`.execute(db)
      }
    },
    close: () => db.destroy(),
  }
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
