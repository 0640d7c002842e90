import { hash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openNixDatabase, parseStorePath, readClosure } from '@bagcheck/nix'

const a = parseStorePath(`/nix/store/${'a'.repeat(32)}-a`)
const b = parseStorePath(`/nix/store/${'b'.repeat(32)}-b`)
const c = parseStorePath(`/nix/store/${'c'.repeat(32)}-c`)
const digest = `sha256:${hash('sha256', '')}`

let scratch: string
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bagcheck-database-'))
})
afterAll(() => rmSync(scratch, { recursive: true }))

/** A database with the tables of schema 10, in which a refers to b and to itself, and b to c. */
function make(name: string, change = ''): string {
  const file = join(scratch, name)
  const database = new DatabaseSync(file)
  database.exec(`
    create table ValidPaths (id integer primary key, path text unique not null, hash text not null,
      registrationTime integer not null, deriver text, narSize integer, ultimate integer, sigs text, ca text);
    create table Refs (referrer integer not null, reference integer not null);
    insert into ValidPaths values (1, '${a}', '${digest}', 1, '${a}.drv', 120, 1, 'k1:x k2:y', null),
      (2, '${b}', '${digest}', 1, '', 128, null, null, null), (3, '${c}', '${digest}', 1, null, 136, 0, '', null);
    insert into Refs values (1, 2), (1, 1), (2, 3);
    ${change}`)
  database.close()
  return file
}

describe("Nix's database", () => {
  test.each([
    ['a view for a table', 'drop table Refs; create view Refs as select 1 referrer, 1 reference'],
    [
      'a virtual table',
      'drop table Refs; create virtual table Refs using fts5(referrer, reference)',
    ],
    [
      'a column that is computed',
      `drop table Refs; create table Refs (referrer, reference as (hex(zeroblob(500000000))))`,
    ],
    ['a table of another name', 'drop table Refs; create table Reffs (referrer, reference)'],
  ])('with %s is not opened', (name, change) => {
    const file = make(name.replaceAll(' ', '-'), change)
    expect(() => openNixDatabase(file)).toThrow(expect.objectContaining({ code: 'DATABASE_OPEN' }))
  })

  test('with a virtual table in another spelling is not opened', () => {
    const file = make(
      'spelling',
      'drop table Refs; create virtual table Refs using fts5(referrer, reference)',
    )
    const bytes = readFileSync(file)
    const at = bytes.indexOf('CREATE VIRTUAL')
    expect(at).toBeGreaterThan(0)
    bytes.write('CREATE\tVIRTUAL', at)
    writeFileSync(file, bytes)
    expect(() => openNixDatabase(file)).toThrow(expect.objectContaining({ code: 'DATABASE_OPEN' }))
  })

  test('gives facts and closures', async () => {
    const database = openNixDatabase(make('good'))
    expect(await database.queryPathInfo(a)).toMatchObject({
      references: [a, b],
      deriver: `${a}.drv`,
      ultimate: true,
      signatures: ['k1:x', 'k2:y'],
    })
    expect(await database.queryPathInfo(c)).toEqual({
      path: c,
      narHash: `sha256-${hash('sha256', '', 'base64')}`,
      narSize: 136,
      references: [],
      ultimate: false,
      signatures: [],
    })
    expect((await readClosure(database, a)).entries.map((entry) => entry.path)).toEqual([a, b, c])
    expect((await readClosure(database, b)).entries.map((entry) => entry.path)).toEqual([b, c])
    await database.close()
  })

  test('reads an image that nobody writes', async () => {
    const database = openNixDatabase(make('image'), { immutable: true })
    expect(database.readClosure(a)).toHaveLength(3)
    await database.close()
  })

  test('does not have a path that is not valid', async () => {
    const database = openNixDatabase(make('small', 'delete from Refs; delete from ValidPaths'))
    expect(await database.queryPathInfo(a)).toBeUndefined()
    expect(() => database.readClosure(a)).toThrow(expect.objectContaining({ code: 'PATH_INVALID' }))
    await database.close()
  })

  test.each([
    ['no size', 'update ValidPaths set narSize = null where id = 3', 'DATABASE_ROW'],
    ['a size of 2^60', 'update ValidPaths set narSize = 1 << 60 where id = 3', 'DATABASE_ROW'],
    ['a hash that is none', `update ValidPaths set hash = 'x' where id = 3`, 'HASH'],
    ['a reference twice', 'insert into Refs values (1, 2)', 'DATABASE_ROW'],
    ['a reference to nothing', 'delete from ValidPaths where id = 3', 'DATABASE_ROW'],
    ['a path that is none', `update ValidPaths set path = '/etc' where id = 3`, 'STORE_PATH'],
  ])('is refused with %s', async (name, change, code) => {
    const database = openNixDatabase(make(name, change))
    expect(() => database.readClosure(a)).toThrow(expect.objectContaining({ code }))
    await database.close()
  })

  test('is refused when it is missing, or something else', () => {
    const open = expect.objectContaining({ code: 'DATABASE_OPEN' })
    expect(() => openNixDatabase(join(scratch, 'none'))).toThrow(open)
    writeFileSync(
      join(scratch, 'text'),
      'not a database, but long enough to be looked at'.repeat(100),
    )
    expect(() => openNixDatabase(join(scratch, 'text'))).toThrow(open)
    expect(() => openNixDatabase(make('other', 'drop table Refs'))).toThrow(open)
  })
})
