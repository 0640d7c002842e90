// Nix's own database, read-only: /nix/var/nix/db/db.sqlite, schema 10 (Nix 2.8 to 2.34).
//
//   ValidPaths(id, path, hash "sha256:<base16>", registrationTime, deriver, narSize, ultimate, sigs, ca)
//   Refs(referrer, reference)            self-references included
//
// For offline images and for hosts without a daemon. Its facts are claims: root can edit them. On a live
// node prefer the daemon, because a database in WAL mode can be read only where its `-shm` file can be
// written, or as `immutable`, which misses what Nix writes meanwhile.
// https://github.com/NixOS/nix/blob/master/src/libstore/schema.sql
import { statSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { DatabaseSync } from 'node:sqlite'
import type { SQLOutputValue, StatementSync } from 'node:sqlite'
import type { ClosureSource } from './closure.ts'
import { refuseSharedPages } from './database-pages.ts'
import { NixError, quote } from './error.ts'
import { parseNarHash } from './hash.ts'
import type { PathInfo } from './manifest.ts'
import { byteOrder, parseStorePath } from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** Nix's database, open for reading. */
export interface NixDatabase extends ClosureSource {
  readonly kind: 'database'
  /**
   * The facts about every path of the closure of `root`, in one consistent read.
   *
   * @throws {NixError} PATH_INVALID – `root` is not valid; DATABASE_ROW – a row no Nix writes
   */
  readClosure(root: StorePath): PathInfo[]
  /**
   * The facts about every valid path of the store, in byte order and in one consistent read.
   *
   * @throws {NixError} DATABASE_ROW – a row no Nix writes
   */
  readAll(): PathInfo[]
}

/** Where Nix keeps its database. */
export const NIX_DATABASE_FILE = '/nix/var/nix/db/db.sqlite'

// References as numbers, all of a path in one value: a row for each, with a path in it, would be most of the
// work of reading a closure.
const FACTS = `select id, path, hash, narSize, deriver, ultimate, sigs, ca,
  (select group_concat(reference) from Refs where referrer = id) as refs from`
const CLOSURE = `with recursive closure(member) as (
  select id from ValidPaths where path = ?
  union
  select reference from Refs join closure on referrer = member)`

type Row = Record<string, SQLOutputValue>

/**
 * Opens Nix's database.
 *
 * @param options.immutable Take the file as one that nobody writes, as in an image mounted read-only. Then, and only
 * then, it is also refused where it is made to keep SQLite busy.
 * @throws {NixError} DATABASE_OPEN – missing, unreadable or without the tables of schema 10
 */
export function openNixDatabase(
  file: string = NIX_DATABASE_FILE,
  options: { readonly immutable?: boolean } = {},
): NixDatabase {
  let database: DatabaseSync | undefined
  try {
    const url = pathToFileURL(file)
    if (options.immutable === true) url.searchParams.set('immutable', '1')
    const opened = (database = new DatabaseSync(url, { readOnly: true, timeout: 5000 }))
    if (options.immutable === true) refuseSharedPages(file, () => rootPages(opened)) // before SQLite looks
    checkWhole(database, file)
    return new Database(database)
  } catch (cause) {
    database?.close()
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('DATABASE_OPEN', `expected Nix's database at ${quote(file)}: ${reason}`, {
      cause,
      detail: { file },
    })
  }
}

/** SQLite finds pages that are missing, and takes the missing half of one for zeros: rows without references. */
function checkWhole(database: DatabaseSync, file: string): void {
  const pageSize = Number(database.prepare('pragma page_size').get()?.['page_size'])
  if (!(statSync(file).size % pageSize === 0)) throw new Error('it is cut off')
}

function rootPages(database: DatabaseSync): number[] {
  const rows = database.prepare('select rootpage from sqlite_schema where rootpage <> 0').all()
  return rows.map((row) => Number(row['rootpage']))
}

class Database implements NixDatabase {
  readonly kind = 'database'
  readonly #database: DatabaseSync
  readonly #path: StatementSync
  readonly #pathReferences: StatementSync
  readonly #closure: StatementSync

  constructor(database: DatabaseSync) {
    this.#database = database
    // An image may hold any file: a view could say anything, and take for ever to say it, and so could a
    // column that is computed. SQLite says what a table is; its text can be written in many ways.
    const tables = database
      .prepare(`select name from pragma_table_list as listed where schema = 'main' and type = 'table'
                and name in ('ValidPaths', 'Refs')
                and not exists (select 1 from pragma_table_xinfo(listed.name) where hidden <> 0)`)
      .all()
    if (tables.length !== 2) throw new Error('the tables ValidPaths and Refs are not both there')
    this.#path = database.prepare(`${FACTS} ValidPaths where path = ?`)
    this.#pathReferences = database.prepare(
      `select id, path from Refs join ValidPaths on id = reference where referrer = ?`,
    )
    this.#closure = database.prepare(`${CLOSURE} ${FACTS} closure join ValidPaths on id = member`)
  }

  async queryPathInfo(path: StorePath): Promise<PathInfo | undefined> {
    return this.#read(() => {
      const row = this.#path.get(path)
      if (row === undefined) return undefined
      return parseRows([row], this.#pathReferences.all(row['id'] as number))[0]
    })
  }

  readClosure(root: StorePath): PathInfo[] {
    const infos = this.#read(() => parseRows(this.#closure.all(root)))
    if (infos.length === 0)
      throw new NixError('PATH_INVALID', `expected a valid store path, got ${quote(root)}`, {
        detail: { path: root },
      })
    return infos
  }

  readAll(): PathInfo[] {
    return this.#read(() => parseRows(this.#database.prepare(`${FACTS} ValidPaths`).all()))
  }

  async close(): Promise<void> {
    this.#database.close()
  }

  /** Two statements must see one state: Nix may register or delete paths between them. */
  #read<T>(work: () => T): T {
    try {
      this.#database.exec('begin')
      try {
        return work()
      } finally {
        this.#database.exec('commit')
      }
    } catch (cause) {
      if (cause instanceof NixError) throw cause
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new NixError('DATABASE_ROW', `expected rows as Nix writes them: ${reason}`, { cause })
    }
  }
}

