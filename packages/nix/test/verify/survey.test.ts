import { chmodSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { buildFileList, openLedger, verifyClosure } from '@bagcheck/nix'
import type { ClosureManifest, ClosureVerification, FileList, VerifyOptions } from '@bagcheck/nix'
import { alter, makeScratch, makeTree, manifestOf, owner } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

let next = 0
let root: string
let manifest: ClosureManifest
let files: FileList

beforeEach(async () => {
  root = join(scratch, String(next++))
  makeTree(root)
  manifest = await manifestOf(root)
  files = await buildFileList(manifest)
})

const inside = (name: string): string => join(root, name)
const look = (options: Partial<VerifyOptions> = {}): Promise<ClosureVerification> =>
  verifyClosure(manifest, { files, owner, now: () => 2_000_000, metadataOnly: true, ...options })

function put(name: string, text: string, mode: number): void {
  rmSync(inside(name), { force: true, recursive: true })
  writeFileSync(inside(name), text)
  chmodSync(inside(name), mode)
}

test('an unchanged tree has the NAR size of the manifest, by its metadata alone', async () => {
  expect(await look()).toMatchObject({
    ok: true,
    strength: 'metadata',
    lastFullAtMs: 0,
    attributes: 'not checked',
    filesChecked: 2,
    filesHashed: 0,
  })
})

test('the age of the last full pass is what the ledger says, which is not changed', async () => {
  using ledger = openLedger(`${root}.ledger`)
  await verifyClosure(manifest, { ledger, owner, now: () => 1_000_000 })
  expect(await look({ ledger })).toMatchObject({ ok: true, lastFullAtMs: 1_000_000 })
})

test('altered content of the same size is not seen, which is why this is not called full', async () => {
  alter(root, () => put('data', 'dbta\n', 0o444))
  expect(await look()).toMatchObject({ ok: true, strength: 'metadata' })
})

test.each([
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
  ['a writable file', '', () => chmodSync(inside('data'), 0o644), 'mode', 'data'],
])('%s is named', async (_, directory, change, kind, name) => {
  alter(inside(directory), change)
  expect((await look()).mismatches).toMatchObject([{ path: root, kind, file: inside(name) }])
})

test('without a file list a change of size is told for the path', async () => {
  alter(root, () => {
    rmSync(inside('link'))
    symlinkSync('a name longer than before', inside('link'))
  })
  const { mismatches } = await verifyClosure(manifest, {
    owner,
    now: () => 1,
    metadataOnly: true,
  })
  expect(mismatches).toEqual([
    {
      path: root,
      kind: 'size',
      expected: `a NAR of ${manifest.entries[0]?.narSize} bytes`,
      seen: expect.stringMatching(/^a NAR of \d+ bytes$/),
    },
  ])
})

test('a path that is gone is missing', async () => {
  chmodSync(inside('bin'), 0o755)
  chmodSync(root, 0o755)
  rmSync(root, { recursive: true })
  expect((await look()).mismatches).toMatchObject([{ path: root, kind: 'missing' }])
})
