// What a ledger says after its file was cut, bent, or its writer killed: what was written, or nothing.
import { spawn } from 'node:child_process'
import type { ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { DatabaseSync } from 'node:sqlite'
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { NixError, openLedger } from '@bagcheck/nix'
import type { LedgerRecord, StorePath } from '@bagcheck/nix'
import { fileHashesOf, hashOf, recordOf, RECORD_PATHS } from './ledger-records.ts'
import { makeScratch } from './verify/tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

const SMALL = 20 // entries
const PAGE = 8192
const runs = { numRuns: 40 } // each waits for the disk
const HASHES = [0, 1, 2, 3, 4, 5, 6]
const [path] = RECORD_PATHS as readonly [StorePath, ...StorePath[]]

/** What the ledger at `file` says of `path`, whichever of 7 hashes it is asked about. */
function found(file: string, path: StorePath): LedgerRecord | undefined {
  using ledger = openLedger(file)
  const records = HASHES.map((n) => ledger.find(path, hashOf(n)))
  // The hashes of files are those that belong to the NAR hash, or none.
  for (const n of HASHES) {
    const fileHashes = ledger.findFileHashes(path, hashOf(n))
    const expected = fileHashesOf(n, (fileHashes?.length ?? 0) / 32)
    if (fileHashes !== undefined && !expected.every((byte, at) => byte === fileHashes[at]))
      throw new Error(`file hashes that were never written for ${hashOf(n)}`)
  }
  return records.find(Boolean)
}

/** True if the ledger at `file` knows what the files of record `number` at `path` hold. */
function knowsFiles(file: string, path: StorePath, number: number): boolean {
  using ledger = openLedger(file)
  return ledger.findFileHashes(path, hashOf(number)) !== undefined
}

/** A process that writes record after record, from `first` on. */
function startWriter(file: string, first: number): ChildProcessByStdio<null, Readable, null> {
  return spawn(
    process.execPath,
    [...process.execArgv, join(import.meta.dirname, 'ledger-writer-child.ts'), file, String(first)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
}

/** A ledger with record 5, all of it in the one file, or the last transaction in the log beside it. */
function written(name: string, checkpointed: boolean, entries?: number): string {
  const file = join(scratch, name)
  const ledger = openLedger(file)
  ledger.record(path, recordOf(5, entries), fileHashesOf(5, entries))
  ledger.flush()
  if (checkpointed) ledger.close()
  else {
    copyFileSync(file, `${file}-copy`)
    copyFileSync(`${file}-wal`, `${file}-copy-wal`)
    ledger.close()
    return `${file}-copy`
  }
  return file
}

/** Does to a ledger on disk what only somebody else does. */
function alter(file: string, sql: string): void {
  const database = new DatabaseSync(file)
  database.exec(sql)
  database.close()
}

/** Puts `bytes` at `file`, alone or with a log, and expects the whole record, none, or LEDGER_OPEN. */
function expectTruth(
  file: string,
  bytes: Uint8Array,
  log?: Uint8Array,
  entries?: number,
): 'record' | 'nothing' {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
  writeFileSync(file, bytes)
  if (log !== undefined) writeFileSync(`${file}-wal`, log)
  try {
    const record = found(file, path)
    if (record === undefined) return 'nothing'
    expect(record).toEqual(recordOf(5, entries))
    return 'record'
  } catch (error) {
    expect(error).toBeInstanceOf(NixError)
    expect((error as NixError).code).toBe('LEDGER_OPEN')
    return 'nothing'
  }
}

/** Each length at which a cut is not the same as the one before: zeros that are cut off read as zeros. */
function* cuts(bytes: Uint8Array): Generator<number, void> {
  for (let length = 0; length < bytes.length; length++)
    if (length % 4096 === 0 || (bytes[length - 1] ?? 0) !== 0 || bytes[length] !== 0) yield length
}

test('a ledger cut off at any byte says what was written, or nothing', () => {
  const bytes = readFileSync(written('cut', true, SMALL))
  const target = join(scratch, 'cut-target')
  expect(expectTruth(target, bytes, undefined, SMALL)).toBe('record')
  expect(knowsFiles(target, path, 5)).toBe(true)
  const said = new Set<string>()
  for (const length of cuts(bytes))
    said.add(expectTruth(target, bytes.subarray(0, length), undefined, SMALL))
  expect([...said]).toContain('nothing')
}, 120_000)

test('a log cut off at any byte says what was written, or nothing', () => {
  const file = written('log', false, SMALL)
  const [bytes, log] = [readFileSync(file), readFileSync(`${file}-wal`)]
  const target = join(scratch, 'log-target')
  expect(expectTruth(target, bytes, log, SMALL)).toBe('record')
  expect(knowsFiles(target, path, 5)).toBe(true)
  for (const length of cuts(log)) expectTruth(target, bytes, log.subarray(0, length), SMALL)
}, 120_000)

test('a ledger of many pages, and its log, cut off here and there', () => {
  const file = written('long', false)
  const [bytes, log] = [readFileSync(file), readFileSync(`${file}-wal`)]
  const target = join(scratch, 'long-target')
  for (let length = 0; length < log.length; length += 127)
    expectTruth(target, bytes, log.subarray(0, length))
  const whole = readFileSync(written('long-whole', true))
  for (let length = 0; length < whole.length; length += 127)
    expectTruth(target, whole.subarray(0, length))
  expect(expectTruth(target, whole.subarray(0, whole.length / 2))).toBe('nothing')
}, 120_000)

test('a bit flipped anywhere is never part of an answer', () => {
  const bytes = readFileSync(written('flip', true))
  const target = join(scratch, 'flip-target')
  for (let at = 0; at < bytes.length; at += 17) {
    const bent = Uint8Array.from(bytes)
    bent[at] = (bent[at] ?? 0) ^ (1 << (at % 8))
    expectTruth(target, bent)
  }
}, 120_000)

test('a ledger with pages moved, or of any bytes, says what was written, or nothing', () => {
  const bytes = readFileSync(written('moved', true, SMALL))
  const target = join(scratch, 'moved-target')
  const page = fc.nat(bytes.length / PAGE - 1)
  const edit = fc.record({
    from: page,
    to: page,
    at: fc.nat(bytes.length - 9),
    put: fc.uint8Array(),
  })
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
      const bent = Buffer.from(bytes)
      for (const { from, to, at, put } of edits) {
        bytes.copy(bent, to * PAGE, from * PAGE, from * PAGE + PAGE)
        bent.set(put.subarray(0, 9), at)
      }
      expectTruth(target, bent, undefined, SMALL)
    }),
    runs,
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (any) => {
      expectTruth(target, any)
    }),
    runs,
  )
}, 120_000)

