// PostgreSQL, which several brokers may share. Writers exclude each other by an advisory lock that ends
// with the transaction; a connection that broke is replaced at the next call.
import { Kysely, PostgresDialect, sql } from 'kysely'
import { Pool, types as pgTypes } from 'pg'
import type { Engine } from './engine.ts'
import type { Tables, Types } from './schema.ts'

/** Bounds of one statement: by the server, and by us when the server does not answer at all. */
const STATEMENT_TIMEOUT_MS = 5_000
const QUERY_TIMEOUT_MS = 7_000
const CONNECT_TIMEOUT_MS = 3_000
const MAX_READERS = 4
/** Names the sequencer's lock among the advisory locks of the database ("bagcheck" in ASCII). */
const SEQUENCER_LOCK = '7089059814158985067'

const INT8 = 20
const types: Types = { integer: 'bigint', bytes: 'bytea', options: '' }

/** Opens a pool: one connection for the writer, {@link MAX_READERS} for readers. */
export function openPostgres(config: { readonly url: string }, mode: 'write' | 'read'): Engine {
  const pool = new Pool({
    connectionString: config.url,
    max: mode === 'write' ? 1 : MAX_READERS,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: STATEMENT_TIMEOUT_MS,
    idle_in_transaction_session_timeout: QUERY_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
    application_name: 'bagcheck-broker',
    types: { getTypeParser },
  })
  // A server that goes away breaks connections, at rest and at work. The pool drops them and whoever was
  // at work is told by his query; without these listeners the event would end the thread.
  pool.on('error', () => undefined)
  pool.on('connect', (client) => client.on('error', () => undefined))
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
  return {
    db,
    types,
    write: (work) =>
      db.transaction().execute(async (tx) => {
        // A server or role may default to asynchronous commits, which can be lost.
        await sql`select pg_advisory_xact_lock(${sql.lit(SEQUENCER_LOCK)}::bigint),
          set_config('synchronous_commit', 'on', true)`.execute(tx)
        return work(tx)
      }),
    writeRelaxed: (work) =>
      db.transaction().execute(async (tx) => {
        await sql`set local synchronous_commit = off`.execute(tx)
        await work(tx)
      }),
    close: () => db.destroy(),
  }
}

// pg gives 64-bit integers as text, because not all fit a number. Ours do, or something is wrong.
const getTypeParser: typeof pgTypes.getTypeParser = (oid: number, format?: 'text' | 'binary') =>
  oid === INT8 && format !== 'binary' ? parseSafeInteger : pgTypes.getTypeParser(oid, format)

function parseSafeInteger(text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value)) return value
  throw new RangeError(`expected a safe integer, saw ${text}`)
}
