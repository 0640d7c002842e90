// What a ledger says after its file was cut, bent, or its writer killed: what was written, or nothing.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, expect, test } from 'vitest'
import { NixError, openLedger } from '@bagcheck/nix'
import type { LedgerRecord, StorePath } from '@bagcheck/nix'
import { hashOf, recordOf, RECORD_PATHS } from './ledger-records.ts'
import { makeScratch } from './verify/tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

const [path] = RECORD_PATHS as readonly [StorePath, ...StorePath[]]

/** What the ledger at `file` says of `path`, whichever of 7 hashes it is asked about. */
function found(file: string, path: StorePath): LedgerRecord | undefined {
  using ledger = openLedger(file)
  return [0, 1, 2, 3, 4, 5, 6].map((n) => ledger.find(path, hashOf(n))).find(Boolean)
}

/** A ledger with record 5, all of it in the one file, or the last transaction in the log beside it. */
function written(name: string, checkpointed: boolean): string {
  const file = join(scratch, name)
  const ledger = openLedger(file)
  ledger.record(path, recordOf(5))
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

/** Puts `bytes` at `file`, alone or with a log, and expects the whole record, none, or LEDGER_OPEN. */
function expectTruth(file: string, bytes: Uint8Array, log?: Uint8Array): 'record' | 'nothing' {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
  writeFileSync(file, bytes)
  if (log !== undefined) writeFileSync(`${file}-wal`, log)
  try {
    const record = found(file, path)
    if (record === undefined) return 'nothing'
    expect(record).toEqual(recordOf(5))
    return 'record'
  } catch (error) {
    expect(error).toBeInstanceOf(NixError)
    expect((error as NixError).code).toBe('LEDGER_OPEN')
    return 'nothing'
  }
}

test('a ledger cut off anywhere says what was written, or nothing', () => {
  const bytes = readFileSync(written('cut', true))
  const target = join(scratch, 'cut-target')
  expect(expectTruth(target, bytes)).toBe('record')
  // Each length in the header; then a stride that meets every page at another place.
  for (let length = 0; length < bytes.length; length += length < 100 ? 1 : 61)
    expectTruth(target, bytes.subarray(0, length))
  expect(expectTruth(target, bytes.subarray(0, bytes.length / 2))).toBe('nothing')
})

test('a log cut off anywhere says what was written, or nothing', () => {
  const file = written('log', false)
  const [bytes, log] = [readFileSync(file), readFileSync(`${file}-wal`)]
  const target = join(scratch, 'log-target')
  expect(expectTruth(target, bytes, log)).toBe('record')
  for (let length = 0; length < log.length; length += length < 100 ? 1 : 61)
    expectTruth(target, bytes, log.subarray(0, length))
})

test('a bit flipped anywhere is never part of an answer', () => {
  const bytes = readFileSync(written('flip', true))
  const target = join(scratch, 'flip-target')
  for (let at = 0; at < bytes.length; at += 17) {
    const bent = Uint8Array.from(bytes)
    bent[at] = (bent[at] ?? 0) ^ (1 << (at % 8))
    expectTruth(target, bent)
  }
})

test('no column can be changed, nor a record moved to another path', () => {
  for (const change of [
    'full_at_ms = full_at_ms + 1',
    'attributes = 1',
    `nar_hash = '${hashOf(6)}'`,
    `path = '${RECORD_PATHS[1]}'`,
  ]) {
    const file = written(`change-${change.length}`, true)
    const database = new DatabaseSync(file)
    database.exec(`update paths set ${change}`)
    database.close()
    for (const path of RECORD_PATHS) expect(found(file, path)).toBeUndefined()
    rmSync(file)
  }
})

test('a writer that is killed leaves one transaction whole, and none that it had reported is lost', async () => {
  const file = join(scratch, 'killed')
  let last = 0
  for (let round = 0; round < 12; round++) {
    const child = spawn(
      process.execPath,
      [
        ...process.execArgv,
        join(import.meta.dirname, 'ledger-writer-child.ts'),
        file,
        String(last + 1),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
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
    last = number
  }
})

test('a ledger of the format before is emptied, not refused', () => {
  const file = join(scratch, 'older')
  const database = new DatabaseSync(file)
  database.exec(`pragma application_id = ${0x42616763}; pragma user_version = 1;
    create table paths (path text primary key, nar_hash text not null, full_at_ms integer not null,
      stats blob not null, names blob not null) strict, without rowid;
    insert into paths values ('${path}', '${hashOf(5)}', 5, x'', x'')`)
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