test('no column can be changed, nor a record moved to another path', () => {
  for (const change of [
    'full_at_ms = full_at_ms + 1',
    'attributes = 1',
    `nar_hash = '${hashOf(6)}'`,
    `path = '${RECORD_PATHS[1]}'`,
    `snapshot = '${recordOf(6).snapshot.digest}'`,
  ]) {
    const file = written(`change-${change.length}`, true)
    alter(file, `update paths set ${change}`)
    for (const path of RECORD_PATHS) expect(found(file, path)).toBeUndefined()
    rmSync(file)
  }
})

test.each([
  ['hashes of other files', 'hashes = zeroblob(length(hashes))'],
  ['fewer hashes', 'hashes = substr(hashes, 33)'],
  ['another NAR hash', `nar_hash = '${hashOf(6)}'`],
  ['another path', `path = '${RECORD_PATHS[1]}'`],
])('what files hold cannot be given %s', (name, change) => {
  const file = written(name, true)
  expect(knowsFiles(file, path, 5)).toBe(true)
  alter(file, `update file_hashes set ${change}`)
  for (const path of RECORD_PATHS)
    for (const number of name === 'another NAR hash' ? [6] : [5, 6])
      expect(knowsFiles(file, path, number)).toBe(false)
  expect(found(file, path)).toEqual(recordOf(5)) // the rest is as it was
})

test('of the metadata no byte can be changed, nor all of them taken from another path', () => {
  const file = join(scratch, 'metadata')
  for (const change of [
    'stats = zeroblob(length(stats))',
    'names = substr(names, 2)',
    'stats = (select stats from snapshots where path = $1), names = (select names from snapshots where path = $1)',
    'path = path || $1',
  ]) {
    const ledger = openLedger(file)
    for (const [index, path] of RECORD_PATHS.entries()) ledger.record(path, recordOf(5 + index))
    ledger.close()
    const to = change.replaceAll('$1', `'${RECORD_PATHS[1]}'`)
    alter(file, `update snapshots set ${to} where path = '${path}'`)
    expect(found(file, path), change).toBeUndefined()
    expect(found(file, RECORD_PATHS[1] as StorePath)).toEqual(recordOf(6))
    rmSync(file)
  }
})

test('a record with damaged metadata is written again, though nothing in it is new', () => {
  const file = written('damaged', true)
  alter(file, 'update snapshots set names = substr(names, 2)')
  {
    using ledger = openLedger(file)
    expect(ledger.find(path, hashOf(5))).toBeUndefined()
    ledger.record(path, recordOf(5))
  }
  expect(found(file, path)).toEqual(recordOf(5))
})

test('files’ hashes that are damaged are due again', () => {
  const file = written('damaged-hashes', true)
  alter(file, 'update file_hashes set hashes = zeroblob(length(hashes))')
  {
    using ledger = openLedger(file)
    expect(ledger.hasFileHashes(path, hashOf(6))).toBe(false)
    expect(ledger.hasFileHashes(path, hashOf(5))).toBe(true) // as far as can be said without reading them
    expect(ledger.findFileHashes(path, hashOf(5))).toBeUndefined()
    expect(ledger.hasFileHashes(path, hashOf(5))).toBe(false)
    ledger.record(path, recordOf(5), fileHashesOf(5))
    expect(ledger.hasFileHashes(path, hashOf(5))).toBe(true)
  }
  expect(knowsFiles(file, path, 5)).toBe(true)
})

