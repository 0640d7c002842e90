// Nix's database as a disk, a copy or an enemy can leave it: cut off at every byte, with every byte changed, with
// pages in other places, and with its log cut off. SQLite checks the structure that it walks and not the values, so
// that a changed digit is another claim; but whatever is answered has the form of facts, and all else has a code.
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NixError, openNixDatabase, parseNarHash, parseStorePath } from '@bagcheck/nix'
import type { PathInfo, StorePath } from '@bagcheck/nix'

const PAGE = 512
// Of SQLite's write-ahead log: https://www.sqlite.org/fileformat.html#walformat
const LOG_HEAD = 32
const FRAME_HEAD = 24
const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) =>
  parseStorePath(`/nix/store/${name.repeat(32)}-${name}`),
) as [StorePath, StorePath, StorePath, StorePath]

let scratch: string
let target: string
let whole: Buffer
let targetFile: number
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bagcheck-damage-'))
  target = join(scratch, 'target')
  targetFile = openSync(target, 'w+')
  const file = join(scratch, 'whole')
  make(file).close()
  whole = readFileSync(file)
  expect(whole.length).toBeGreaterThan(8 * PAGE)
})
afterAll(() => {
  closeSync(targetFile)
  rmSync(scratch, { recursive: true })
})

/** In place: a file that is made anew each time waits for the disk each time. */
function put(bytes: Uint8Array): void {
  writeSync(targetFile, bytes, 0, bytes.length, 0)
  ftruncateSync(targetFile, bytes.length)
}

/** Schema 10 with small pages, so that every table and index has some of its own: a → a b d, b → c. */
function make(file: string): DatabaseSync {
  const database = new DatabaseSync(file)
  database.exec(`pragma page_size = ${PAGE};
    create table ValidPaths (id integer primary key autoincrement not null, path text unique not null,
      hash text not null, registrationTime integer not null, deriver text, narSize integer, ultimate integer,
      sigs text, ca text);
    create table Refs (referrer integer not null, reference integer not null,
      primary key (referrer, reference),
      foreign key (referrer) references ValidPaths(id) on delete cascade,
      foreign key (reference) references ValidPaths(id) on delete restrict);
    create index IndexReferrer on Refs(referrer);
    create index IndexReference on Refs(reference);`)
  for (const path of [a, b, c, d])
    database.exec(`insert into ValidPaths (path, hash, registrationTime, deriver, narSize, sigs)
      values ('${path}', 'sha256:${'0'.repeat(64)}', 1, '${path}.drv', 120, 'k:x')`)
  database.exec('insert into Refs values (1, 1), (1, 2), (2, 3), (1, 4)')
  return database
}

interface Answers {
  readonly all: readonly PathInfo[]
  readonly closure: readonly PathInfo[]
  readonly one: PathInfo | undefined
}

/** What the file says in each way of reading it, or the code that it is refused with. */
async function read(file: string, immutable: boolean): Promise<Answers | string> {
  try {
    await using stack = new AsyncDisposableStack()
    const database = openNixDatabase(file, { immutable })
    stack.defer(() => database.close())
    const all = database.readAll()
    return { all, closure: database.readClosure(a), one: await database.queryPathInfo(a) }
  } catch (error) {
    if (!(error instanceof NixError)) throw error
    return error.code
  }
}

/** Facts have the form of facts, and a closure has all that is referred to. */
function areFacts({ all, closure, one }: Answers): boolean {
  const members = new Set(closure.map(({ path }) => path))
  return (
    closure.every(({ references }) => references.every((path) => members.has(path))) &&
    [...all, ...closure, ...(one ? [one] : [])].every(isFact)
  )
}

/** The parsers throw where one was left out. */
function isFact({ path, narHash, narSize, references, deriver }: PathInfo): boolean {
  for (const named of [path, ...references, ...(deriver ? [deriver] : [])]) parseStorePath(named)
  const rising = references.every((one, n) => n === 0 || (references[n - 1] ?? '') < one)
  return parseNarHash(narHash) === narHash && Number.isSafeInteger(narSize) && narSize > 0 && rising
}

/** A page with forty cells, all of which lead to `child`. */
function manyWays(child: number, type: number, head = 0): Buffer {
  const page = Buffer.alloc(PAGE)
  page[head] = type
  page.writeUInt16BE(40, head + 3)
  page.writeUInt32BE(child, head + 8)
  for (let cell = 0; cell < 40; cell++) {
    const at = PAGE - 6 * (cell + 1)
    page.writeUInt16BE(at, head + 12 + 2 * cell)
    page.writeUInt32BE(child, at)
    page.set([0x81, cell], at + 4)
  }
  return page
}

const REFUSED = /^(DATABASE_(OPEN|ROW)|PATH_INVALID|STORE_PATH|HASH)$/

async function expectFactsOrCode(bytes: Uint8Array): Promise<void> {
  put(bytes)
  const said = await read(target, true)
  if (typeof said === 'string') expect(said).toMatch(REFUSED)
  else if (!areFacts(said)) expect.fail(JSON.stringify(said))
}

