// Verification of small trees outside a store: what is defended is the comparison, not where it happens.
import {
  chmodSync,
  chownSync,
  copyFileSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { basename, join } from 'node:path'
import { setImmediate as setImmediatePromise } from 'node:timers/promises'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { buildFileList, hashNar, openLedger, verifyClosure } from '@bagcheck/nix'
import type {
  ClosureManifest,
  ClosureVerification,
  FileList,
  Ledger,
  StorePath,
  VerifyOptions,
} from '@bagcheck/nix'
import { makeScratch, makeTree, manifestOf, owner } from './verify/tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

let next = 0
let root: string
let manifest: ClosureManifest
let files: FileList
let ledger: Ledger
let ledgerFile: string
let nowMs: number

const inside = (name: string): string => join(root, name)

/** Changes something in a directory of the tree, which is read-only as in a store. */
function alter(directory: string, work: () => void): void {
  chmodSync(inside(directory), 0o755)
  work()
  chmodSync(inside(directory), 0o555)
}

beforeEach(async () => {
  root = join(scratch, String(next++))
  makeTree(root)
  manifest = await manifestOf(root)
  files = await buildFileList(manifest)
  ledgerFile = `${root}.ledger`
  ledger = openLedger(ledgerFile)
  nowMs = 1_000_000
  return () => ledger.close()
})

/** What this process has open. */
const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return [] // that of the listing itself
    }
  })

const verify = (options: Partial<VerifyOptions> = {}): Promise<ClosureVerification> =>
  verifyClosure(manifest, { files, ledger, owner, now: () => nowMs++, ...options })