test('files’ hashes found damaged after the time was renewed are written, and known again', () => {
  const file = written('damaged-late', true)
  alter(file, 'update file_hashes set hashes = zeroblob(length(hashes))')
  using ledger = openLedger(file)
  expect(ledger.find(path, hashOf(5))).toEqual(recordOf(5))
  ledger.record(path, { ...recordOf(5), fullAtMs: 6 })
  expect(ledger.findFileHashes(path, hashOf(5))).toBeUndefined()
  ledger.record(path, { ...recordOf(5), fullAtMs: 7 }, fileHashesOf(5))
  ledger.flush()
  expect(ledger.hasFileHashes(path, hashOf(5))).toBe(true)
})

test('a pass that renews the time alone says nothing of what another process has written meanwhile', () => {
  const file = written('renewed', true)
  const ledger = openLedger(file)
  expect(ledger.find(path, hashOf(5))).toEqual(recordOf(5))
  const renewed = { ...recordOf(5), fullAtMs: 50 }
  {
    using other = openLedger(file)
    other.record(path, recordOf(6))
  }
  ledger.record(path, renewed)
  ledger.close()
  expect(found(file, path)).toEqual(renewed) // the last to write is believed, in all that it says
})

test('what a path is forgotten for takes the hashes of its files with it', () => {
  const file = written('forgotten', true)
  {
    using ledger = openLedger(file)
    ledger.forget(path)
    expect(ledger.findFileHashes(path, hashOf(5))).toBeUndefined()
  }
  expect(found(file, path)).toBeUndefined()
  expect(knowsFiles(file, path, 5)).toBe(false)
})

test('two processes that write one ledger leave one transaction whole, of either', async () => {
  const file = join(scratch, 'shared')
  openLedger(file).close()
  const children = [1000, 2_000_000].map((first) => startWriter(file, first))
  // Each gets its turn, and more than one.
  await Promise.all(
    children.map(
      (child) =>
        new Promise<void>((resolve) => {
          let said = ''
          child.stdout.setEncoding('utf8').on('data', (text: string) => {
            said += text
            if (said.split('\n').length > 3) resolve()
          })
        }),
    ),
  )
  const ended = children.map((child) => once(child, 'close'))
  for (const child of children) child.kill('SIGKILL')
  await Promise.all(ended)
  const records = RECORD_PATHS.map((path) => found(file, path))
  const number = records[0]?.fullAtMs ?? 0
  expect(number).toBeGreaterThanOrEqual(1000)
  for (const record of records) expect(record).toEqual(recordOf(number))
  for (const path of RECORD_PATHS) expect(knowsFiles(file, path, number)).toBe(true)
}, 120_000)

test('a writer that is killed leaves one transaction whole, and none that it had reported is lost', async () => {
  const file = join(scratch, 'killed')
  let last = 0
  for (let round = 0; round < 12; round++) {
    const child = startWriter(file, last + 1)
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
    const ended = once(child, 'close')
    await once(child.stdout, 'data')
    // Somewhere in the next few of its writes, at another place each time.
    await new Promise((resolve) => setTimeout(resolve, (round * 7) % 30))
    child.kill('SIGKILL')
    await ended
    const reported = Number(said.split('\n').at(-2))
    const records = RECORD_PATHS.map((path) => found(file, path))
    const number = records[0]?.fullAtMs ?? 0
    expect(number).toBeGreaterThanOrEqual(reported)
    for (const record of records) expect(record).toEqual(recordOf(number))
    for (const path of RECORD_PATHS) expect(knowsFiles(file, path, number)).toBe(true)
    last = number
  }
}, 120_000)

test.each([
  [1, '', ''],
  [2, 'attributes integer not null, digest blob not null,', "1, x'',"],
  [3, 'attributes integer not null, digest blob not null,', "1, x'',"],
])('a ledger of format %i is emptied, not refused', (format, columns, values) => {
  const file = join(scratch, `older-${format}`)
  const database = new DatabaseSync(file)
  database.exec(`pragma application_id = ${0x42616763}; pragma user_version = ${format};
    create table paths (path text primary key, nar_hash text not null, full_at_ms integer not null,
      ${columns} stats blob not null, names blob not null) strict, without rowid;
    insert into paths values ('${path}', '${hashOf(5)}', 5, ${values} x'', x'')`)
  database.close()
  expect(found(file, path)).toBeUndefined()
  const ledger = openLedger(file)
  ledger.record(path, recordOf(5))
  ledger.close()
  expect(found(file, path)).toEqual(recordOf(5))
})

test('a ledger that cannot be written says so, and keeps what it has in memory', () => {
  const file = join(scratch, 'broken')
  const ledger = openLedger(file)
  ledger.record(path, recordOf(5))
  const other = new DatabaseSync(file)
  other.exec('drop table paths')
  expect(() => ledger.flush()).toThrow(expect.objectContaining({ code: 'LEDGER_WRITE' }))
  expect(ledger.find(path, hashOf(5))).toEqual(recordOf(5))
  expect(() => ledger.close()).toThrow(expect.objectContaining({ code: 'LEDGER_WRITE' }))
  other.close()
})
