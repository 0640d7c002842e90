import { linkSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import {
  buildFileList,
  encodeNix32,
  hashNar,
  narHashDigest,
  openLedger,
  verifyClosure,
} from '@bagcheck/nix'
import type { ClosureManifest, ClosureVerification } from '@bagcheck/nix'
import { alter, makeScratch, makeTree, manifestOf, owner } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

let next = 0
let store: string
let root: string
let other: string

beforeEach(() => {
  store = join(scratch, String(next++))
  root = join(store, 'root')
  other = join(store, 'other')
  makeTree(root)
  makeTree(other)
})

const verify = (manifest: ClosureManifest): Promise<ClosureVerification> =>
  verifyClosure(manifest, { owner, now: () => 1 })

/** What `nix-store --optimise` does: a name in `.links` by the hash of the file's NAR. */
async function optimise(file: string): Promise<void> {
  mkdirSync(join(store, '.links'), { recursive: true })
  const { narHash } = await hashNar(file)
  linkSync(file, join(store, '.links', encodeNix32(narHashDigest(narHash))))
}

test('a name outside the store is told and is no mismatch', async () => {
  linkSync(join(root, 'data'), join(scratch, `outside-${next}`))
  expect(await verify(await manifestOf(root))).toMatchObject({
    ok: true,
    strayLinks: [{ path: root, file: join(root, 'data'), names: 2, found: 1 }],
  })
})

test('a file whose names all lie in the closure is as a build may leave it', async () => {
  alter(root, () => linkSync(join(root, 'bin/tool'), join(root, 'tool')))
  alter(other, () => linkSync(join(root, 'bin/tool'), join(other, 'tool')))
  expect(await verify(await manifestOf(root, other))).toMatchObject({ ok: true, strayLinks: [] })
  const alone = await verify(await manifestOf(root))
  expect(alone.strayLinks).toMatchObject([{ names: 3, found: 2 }])
})

test('a file that the store holds in .links is explained', async () => {
  await optimise(join(root, 'data'))
  expect(await verify(await manifestOf(root))).toMatchObject({ ok: true, strayLinks: [] })
})

test('a name in .links that belongs to another file explains nothing', async () => {
  await optimise(join(other, 'data')) // the same content
  linkSync(join(root, 'data'), join(scratch, `outside-${next}`))
  const { strayLinks } = await verify(await manifestOf(root))
  expect(strayLinks).toMatchObject([{ file: join(root, 'data') }])
})

test('of very many files with several names, the strays are found all the same', async () => {
  mkdirSync(join(store, '.links'))
  alter(root, () => {
    for (let n = 0; n < 1200; n++) {
      const file = join(root, `n${n}`)
      writeFileSync(file, String(n), { mode: 0o444 })
      if (n !== 77) linkSync(file, join(store, '.links', `${n}`))
      else linkSync(file, join(scratch, `outside-${next}`))
    }
  })
  const { ok, strayLinks } = await verify(await manifestOf(root))
  expect(ok).toBe(true)
  expect(strayLinks).toEqual([{ path: root, file: join(root, 'n77'), names: 2, found: 1 }])
})

test('a name that is made after a good look is told by the next', async () => {
  const manifest = await manifestOf(root)
  const files = await buildFileList(manifest)
  using ledger = openLedger(`${root}.ledger`)
  let nowMs = 1_000_000
  const again = (): Promise<ClosureVerification> =>
    verifyClosure(manifest, { files, ledger, owner, now: () => nowMs++ })
  expect(await again()).toMatchObject({ strength: 'full', strayLinks: [] })
  linkSync(join(root, 'data'), join(scratch, `outside-${next}`))
  expect(await again()).toMatchObject({
    ok: true,
    strayLinks: [{ file: join(root, 'data'), names: 2, found: 1 }],
  })
})
