// What a pass with a ledger reads again, and what makes it content.
import { chmodSync, linkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { buildFileList, makeFileList, openLedger, sha256Hex, verifyClosure } from '@bagcheck/nix'
import type { ClosureManifest, ClosureVerification, FileList, Ledger } from '@bagcheck/nix'
import { makeScratch, makeTree, manifestOf, owner } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

let next = 0
let root: string
let manifest: ClosureManifest
let files: FileList
let ledger: Ledger
let nowMs = 1_000_000

beforeEach(async () => {
  const store = join(scratch, String(next++))
  root = join(store, 'root')
  makeTree(root)
  makeTree(join(store, 'other'))
  manifest = await manifestOf(root, join(store, 'other'))
  files = await buildFileList(manifest)
  ledger = openLedger(`${store}.ledger`)
  expect(await verify(files)).toMatchObject({ ok: true, strength: 'full', filesHashed: 4 })
  return () => ledger.close()
})

const verify = (list: FileList | undefined): Promise<ClosureVerification> =>
  verifyClosure(manifest, {
    ...(list === undefined ? {} : { files: list }),
    ...{ ledger, owner, now: () => nowMs++ },
  })

const alter = (name: string, text: string): void => {
  chmodSync(join(root, name), 0o644)
  writeFileSync(join(root, name), text)
  chmodSync(join(root, name), 0o444)
}

test('of two paths, the one file that moved is read, and both stay as old as their full pass', async () => {
  linkSync(join(root, 'data'), `${root}.link`)
  const since = nowMs - 1
  expect(await verify(files)).toMatchObject({
    ...{ ok: true, strength: 'incremental', lastFullAtMs: since },
    ...{ filesChecked: 4, filesHashed: 1 },
  })
  expect(await verify(files)).toMatchObject({
    ...{ ok: true, strength: 'incremental', lastFullAtMs: since },
    filesHashed: 0,
  })
})

/** The list as somebody would have it who altered `data`, but for that rightly made. */
function forge(text: string): FileList {
  const file = join(root, 'data')
  const forged = { sha256: sha256Hex(text), size: text.length }
  return makeFileList(
    files.files.map((listed) => (listed.path === file ? { ...listed, ...forged } : listed)),
  )
}

test('a file list that holds altered content does not make it good', async () => {
  const forged = forge('evil\n')
  expect(await verify(forged)).toMatchObject({ ok: true, strength: 'incremental' })
  alter('data', 'evil\n')
  for (let pass = 0; pass < 2; pass++)
    expect(await verify(forged)).toMatchObject({
      ok: false,
      mismatches: [{ path: root, kind: 'nar', expected: manifest.entries[0]?.narHash }],
    })
  expect(await verify(files)).toMatchObject({ ok: false, mismatches: [{ kind: 'content' }] })
})

test('a file list that is wrong makes nothing bad', async () => {
  const forged = forge('evil\n')
  linkSync(join(root, 'data'), `${root}.link`)
  expect(await verify(forged)).toMatchObject({ ok: true, mismatches: [] })
})