describe("Nix's database", () => {
  test('is whole, to begin with', async () => {
    put(whole)
    const said = (await read(target, false)) as Answers
    expect(said.closure.map(({ path }) => path)).toEqual([a, b, c, d])
    expect(said.one?.references).toEqual([a, b, d])
    expect(areFacts(said)).toBe(true)
  })

  test.each([false, true])('cut off at any byte is refused (immutable: %s)', async (immutable) => {
    put(whole)
    for (let length = whole.length - 1; length >= 0; length--) {
      ftruncateSync(targetFile, length)
      const said = await read(target, immutable)
      if (said !== 'DATABASE_OPEN' && said !== 'DATABASE_ROW')
        expect.fail(`${length} bytes: ${JSON.stringify(said)}`)
    }
  })

  test('with any byte changed gives facts, or is refused with a code', async () => {
    for (let at = 0; at < whole.length; at++) {
      const bytes = Buffer.from(whole)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at & 7))
      await expectFactsOrCode(bytes)
    }
  }, 120_000)

  test('with pages moved, doubled, zeroed and cut, and any bytes in them, gives facts, or is refused with a code', async () => {
    const pages = whole.length / PAGE
    const page = fc.nat(pages - 1)
    const edit = fc.oneof(
      fc.record({ from: page, to: page }), // also an interior page in the place of its own child
      fc.record({ zero: page }),
      fc.record({
        at: fc.nat(whole.length - 1),
        put: fc.uint8Array({ minLength: 1, maxLength: 9 }),
      }),
      // The numbers of children, cells and overflow pages, which make circles.
      fc.record({ pointer: fc.nat(whole.length - 4), page }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), page, async (edits, cut) => {
        const bytes = Buffer.from(whole)
        for (const one of edits)
          if ('from' in one)
            whole.copy(bytes, one.to * PAGE, one.from * PAGE, one.from * PAGE + PAGE)
          else if ('zero' in one) bytes.fill(0, one.zero * PAGE, one.zero * PAGE + PAGE)
          else if ('put' in one) bytes.set(one.put.subarray(0, bytes.length - one.at), one.at)
          else bytes.writeUInt32BE(one.page + 1, one.pointer)
        await expectFactsOrCode(bytes)
        await expectFactsOrCode(bytes.subarray(0, (cut + 1) * PAGE))
      }),
      { numRuns: 500 },
    )
  })

  test('that is made to keep SQLite busy is refused, whichever tree it is', async () => {
    const database = new DatabaseSync(join(scratch, 'whole'))
    const roots = database.prepare('select name, rootpage from sqlite_schema').all()
    database.close()
    expect(roots.length).toBeGreaterThan(5)
    const pages = whole.length / PAGE
    // Each level has forty ways to the next, and there is a row at the end of every one.
    const levels = Array.from({ length: 18 }, (_, n) => manyWays(pages + n + 2, 5))
    const leaf = Buffer.alloc(PAGE)
    leaf.set([13, 0, 0, 0, 1, 1, 249, 0, 1, 249])
    leaf.set([5, 1, 3, 1, 1, 9, 9], PAGE - 7)
    for (const { name, rootpage } of [...roots, { name: 'the schema', rootpage: 1 }]) {
      const bytes = Buffer.concat([whole, ...levels, leaf])
      const start = (Number(rootpage) - 1) * PAGE
      const index = whole[start] === 2 || whole[start] === 10
      const head = rootpage === 1 ? 100 : 0
      manyWays(pages + 1, index ? 2 : 5, head).copy(bytes, start + head, head)
      bytes.writeUInt32BE(bytes.length / PAGE, 28)
      put(bytes)
      expect(() => openNixDatabase(target, { immutable: true }), String(name)).toThrow(
        expect.objectContaining({
          code: 'DATABASE_OPEN',
          message: expect.stringContaining('stands in it twice'),
        }),
      )
    }
  })

  test('is refused when it is any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), fc.boolean(), async (tail, head) => {
        put(head ? Buffer.concat([whole.subarray(0, 100), tail]) : tail)
        expect(await read(target, true)).toMatch(/^DATABASE_(OPEN|ROW)$/)
      }),
    )
  })

  test('with its log cut off anywhere says what one of the transactions left', async () => {
    const file = join(scratch, 'logged')
    const writer = make(file)
    writer.exec('pragma journal_mode = wal')
    writer.exec(`delete from Refs where referrer = 1 and reference = 4`)
    writer.exec(`delete from ValidPaths where id = 4`)
    const [bytes, log] = [readFileSync(file), readFileSync(`${file}-wal`)]
    writer.close()
    put(bytes)
    writeFileSync(`${target}-wal`, log)
    const logFile = openSync(`${target}-wal`, 'r+')
    const states = new Set<string>()
    const frame = FRAME_HEAD + PAGE
    expect((log.length - LOG_HEAD) % frame).toBe(0)
    for (let length = log.length; length >= 0; length--) {
      // One sum is over all of a page, so that within a page every cut is the same.
      const inFrame = (length - LOG_HEAD) % frame
      if (inFrame > FRAME_HEAD + 1 && inFrame < frame - 1 && inFrame !== frame / 2) continue
      ftruncateSync(logFile, length)
      const said = await read(target, false)
      if (typeof said === 'string') expect(said).toMatch(/^DATABASE_/)
      else states.add(`${said.all.length} paths, ${said.one?.references.length} references`)
    }
    closeSync(logFile)
    expect([...states].sort()).toEqual([
      '3 paths, 2 references',
      '4 paths, 2 references',
      '4 paths, 3 references',
    ])
    for (const suffix of ['-wal', '-shm']) rmSync(target + suffix, { force: true })
  })
})
