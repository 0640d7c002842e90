// What a snapshot keeps of a tree, and gives back.
import { lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import type { StorePath } from '@bagcheck/nix'
import { encodeFileName } from '../../src/file-name.ts'
import { finish } from '../../src/verify/reply.ts'
import { scanPath } from '../../src/verify/scan.ts'
import { NameCursor, readSnapshot, restoreSnapshot } from '../../src/verify/snapshot.ts'
import type { Snapshot, SnapshotEntry } from '../../src/verify/snapshot.ts'
import { makeScratch } from './tree.ts'

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))
let next = 0

type Tree = string | { readonly link: string } | { readonly [name: string]: Tree }

const name = fc.stringMatching(/^[a-c\u00e9\udc80]{1,3}$/)
const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.string({ maxLength: 3 }),
    fc.record({ link: fc.stringMatching(/^[a-z/.\u00e9]{1,9}$/) }, { noNullPrototype: true }),
    fc.dictionary(name, tie('tree'), { maxKeys: 4, noNullPrototype: true }),
  ),
}))

const isLink = (tree: Tree): tree is { link: string } =>
  typeof tree === 'object' && typeof tree['link'] === 'string'

const latin1 = (text: string): string => encodeFileName(text).toString('latin1')

function write(path: string, tree: Tree): void {
  if (typeof tree === 'string') writeFileSync(encodeFileName(path), tree)
  else if (isLink(tree)) symlinkSync(encodeFileName(tree.link), encodeFileName(path))
  else {
    mkdirSync(encodeFileName(path))
    for (const [key, child] of Object.entries(tree)) write(`${path}/${key}`, child)
  }
}

/** The entries that a snapshot of `tree` must have, in archive order. */
function expected(tree: Tree, name = ''): Pick<SnapshotEntry, 'name' | 'kind' | 'target'>[] {
  if (typeof tree === 'string') return [{ name, kind: 'regular' }]
  if (isLink(tree)) return [{ name, kind: 'symlink', target: latin1(tree.link) }]
  const children = Object.entries(tree)
    .map(([key, child]) => [latin1(key), child] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return [
    { name, kind: 'directory' },
    ...children.flatMap(([key, child]) => expected(child, `${name}/${key}`)),
  ]
}

function snapshotOf(tree: Tree): [root: string, Snapshot] {
  const root = join(scratch, String(next++))
  write(root, tree)
  const { snapshot } = finish(scanPath({ scan: root as StorePath, hashFiles: false, owner: 0 }))
  return [root, snapshot]
}

test('holds every entry with its name, kind and target, and what the file system says of it', () => {
  fc.assert(
    fc.property(tree, (tree) => {
      const [root, snapshot] = snapshotOf(tree)
      const entries = readSnapshot(snapshot)
      expect(entries).toMatchObject(expected(tree))
      expect(snapshot.regularFiles).toBe(entries.filter(({ kind }) => kind === 'regular').length)
      for (const [index, { name }] of entries.entries()) {
        const stat = lstatSync(Buffer.from(root + name, 'latin1'), { bigint: true })
        expect(snapshot.stats.subarray(index * 5, index * 5 + 5)).toEqual(
          BigInt64Array.of(stat.dev, stat.ino, stat.mode, stat.size, stat.ctimeNs),
        )
      }
      const restored = restoreSnapshot(new Uint8Array(snapshot.stats.buffer), snapshot.names)
      expect(restored).toEqual(snapshot)
    }),
    { numRuns: 100 },
  )
})

test('names can be asked for with gaps between them', () => {
  fc.assert(
    fc.property(tree, fc.nat(3), (tree, gap) => {
      const [, snapshot] = snapshotOf(tree)
      const names = readSnapshot(snapshot).map((entry) => entry.name)
      const cursor = new NameCursor(snapshot, '/root')
      for (let index = 0; index < names.length; index += 1 + gap)
        expect(cursor.nameOf(index)).toBe(`/root${names[index]}`)
    }),
    { numRuns: 50 },
  )
})

test('an answer to somebody else is not taken for one: the digest covers integers and names', () => {
  const [, snapshot] = snapshotOf({ a: 'x', b: { c: 'y' } })
  const integers = new Uint8Array(snapshot.stats.buffer)
  const seen = new Set([snapshot.digest])
  for (let at = 0; at < integers.length; at += 7)
    seen.add(restoreSnapshot(integers.with(at, integers[at] === 0 ? 1 : 0), snapshot.names).digest)
  for (let at = 0; at < snapshot.names.length; at++)
    seen.add(restoreSnapshot(integers, snapshot.names.with(at, 7)).digest)
  expect(seen.size).toBe(1 + Math.ceil(integers.length / 7) + snapshot.names.length)
})
