// An entry that moved is read, and nothing else is, as long as everything is what it was.
import { hash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { openLedger, verifyClosure } from '@bagcheck/nix'
import type {
  ClosureManifest,
  ClosureVerification,
  Ledger,
  LedgerRecord,
  PathInfo,
  VerifyOptions,
} from '@bagcheck/nix'
import { alter, makeScratch, makeTree, manifestOf, owner } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

const MANY = 400
const SINCE = 1_000_000
let next = 0
let root: string
let manifest: ClosureManifest
let ledger: Ledger
let nowMs: number

/** A tree with many files, known to the ledger. No file list: what is named, the ledger names. */
beforeEach(async () => {
  root = join(scratch, String(next++), 'root')
  makeTree(root)
  alter(join(root, 'bin'), () => {
    for (let n = 0; n < MANY; n++)
      writeFileSync(join(root, `bin/n${n}`), `file ${n}\n`, { mode: 0o444 })
    writeFileSync(join(root, 'bin/large'), Buffer.alloc(3_000_000, 'large '), { mode: 0o444 })
    writeFileSync(join(root, 'bin/none'), '', { mode: 0o444 })
  })
  manifest = await manifestOf(root)
  ledger = openLedger(`${root}.ledger`)
  nowMs = SINCE
  expect(await verify()).toMatchObject({ ok: true, strength: 'full', filesHashed: MANY + 4 })
  return () => ledger.close()
})

const verify = (options: Partial<VerifyOptions> = {}): Promise<ClosureVerification> =>
  verifyClosure(manifest, { ledger, owner, now: () => nowMs++, ...options })

/** What a pass finds that reads `files` files and takes the path for what it was. */
const settled = (files: number): object => ({
  ...{ ok: true, mismatches: [], strength: 'incremental', lastFullAtMs: SINCE },
  ...{ filesChecked: MANY + 4, filesHashed: files },
})

/** Puts a copy in the place of a file: another inode, the same content. */
function replace(name: string): void {
  const file = join(root, name)
  alter(join(file, '..'), () => {
    copyFileSync(file, `${root}.copy`)
    chmodSync(`${root}.copy`, lstatSync(file).mode)
    renameSync(`${root}.copy`, file)
  })
}

function write(name: string, content: string | Uint8Array): void {
  const { mode } = lstatSync(join(root, name))
  chmodSync(join(root, name), 0o644)
  writeFileSync(join(root, name), content)
  chmodSync(join(root, name), mode)
}

/** Bytes of one file with one changed, as many as before. */
function bent(name: string, at: number): Uint8Array {
  const bytes = readFileSync(join(root, name))
  bytes[at] = (bytes[at] ?? 0) ^ 1
  return bytes
}

describe('what moved and holds what it held is read alone', () => {
  const moves: [string, () => void, number][] = [
    ['another name', () => linkSync(join(root, 'bin/n7'), `${root}.link`), 1],
    ['a mode that is changed and put back', () => write('bin/n7', 'file 7\n'), 1],
    ['an empty file', () => write('bin/none', ''), 1],
    ['a file of several pieces', () => replace('bin/large'), 1],
    ['a file that is replaced by its copy', () => replace('bin/n7'), 1],
    ['other times', () => utimesSync(join(root, 'bin/n7'), 1, 1), 1],
    ['a directory whose mode is changed and put back', () => alter(join(root, 'bin'), () => {}), 0],
    [
      'a file that came and went',
      () =>
        alter(root, () => {
          writeFileSync(join(root, 'new'), '')
          rmSync(join(root, 'new'))
        }),
      0,
    ],
    [
      'a symlink that is made anew',
      () =>
        alter(root, () => {
          rmSync(join(root, 'link'))
          symlinkSync('data', join(root, 'link'))
        }),
      0,
    ],
    [
      'a directory that is made anew',
      () =>
        alter(root, () => {
          rmSync(join(root, 'empty'), { recursive: true })
          mkdirSync(join(root, 'empty'), { mode: 0o555 })
        }),
      0,
    ],
  ]
  test.each(moves)('%s', async (_, move, files) => {
    move()
    expect(await verify()).toMatchObject(settled(files))
    expect(await verify()).toMatchObject(settled(0)) // the ledger has taken the move over
    ledger.close()
    ledger = openLedger(`${root}.ledger`) // and written it down
    expect(await verify()).toMatchObject(settled(0))
  })

  test.each([1, 2])('every file at once, on %i threads', async (parallelism) => {
    for (let n = 0; n < MANY; n++) linkSync(join(root, `bin/n${n}`), `${root}.${n}`)
    expect(await verify({ parallelism })).toMatchObject(settled(MANY))
    expect(await verify({ parallelism })).toMatchObject(settled(0))
  })

  test('an inode that another file gets: its content decides, and not its number', async () => {
    const { ino } = lstatSync(join(root, 'bin/n7'), { bigint: true })
    alter(join(root, 'bin'), () => {
      rmSync(join(root, 'bin/n7'))
      // File systems give a free number away again at once, or later, or never.
      for (let n = 0; n < 50; n++) {
        writeFileSync(`${root}.new`, 'file 7\n', { mode: 0o444 })
        if (lstatSync(`${root}.new`, { bigint: true }).ino === ino || n === 49) break
        renameSync(`${root}.new`, `${root}.new${n}`)
      }
      renameSync(`${root}.new`, join(root, 'bin/n7'))
    })
    expect(await verify()).toMatchObject(settled(1))
    alter(join(root, 'bin'), () => {
      rmSync(join(root, 'bin/n7'))
      writeFileSync(join(root, 'bin/n7'), 'evil 7\n', { mode: 0o444 })
    })
    expect(await verify()).toMatchObject({
      ok: false,
      mismatches: [{ kind: 'content', file: join(root, 'bin/n7') }],
    })
  })

  test('a file that is missing for a moment hides no other', async () => {
    const other = join(root, '../other')
    makeTree(other)
    manifest = await manifestOf(other, root)
    await verify({ full: true })
    alter(join(root, 'bin'), () => renameSync(join(root, 'bin/n1'), `${root}.away`))
    write('bin/n2', 'evil 2\n')
    // Told between the look at metadata and the reading of what moved: the other path is as it was.
    const onProgress = (): void => {
      if (existsSync(`${root}.away`))
        alter(join(root, 'bin'), () => renameSync(`${root}.away`, join(root, 'bin/n1')))
    }
    expect(await verify({ onProgress })).toMatchObject({
      ok: false,
      mismatches: [{ kind: 'content', file: join(root, 'bin/n2') }],
    })
  })

  test('two files that change places are two that differ', async () => {
    alter(join(root, 'bin'), () => {
      renameSync(join(root, 'bin/n1'), join(root, 'bin/tmp'))
      renameSync(join(root, 'bin/n2'), join(root, 'bin/n1'))
      renameSync(join(root, 'bin/tmp'), join(root, 'bin/n2'))
    })
    expect(await verify()).toMatchObject({
      ok: false,
      mismatches: [
        { kind: 'content', file: join(root, 'bin/n1') },
        { kind: 'content', file: join(root, 'bin/n2') },
      ],
    })
  })
})

describe('what differs has the whole path read, and is named', () => {
  const changes: [string, () => void, string, string][] = [
    ['one byte of a small file', () => write('bin/n7', 'file 8\n'), 'content', 'bin/n7'],
    [
      'the first byte of a large one',
      () => write('bin/large', bent('bin/large', 0)),
      'content',
      'bin/large',
    ],
    [
      'its last byte',
      () => write('bin/large', bent('bin/large', 2_999_999)),
      'content',
      'bin/large',
    ],
    ['a size', () => write('bin/n7', 'file 7'), 'size', 'bin/n7'],
    ['an execute bit', () => chmodSync(join(root, 'bin/n7'), 0o555), 'executable', 'bin/n7'],
    [
      'a file that is gone',
      () => alter(join(root, 'bin'), () => rmSync(join(root, 'bin/n7'))),
      'missing',
      'bin/n7',
    ],
    [
      'a file too many',
      () => alter(root, () => copyFileSync(join(root, 'data'), join(root, 'more'))),
      'unexpected',
      'more',
    ],
    [
      'a symlink to elsewhere',
      () =>
        alter(root, () => {
          rmSync(join(root, 'link'))
          symlinkSync('elsewhere', join(root, 'link'))
        }),
      'symlink',
      'link',
    ],
  ]
  test.each(changes)('%s', async (_, change, kind, name) => {
    linkSync(join(root, 'bin/n3'), `${root}.link`) // what moved besides is read, and is not named
    change()
    const result = await verify()
    expect(result).toMatchObject({ ok: false, mismatchCount: 1, filesHashed: result.filesChecked })
    expect(result.mismatches).toMatchObject([{ kind, file: join(root, name) }])
    expect(await verify()).toMatchObject({ ok: false }) // and nothing of it was remembered
  })

  test('a mode that Nix does not leave, though the content is the same', async () => {
    chmodSync(join(root, 'bin/n7'), 0o464)
    for (let pass = 0; pass < 2; pass++)
      expect(await verify()).toMatchObject({
        ok: false,
        mismatches: [{ kind: 'mode', file: join(root, 'bin/n7') }],
      })
  })
})

describe('hashes of files in the ledger', () => {
  const edit = (change: string): void => {
    ledger.close()
    const database = new DatabaseSync(`${root}.ledger`)
    database.exec(change)
    database.close()
    ledger = openLedger(`${root}.ledger`)
  }

  test.each([
    ['gone', 'delete from file_hashes'],
    ['cut off', 'update file_hashes set hashes = substr(hashes, 1, 64)'],
    ['exchanged', 'update file_hashes set hashes = zeroblob(length(hashes))'],
    ['of another NAR', "update file_hashes set nar_hash = 'sha256-x', digest = zeroblob(32)"],
  ])('that are %s settle nothing: the whole path is read', async (_, change) => {
    edit(change)
    linkSync(join(root, 'bin/n7'), `${root}.link`)
    expect(await verify()).toMatchObject({ ok: true, strength: 'full', filesHashed: MANY + 4 })
    linkSync(join(root, 'bin/n7'), `${root}.link2`) // and are computed anew
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental', filesHashed: 1 })
  })

  test('stay what they are when a full pass renews the time', async () => {
    await verify({ full: true })
    replace('bin/n7')
    await verify({ full: true }) // the metadata are new, the hashes are not computed again
    replace('bin/n8')
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental', filesHashed: 1 })
    write('bin/n9', 'evil 9\n')
    expect(await verify()).toMatchObject({
      ok: false,
      mismatches: [{ kind: 'content', file: join(root, 'bin/n9') }],
    })
  })

  test('that somebody forged decide what an incremental pass says, and nothing of a full one', async () => {
    const [{ path, narHash }] = manifest.entries as [PathInfo]
    const record = ledger.find(path, narHash) as LedgerRecord
    const hashes = ledger.findFileHashes(path, narHash) as Uint8Array
    const right = hash('sha256', 'file 7\n', 'buffer')
    const forged = Uint8Array.from(hashes)
    forged.set(hash('sha256', 'evil 7\n', 'buffer'), Buffer.from(hashes).indexOf(right))
    ledger.record(path, record, forged) // as whoever may write the file can do
    write('bin/n7', 'evil 7\n')
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental', lastFullAtMs: SINCE })
    expect(await verify({ full: true })).toMatchObject({ ok: false })
    expect(await verify()).toMatchObject({ ok: false }) // what was forged is forgotten
  })
})