describe('verifyClosure', () => {
  test('finds an unchanged closure good: first in full, then by its metadata', async () => {
    expect(await verify()).toEqual({
      ok: true,
      strength: 'full',
      checkedAtMs: 1_000_000,
      lastFullAtMs: 1_000_000,
      mismatches: [],
      mismatchCount: 0,
      attributes: 'not checked',
      strayLinks: [],
      filesChecked: 2,
      filesHashed: 2,
    })
    expect(await verify()).toEqual({
      ok: true,
      strength: 'incremental',
      checkedAtMs: 1_000_001,
      lastFullAtMs: 1_000_000,
      mismatches: [],
      mismatchCount: 0,
      attributes: 'not checked',
      strayLinks: [],
      filesChecked: 2,
      filesHashed: 0,
    })
    expect(await verify({ full: true })).toMatchObject({
      strength: 'full',
      lastFullAtMs: 1_000_002,
      filesHashed: 2,
    })
    expect(await verify()).toMatchObject({ strength: 'incremental', lastFullAtMs: 1_000_002 })
  })

  test('is never better than full without a ledger, and never worse', async () => {
    const { ledger: _, ...without } = { files, ledger, owner, now: () => 1 }
    for (let pass = 0; pass < 2; pass++)
      expect(await verifyClosure(manifest, without)).toMatchObject({
        strength: 'full',
        filesHashed: 2,
      })
  })

  const put = (name: string, text: string, mode: number): void => {
    rmSync(inside(name), { force: true })
    writeFileSync(inside(name), text)
    chmodSync(inside(name), mode)
  }
  const changes: [string, string, () => void, string, string | undefined][] = [
    ['altered content', '', () => put('data', 'dbta\n', 0o444), 'content', 'data'],
    ['another size', '', () => put('data', 'data', 0o444), 'size', 'data'],
    [
      'a lost execute bit',
      'bin',
      () => chmodSync(inside('bin/tool'), 0o444),
      'executable',
      'bin/tool',
    ],
    ['a lost file', '', () => rmSync(inside('data')), 'missing', 'data'],
    ['an added file', 'bin', () => put('bin/extra', '', 0o555), 'unexpected', 'bin/extra'],
    [
      'a link in place of a file',
      '',
      () => (rmSync(inside('data')), symlinkSync('x', inside('data'))),
      'type',
      'data',
    ],
    [
      'a directory in place of a file',
      '',
      () => (rmSync(inside('data')), mkdirSync(inside('data'), 0o555)),
      'type',
      'data',
    ],
  ]
  describe.each([
    ['before any pass', false],
    ['after a good pass', true],
  ])('%s', (_, warm) => {
    test.each(changes)('names the file with %s', async (_, directory, change, kind, name) => {
      if (warm) await verify()
      alter(directory, change)
      const result = await verify()
      expect(result.ok).toBe(false)
      expect(result.mismatches).toEqual([
        expect.objectContaining({ path: root, kind, file: inside(name ?? '') }),
      ])
      expect(await verify()).toMatchObject({ ok: false }) // and it stays bad
    })
  })

  test('names a changed link and a lost empty directory by the last good look', async () => {
    await verify()
    alter('', () => {
      rmSync(inside('link'))
      symlinkSync('elsewhere', inside('link'))
      rmSync(inside('empty'), { recursive: true })
    })
    expect((await verify()).mismatches).toEqual([
      expect.objectContaining({ kind: 'missing', file: inside('empty'), expected: 'directory' }),
      expect.objectContaining({
        kind: 'symlink',
        file: inside('link'),
        expected: 'data',
        seen: 'elsewhere',
      }),
    ])
  })

  test('says which path differs when neither list nor ledger can say which file', async () => {
    alter('', () => put('data', 'dbta\n', 0o444))
    const result = await verifyClosure(manifest, { owner, now: () => 1 })
    expect(result.mismatches).toEqual([
      {
        path: root,
        kind: 'nar',
        expected: manifest.entries[0]?.narHash,
        seen: expect.stringMatching(/^sha256-/),
      },
    ])
  })

  test.each([
    ['a writable file', () => chmodSync(inside('data'), 0o644), 'data', '0644 (writable)'],
    ['a setuid file', () => chmodSync(inside('bin/tool'), 0o4555), 'bin/tool', '4555 (setuid)'],
    ['a setgid file', () => chmodSync(inside('bin/tool'), 0o2555), 'bin/tool', '2555 (setgid)'],
    ['a writable directory', () => chmodSync(inside('bin'), 0o755), 'bin', '0755 (writable)'],
    ['a file that others may not read', () => chmodSync(inside('data'), 0o400), 'data', '0400'],
  ])('refuses %s although its NAR is the same', async (_, change, name, seen) => {
    await verify()
    change()
    for (let pass = 0; pass < 2; pass++)
      expect((await verify()).mismatches).toEqual([
        expect.objectContaining({ kind: 'mode', file: inside(name), seen }),
      ])
  })

  test.runIf(owner === 0)('refuses a file that belongs to somebody else', async () => {
    await verify()
    chownSync(inside('data'), 1000, 0)
    expect((await verify()).mismatches).toEqual([
      expect.objectContaining({ kind: 'owner', file: inside('data'), seen: 'uid 1000' }),
    ])
  })

  test('reads a file again that moved, and only once', async () => {
    await verify()
    linkSync(inside('data'), join(scratch, `link-${next}`)) // moves ctime
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental', filesHashed: 1 })
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental', filesHashed: 0 })
  })

  test('is not deceived by content of the same size with its old times put back', async () => {
    await verify()
    const { atime, mtime } = statSync(inside('data'))
    chmodSync(inside('data'), 0o644)
    writeFileSync(inside('data'), 'dbta\n')
    utimesSync(inside('data'), atime, mtime)
    chmodSync(inside('data'), 0o444)
    expect((await verify()).mismatches).toMatchObject([{ kind: 'content', file: inside('data') }])
  })

  test('is not deceived by a file renamed over another with every time put back', async () => {
    await verify()
    const before = lstatSync(inside('data'))
    const directory = lstatSync(root)
    const other = join(scratch, `other-${next}`)
    writeFileSync(other, 'dbta\n', { mode: 0o444 })
    alter('', () => renameSync(other, inside('data')))
    lutimesSync(inside('data'), before.atime, before.mtime)
    lutimesSync(root, directory.atime, directory.mtime)
    expect((await verify()).mismatches).toMatchObject([{ kind: 'content', file: inside('data') }])
  })

  test('finds a path that is gone', async () => {
    await verify()
    chmodSync(root, 0o755)
    renameSync(root, `${root}-gone`)
    expect((await verify()).mismatches).toEqual([
      { path: root, kind: 'missing', expected: manifest.entries[0]?.narHash, seen: 'nothing' },
    ])
  })

  test('reads a file again that had just changed when it was read last', async () => {
    nowMs = Math.trunc(lstatSync(inside('data')).ctimeMs) + 1
    expect(await verify()).toMatchObject({ ok: true, strength: 'full' })
    nowMs += 1000
    expect(await verify()).toMatchObject({ ok: true, strength: 'full' })
    expect(await verify()).toMatchObject({ ok: true, strength: 'incremental' })
  })

  test('does not believe a record from the future', async () => {
    await verify()
    nowMs = 10
    expect(await verify()).toMatchObject({ strength: 'full', lastFullAtMs: 10 })
  })

  test('stops collecting at the given number', async () => {
    alter('bin', () => {
      for (let n = 0; n < 10; n++) put(`bin/x${n}`, '', 0o555)
    })
    const result = await verify({ maxMismatches: 3 })
    expect(result).toMatchObject({ ok: false, mismatches: { length: 3 }, mismatchCount: 10 })
  })

  test('reports progress, and gives up with the reason of the signal', async () => {
    const seen: unknown[] = []
    await verify({ onProgress: (progress) => seen.push(progress) })
    const bytes = manifest.entries[0]?.narSize
    expect(seen).toEqual([{ paths: 1, totalPaths: 1, bytes, totalBytes: bytes }])
    const signal = AbortSignal.abort('why')
    await expect(verify({ signal })).rejects.toBe('why')
    await expect(verify({ signal, full: true })).rejects.toBe('why')
  })

  test('finds the same with worker threads as without', async () => {
    const fill = (letter: string): void =>
      alter('', () => put('large', letter.repeat(20 << 20), 0o444))
    const roots = [root, `${root}-b`].map((path) => path as StorePath)
    makeTree(roots[1] ?? '')
    const entries = []
    for (root of roots) {
      fill('x')
      entries.push({ path: root as StorePath, ...(await hashNar(root)), references: [] })
    }
    manifest = { ...manifest, entries }
    files = await buildFileList(manifest, { parallelism: 2 })
    expect(await verify({ parallelism: 2 })).toMatchObject({ ok: true, filesHashed: 6 })
    for (root of roots) fill('y')
    const bad = roots.map((path) => ({ kind: 'content', file: `${path}/large` }))
    for (const parallelism of [1, 2]) {
      const { mismatches } = await verify({ parallelism })
      expect(mismatches.toSorted((a, b) => (a.path < b.path ? -1 : 1))).toMatchObject(bad)
    }
    const controller = new AbortController()
    const given = verify({ parallelism: 2, signal: controller.signal })
    controller.abort('enough')
    await expect(given).rejects.toBe('enough')
  })

  test('what comes into a directory while it is read is no part of what passed, and seen by the next pass', async () => {
    alter('', () => put('large', 'x'.repeat(20 << 20), 0o444))
    manifest = await manifestOf(root)
    files = await buildFileList(manifest)
    const given = verify({ parallelism: 1, full: true })
    await setImmediatePromise() // the first pieces have been read, and the directory listed
    alter('', () => writeFileSync(inside('planted'), '#!/bin/sh\n', { mode: 0o555 }))
    expect(await given).toMatchObject({ ok: true, strength: 'full', filesChecked: 3 })
    const { ok, mismatches } = await verify({ parallelism: 1 })
    expect(ok).toBe(false)
    expect(mismatches).toMatchObject([{ kind: 'unexpected', file: inside('planted') }])
  })

  test('can be given up in the middle of a path, where other work goes on', async () => {
    alter('', () => put('large', 'x'.repeat(20 << 20), 0o444))
    manifest = await manifestOf(root)
    let looks = 0
    const controller = new AbortController()
    const look = (): void => {
      if (++looks === 5) controller.abort('enough')
      else setImmediate(look)
    }
    setImmediate(look)
    await expect(verify({ parallelism: 1, signal: controller.signal })).rejects.toBe('enough')
    expect(looks).toBe(5)
    expect(openFiles()).not.toContain(inside('large'))
  })

  test('reads nothing more once it has failed, on no thread', async () => {
    makeTree(`${root}-b`)
    manifest = await manifestOf(root, `${root}-b`)
    // A hole, so large that this thread is still in it when the other one answers.
    const narSize = 1 << 30
    alter('', () => {
      put('large', '', 0o444)
      truncateSync(inside('large'), narSize)
    })
    const entries = manifest.entries.map((entry, index) =>
      index === 0 ? { ...entry, narSize } : entry,
    )
    manifest = { ...manifest, entries }
    let calls = 0
    const onProgress = (): void => {
      calls++
      throw new Error('enough')
    }
    await expect(verify({ parallelism: 2, onProgress })).rejects.toThrow('enough')
    await setTimeout(100)
    expect(calls).toBe(1)
    expect(openFiles()).not.toContain(inside('large'))
  })

  test('finds one moved file among thousands that threads share', async () => {
    alter('bin', () => {
      for (let n = 0; n < 9000; n++) copyFileSync(inside('data'), inside(`bin/n${n}`))
      for (let n = 0; n < 9000; n++) chmodSync(inside(`bin/n${n}`), 0o444)
    })
    const entry = { path: root as StorePath, ...(await hashNar(root)), references: [] }
    manifest = { ...manifest, entries: [entry] }
    files = await buildFileList(manifest)
    await verify({ parallelism: 2 })
    expect(await verify({ parallelism: 2 })).toMatchObject({
      ok: true,
      filesHashed: 0,
      filesChecked: 9002,
    })
    linkSync(inside('bin/n8999'), join(scratch, `link-${next}`))
    expect(await verify({ parallelism: 2 })).toMatchObject({ ok: true, filesHashed: 1 })
    put('bin/n4321', 'dbta\n', 0o444)
    expect((await verify({ parallelism: 2 })).mismatches).toMatchObject([
      { file: inside('bin/n4321') },
    ])
  })
})