/** The facts in `rows`, in byte order of path; what they refer to has its path in `named`. */
function parseRows(rows: readonly Row[], named: readonly Row[] = rows): PathInfo[] {
  // Each path is parsed once, and one string wherever it is named; in this order its place says which comes
  // first, so that references need not be compared as strings.
  const paths = named.map(({ id, path }) => ({ id, path: parseStorePath(String(path)) }))
  paths.sort((a, b) => byteOrder(a.path, b.path))
  const places = new Map(paths.map(({ id }, place) => [Number(id), place]))
  const infos = rows.map((row) => ({
    path: parseStorePath(String(row['path'])),
    narHash: parseNarHash(String(row['hash'])),
    narSize: parseSize(row['narSize']),
    references: parseReferences(row['refs'], places).map(
      (place) => paths[place]?.path as StorePath,
    ),
    ...(row['deriver'] ? { deriver: parseStorePath(String(row['deriver'])) } : {}),
    ultimate: row['ultimate'] === 1,
    signatures: row['sigs'] ? String(row['sigs']).split(' ') : [],
    ...(row['ca'] ? { ca: String(row['ca']) } : {}),
  }))
  return infos.sort((a, b) => byteOrder(a.path, b.path))
}

/** Places in the list of paths, in order. */
function parseReferences(
  refs: SQLOutputValue | undefined,
  places: ReadonlyMap<number, number>,
): number[] {
  if (refs === null || refs === undefined) return []
  const found = String(refs)
    .split(',')
    .map((id) => {
      const place = places.get(Number(id))
      if (place !== undefined) return place
      throw new NixError('DATABASE_ROW', `expected a valid path with id ${quote(id)}`)
    })
  found.sort((a, b) => a - b)
  if (found.every((place, index) => place !== found[index - 1])) return found
  throw new NixError('DATABASE_ROW', 'expected each reference once')
}

function parseSize(value: SQLOutputValue | undefined): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
  throw new NixError('DATABASE_ROW', `expected a NAR size, got ${quote(String(value))}`)
}
