import type { Kysely } from 'kysely'
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
  /**
   * Runs `work` in a transaction of its own that a power failure may undo as a whole, never one that was
   * committed by `write` before or after it.
   */
  writeRelaxed(work: (tx: Kysely<Tables>) => Promise<void>): Promise<void>
  close(): Promise<void>
}

/** Opens the database for writing or for reading; only the writer makes it and its schema. */
export function openEngine(config: EngineConfig, mode: 'write' | 'read'): Engine {
  return 'sqlite' in config ? openSqlite(config.sqlite, mode) : openPostgres(config.postgres, mode)
}