describe('buildFileList', () => {
  test('refuses content that is not what the manifest says, and names the path', async () => {
    alter('', () => put('data', 'dbta\n', 0o444))
    await expect(buildFileList(manifest)).rejects.toMatchObject({
      code: 'CONTENT_MISMATCH',
      detail: { path: root },
    })
  })
  const put = (name: string, text: string, mode: number): void => {
    unlinkSync(inside(name))
    writeFileSync(inside(name), text, { mode })
  }
})

describe('a ledger', () => {
  test('is known to the next process, and readable by its owner only', async () => {
    await verify()
    ledger.close()
    for (const file of [ledgerFile, `${ledgerFile}-wal`].filter((f) =>
      statSync(f, { throwIfNoEntry: false }),
    ))
      expect(statSync(file).mode & 0o777).toBe(0o600)
    ledger = openLedger(ledgerFile)
    expect(await verify()).toMatchObject({ strength: 'incremental', lastFullAtMs: 1_000_000 })
    await verify({ full: true }) // renews the time alone
    ledger.close()
    ledger = openLedger(ledgerFile)
    expect(await verify()).toMatchObject({ strength: 'incremental', lastFullAtMs: 1_000_002 })
  })

  test('forgets a path that was found bad', async () => {
    await verify()
    alter('', () => chmodSync(inside('data'), 0o400))
    await verify()
    ledger.close()
    ledger = openLedger(ledgerFile)
    alter('', () => chmodSync(inside('data'), 0o444))
    expect(await verify()).toMatchObject({ ok: true, strength: 'full' })
  })

  test('says nothing about other content at the same path', async () => {
    await verify()
    alter('', () => {
      unlinkSync(inside('data'))
      writeFileSync(inside('data'), 'other', { mode: 0o444 })
    })
    const entry = { path: root as StorePath, ...(await hashNar(root)), references: [] }
    manifest = { ...manifest, entries: [entry] }
    files = await buildFileList(manifest)
    expect(await verify()).toMatchObject({ ok: true, strength: 'full' })
  })

  test.each([
    ['cut off', 'update snapshots set stats = substr(stats, 1, 64)'],
    ['of odd length', 'update snapshots set stats = substr(stats, 1, 63)'],
    ['empty', "update snapshots set stats = x'', names = x''"],
    ['with names that do not fit', 'update snapshots set names = substr(names, 4)'],
  ])('with a record %s makes the path be read again', async (_, change) => {
    await verify()
    ledger.close()
    const database = new DatabaseSync(ledgerFile)
    database.exec(change)
    database.close()
    ledger = openLedger(ledgerFile)
    expect(await verify()).toMatchObject({ ok: true, strength: 'full' })
  })

  test('is not opened when the file is something else', () => {
    const open = expect.objectContaining({ code: 'LEDGER_OPEN' })
    const text = `${ledgerFile}-text`
    writeFileSync(text, 'not a database'.repeat(1000))
    expect(() => openLedger(text)).toThrow(open)
    const other = `${ledgerFile}-other`
    const database = new DatabaseSync(other)
    database.exec('create table t (x)')
    database.close()
    expect(() => openLedger(other)).toThrow(open)
    symlinkSync(basename(ledgerFile), `${ledgerFile}-link`)
    expect(() => openLedger(`${ledgerFile}-link`)).toThrow(open)
    expect(() => openLedger(join(scratch, 'none', 'ledger'))).toThrow(open)
  })
})
