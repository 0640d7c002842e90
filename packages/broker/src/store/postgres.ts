// PostgreSQL, which several brokers may share. Writers exclude each other by an advisory lock that ends
// with the transaction; a connection that broke is replaced at the next call.
import { Kysely, PostgresDialect, sql } from 'kysely'
import { Pool, types as pgTypes, type PoolClient } from 'pg'
import { BrokerError, quote, type BrokerErrorCode } from '../error.ts'
import type { Engine, Transaction } from './engine.ts'
import type { Tables, Types } from './schema.ts'

/** Bounds of one statement: by the server, and by us when the server does not answer at all. */
const STATEMENT_TIMEOUT_MS = 5_000
const QUERY_TIMEOUT_MS = 7_000
const CONNECT_TIMEOUT_MS = 3_000
const MAX_READERS = 4
/** Names the sequencer's lock among the advisory locks of the database ("bagcheck" in ASCII). */
const SEQUENCER_LOCK = '7089059814158985067'
/**
 * What a writer's transaction begins with. A server or role may default to asynchronous commits, which can
 * be lost. A statement that was compiled while a table was small must not go on reading all of it, and a
 * plan that the server takes for expensive is not worth native code: every statement here is a few rows.
 */
const LOCK = `select pg_advisory_xact_lock(${SEQUENCER_LOCK}::bigint),
  set_config('synchronous_commit', 'on', true), set_config('enable_seqscan', 'off', true),
  set_config('jit', 'off', true)`
/** Rows of one insert at most; a power of two. */
const MAX_INSERT_ROWS = 64

const INT8 = 20
const types: Types = {
  integer: 'bigint',
  bytes: 'bytea',
  options: '',
  keyed: '',
  hashText: "upper(encode(hash, 'hex'))",
}

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
    // The writer's statements are sent without waiting for the answer to the one before.
    ...(mode === 'write' && { pipeline: true }),
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
        await sql.raw(LOCK).execute(tx)
        return work(tx)
      }),
    async commit(work) {
      const client = await pool.connect()
      try {
        const result = await inTransaction(client, work)
        client.release()
        return result
      } catch (error) {
        // A connection that cannot even roll back is not used again.
        await client.query('rollback').then(
          () => client.release(),
          () => client.release(true),
        )
        throw error
      }
    },
    async relaxed({ name, postgres }, ...values) {
      await pool.query({ name, text: postgres, values: [...values] })
    },
    close: () => db.destroy(),
  }
}

async function inTransaction<T>(
  client: PoolClient,
  work: (tx: Transaction) => Promise<T>,
): Promise<T> {
  // Not waited for: the first look-ups of `work` are answered together with the lock.
  const opened = Promise.all([client.query('begin'), client.query(LOCK)])
  const [locked, worked] = await Promise.allSettled([opened, work(transaction(client))])
  // First the lock: what came after its failure failed for no reason of its own.
  if (locked.status === 'rejected') throw locked.reason
  if (worked.status === 'rejected') throw worked.reason
  // A transaction that failed unnoticed is rolled back by `commit`, which says so and is no error.
  const { command } = await client.query('commit')
  if (command !== 'COMMIT')
    throw new BrokerError('STORE_UNAVAILABLE', `expected COMMIT to be done, saw ${quote(command)}`)
  return worked.value
}

function transaction(client: PoolClient): Transaction {
  return {
    query: async ({ name, postgres }, ...values) =>
      (await client.query({ name, text: postgres, values: [...values] })).rows,
    lookup: async ({ name, postgres }, keys) => {
      const columns = (keys[0] ?? []).map((_, column) => keys.map((key) => key[column]))
      return (await client.query({ name, text: postgres, values: columns })).rows
    },
    async insert(table, rows) {
      // Few sizes, so that few statements are compiled: as many rows as the largest power of two.
      const inserts: Promise<unknown>[] = []
      for (let start = 0; start < rows.length;) {
        const count = Math.min(MAX_INSERT_ROWS, 2 ** Math.floor(Math.log2(rows.length - start)))
        const values = rows.slice(start, start + count).flatMap((row) => Object.values(row))
        const text = insertText(table, Object.keys(rows[start] ?? {}), count)
        inserts.push(client.query({ name: `insert ${table} ${count}`, text, values }))
        start += count
      }
      await Promise.all(inserts)
    },
  }
}

function insertText(table: string, columns: readonly string[], count: number): string {
  const places = (row: number): string =>
    columns.map((_, column) => `$${row * columns.length + column + 1}`).join(', ')
  const rows = Array.from({ length: count }, (_, row) => `(${places(row)})`).join(', ')
  return `insert into ${table} (${columns.join(', ')}) values ${rows}`
}

// SQLSTATE, whole or by class.
const CODES: Readonly<Record<string, BrokerErrorCode>> = {
  '53100': 'STORE_FULL', // disk_full
  '55P03': 'STORE_TIMEOUT', // lock_not_available
  '57014': 'STORE_TIMEOUT', // query_canceled, by statement_timeout
  '25P03': 'STORE_TIMEOUT', // idle_in_transaction_session_timeout
  '22': 'STORE_CONFLICT', // data exception
  '23': 'STORE_CONFLICT', // integrity constraint violation
  XX: 'LOG_CORRUPT', // data_corrupted, index_corrupted, internal_error
}

/** What an error of PostgreSQL or its driver is called; undefined for any other. */
export function postgresCodeOf(cause: Error): BrokerErrorCode | undefined {
  if ('code' in cause && typeof cause.code === 'string' && /^[0-9A-Z]{5}$/.test(cause.code))
    return CODES[cause.code] ?? CODES[cause.code.slice(0, 2)] ?? 'STORE_UNAVAILABLE'
  // pg has no code for the bound that it keeps itself.
  return cause.message === 'Query read timeout' ? 'STORE_TIMEOUT' : undefined
}

// pg gives 64-bit integers as text, because not all fit a number. Ours do, or something is wrong.
const getTypeParser: typeof pgTypes.getTypeParser = (oid: number, format?: 'text' | 'binary') =>
  oid === INT8 && format !== 'binary' ? parseSafeInteger : pgTypes.getTypeParser(oid, format)

function parseSafeInteger(text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value)) return value
  throw new RangeError(`expected a safe integer, saw ${text}`)
}
