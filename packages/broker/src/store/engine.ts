import type { Insertable, Kysely } from 'kysely'
import { openPostgres } from './postgres.ts'
import type { Tables, Types } from './schema.ts'
import { openSqlite } from './sqlite.ts'

/** Which database: a file of our own, or a server that several brokers may share. */
export type EngineConfig =
  | { readonly sqlite: { readonly file: string } }
  | { readonly postgres: { readonly url: string } }

/** What differs between the databases. */
export interface Engine {
  readonly db: Kysely<Tables>
  readonly types: Types
  /**
   * Runs `work` in a transaction that no other writer of this log overlaps, in this process or another.
   * Durable when it resolves; nothing of it happened when `work` throws.
   */
  write<T>(work: (tx: Kysely<Tables>) => Promise<T>): Promise<T>
  /** As {@link write}, for what is done thousands of times: statements that stay compiled. */
  commit<T>(work: (tx: Transaction) => Promise<T>): Promise<T>
  /**
   * Runs one statement in a transaction of its own that a power failure may undo as a whole, never one
   * that was committed by `write` or `commit` before or after it. In PostgreSQL the statement itself asks
   * for that.
   */
  relaxed(statement: Statement, ...parameters: readonly Parameter[]): Promise<void>
  close(): Promise<void>
}

/** A statement that is compiled once for each connection: its text is the same every time. */
export interface Statement {
  /** Names it among the statements of a connection. */
  readonly name: string
  readonly sqlite: string
  readonly postgres: string
}

/** A value of a statement. */
export type Parameter = string | number | null | Uint8Array

/**
 * A transaction of fixed statements. They run in the order in which they were called; which need nothing
 * of each other's answers are best called at once, because PostgreSQL then answers them together.
 */
export interface Transaction {
  query<Row extends object>(
    statement: Statement,
    ...parameters: readonly Parameter[]
  ): Promise<Row[]>
  /**
   * Rows by any number of keys, each of the same few columns. SQLite gets them as one JSON array of arrays,
   * PostgreSQL as one array for each column.
   */
  lookup<Row extends object>(
    statement: Statement,
    keys: readonly (readonly (string | number)[])[],
  ): Promise<Row[]>
  /** Rows that have the same columns, in the same order. */
  insert<T extends keyof Tables>(table: T, rows: readonly Insertable<Tables[T]>[]): Promise<void>
}

/** Opens the database for writing or for reading; only the writer makes it and its schema. */
export function openEngine(config: EngineConfig, mode: 'write' | 'read'): Engine {
  return 'sqlite' in config ? openSqlite(config.sqlite, mode) : openPostgres(config.postgres, mode)
}
