// Attributes are read through a function of the caller's, so a table of them stands for the kernel's; what
// the kernel really says is in the command line's own test.
import { linkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { buildFileList, openLedger, verifyClosure } from '@bagcheck/nix'
import type {
  ClosureManifest,
  ClosureVerification,
  FileList,
  Ledger,
  VerifyOptions,
} from '@bagcheck/nix'
import { makeScratch, makeTree, manifestOf, owner } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

let next = 0
let root: string
let manifest: ClosureManifest
let files: FileList
let ledger: Ledger
let attributes: Record<string, string[]>
let asked: string[]

const readAttributes = (file: string | Buffer): readonly string[] => {
  asked.push(String(file).slice(root.length))
  return attributes[String(file).slice(root.length)] ?? []
}

beforeEach(async () => {
  root = join(scratch, String(next++))
  makeTree(root)
  manifest = await manifestOf(root)
  files = await buildFileList(manifest)
  ledger = openLedger(`${root}.ledger`)
  attributes = {}
  asked = []
  return () => ledger.close()
})

let nowMs = 1_000_000
const verify = (options: Partial<VerifyOptions> = {}): Promise<ClosureVerification> =>
  verifyClosure(manifest, { files, ledger, owner, now: () => nowMs++, ...options })

test('every entry is asked about once, and again only where something moved', async () => {
  expect(await verify({ readAttributes })).toMatchObject({ ok: true, attributes: 'checked' })
  expect(asked.toSorted()).toEqual(['', '/bin', '/bin/tool', '/data', '/empty', '/link'])
  asked = []
  expect(await verify({ readAttributes })).toMatchObject({
    strength: 'incremental',
    attributes: 'checked',
  })
  expect(asked).toEqual([])
  linkSync(join(root, 'data'), `${root}.link`)
  expect(await verify({ readAttributes })).toMatchObject({ ok: true, attributes: 'checked' })
  expect(asked).toEqual(['/data'])
})

test('an attribute that comes with the move is a mismatch, though the content is the same', async () => {
  await verify({ readAttributes })
  linkSync(join(root, 'data'), `${root}.link`)
  attributes = { '/data': ['security.capability'] }
  for (let pass = 0; pass < 2; pass++)
    expect(await verify({ readAttributes })).toMatchObject({
      ok: false,
      mismatches: [{ kind: 'attribute', file: `${root}/data` }],
    })
})

test.each([
  ['file capabilities', '/bin/tool', 'security.capability'],
  ['an access control list', '/data', 'system.posix_acl_access'],
  ['a default access control list of a directory', '/bin', 'system.posix_acl_default'],
  ['an attribute of a user', '/data', 'user.note'],
])('%s are a mismatch, again and again', async (_, name, attribute) => {
  attributes = { [name]: ['security.selinux', attribute] }
  for (let pass = 0; pass < 2; pass++)
    expect(await verify({ readAttributes })).toMatchObject({
      ok: false,
      mismatches: [{ kind: 'attribute', file: root + name, seen: attribute }],
    })
})

test('what Nix leaves, and the labels of the kernel, are none', async () => {
  attributes = { '/data': ['security.selinux', 'security.ima', 'system.nfs4_acl'] }
  expect(await verify({ readAttributes })).toMatchObject({ ok: true, attributes: 'checked' })
})

test('without a way to read them the result says that they were not checked', async () => {
  expect(await verify()).toMatchObject({ ok: true, attributes: 'not checked' })
  expect(await verify()).toMatchObject({ strength: 'incremental', attributes: 'not checked' })
})

test('what an earlier pass saw counts until the file moves with nobody to look', async () => {
  await verify({ readAttributes })
  expect(await verify()).toMatchObject({ strength: 'incremental', attributes: 'checked' })
  linkSync(join(root, 'data'), `${root}.link`)
  expect(await verify()).toMatchObject({ strength: 'incremental', attributes: 'not checked' })
  expect(await verify()).toMatchObject({ strength: 'incremental', attributes: 'not checked' })
  expect(await verify({ readAttributes })).toMatchObject({ attributes: 'checked' })
})

test('a path that was read before anybody looked for attributes is looked at, not read', async () => {
  await verify()
  expect(await verify({ readAttributes })).toMatchObject({
    strength: 'incremental',
    attributes: 'checked',
    filesHashed: 0,
  })
  attributes = { '/data': ['security.capability'] }
  ledger.close()
  ledger = openLedger(`${root}.ledger`)
  expect(await verify({ readAttributes, full: true })).toMatchObject({ ok: false })
})

test('attributes that cannot be read stop the verification', async () => {
  const refuse = (): never => {
    throw new Error('EACCES')
  }
  await expect(verify({ readAttributes: refuse })).rejects.toMatchObject({ code: 'STORE_READ' })
})
