import { hash } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  buildFileListFromNars,
  buildManifest,
  encodeNar,
  narHashFromDigest,
  sha256Hex,
  writeNar,
} from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'
import { directory, nar, regular, symlink } from './nar/archive.ts'
import { eventsOf, trees } from './nar/tree.ts'
import type { Tree } from './nar/tree.ts'
import { storePath } from './path-info/facts.ts'

async function* pieces(bytes: Uint8Array, size = 64): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** A closure of these archives: the first refers to all. */
function closureOf(archives: ReadonlyMap<StorePath, Uint8Array>): ClosureManifest {
  const paths = [...archives.keys()]
  const [root = storePath(0, 'none')] = paths
  return buildManifest(
    root,
    paths.map((path) => {
      const bytes = archives.get(path) ?? new Uint8Array()
      return {
        path,
        narHash: narHashFromDigest(hash('sha256', bytes, 'buffer')),
        narSize: bytes.length,
        references: path === root ? paths.slice(1) : [],
      }
    }),
  )
}

const root = storePath(1, 'root')
const single = storePath(2, 'single')
const archives = new Map([
  [
    root,
    nar(
      ...directory(
        ['bin', directory(['run', regular('#!', true)], ['with space', regular('x')])],
        ['empty', directory()],
        ['link', symlink('bin/run')],
        ['nothing', regular('')],
      ),
    ),
  ],
  [single, nar(...regular('alone'))],
])
const manifest = closureOf(archives)
const open = ({ path }: { path: StorePath }): AsyncIterable<Uint8Array> =>
  pieces(archives.get(path) ?? Buffer.alloc(0))

describe('a file list from archives', () => {
  test('names every regular file with its hash, and nothing else', async () => {
    const progress: number[] = []
    const list = await buildFileListFromNars(manifest, open, {
      onProgress: ({ paths }) => progress.push(paths),
    })
    expect(list.files).toEqual([
      { path: `${root}/bin/run`, sha256: sha256Hex('#!'), size: 2, executable: true },
      { path: `${root}/bin/with space`, sha256: sha256Hex('x'), size: 1, executable: false },
      { path: `${root}/nothing`, sha256: sha256Hex(''), size: 0, executable: false },
      { path: single, sha256: sha256Hex('alone'), size: 5, executable: false },
    ])
    expect(progress).toEqual([1, 2])
  })

  test('has the files of any tree', async () => {
    const list = (tree: Tree, at: string): [string, number][] =>
      typeof tree === 'string'
        ? [[at, Buffer.byteLength(tree)]]
        : tree instanceof Map
          ? [...tree].flatMap(([name, child]) =>
              list(child as Tree, `${at}/${Buffer.from(name, 'latin1').toString('hex')}`),
            )
          : []
    await fc.assert(
      fc.asyncProperty(trees, async (tree) => {
        const bytes = Buffer.concat(await Array.fromAsync(encodeNar(eventsOf(tree))))
        const only = new Map([[root, bytes]])
        const { files } = await buildFileListFromNars(closureOf(only), () => pieces(bytes))
        expect(files).toHaveLength(list(tree, '').length)
        expect(files.map(({ size }) => size).toSorted((a, b) => a - b)).toEqual(
          list(tree, '')
            .map(([, size]) => size)
            .toSorted((a, b) => a - b),
        )
      }),
    )
  })

  test('is the list of the same tree on disk', async () => {
    const tree = mkdtempSync(join(tmpdir(), 'bagcheck-tree-'))
    mkdirSync(join(tree, 'lib'))
    writeFileSync(join(tree, 'lib', 'é'), 'x')
    writeFileSync(join(tree, 'lib.so'), 'y'.repeat(5000))
    chmodSync(join(tree, 'lib.so'), 0o755)
    const bytes = Buffer.concat(await Array.fromAsync(writeNar(tree)))
    rmSync(tree, { recursive: true })
    const only = closureOf(new Map([[root, bytes]]))
    const { text } = await buildFileListFromNars(only, () => pieces(bytes))
    expect(text).toBe(
      `${root}/lib.so ${sha256Hex('y'.repeat(5000))} 5000 0555\n` +
        `${root}/lib/%C3%A9 ${sha256Hex('x')} 1 0444\n`,
    )
  })

  test('an archive that is another is CONTENT_MISMATCH and names the path', async () => {
    const other = nar(...regular('alonf'))
    const reading = buildFileListFromNars(manifest, (entry) =>
      entry.path === single ? pieces(other) : open(entry),
    )
    await expect(reading).rejects.toMatchObject({
      code: 'CONTENT_MISMATCH',
      detail: { path: single },
    })
  })

  test.each([
    ['cut off', (bytes: Buffer) => bytes.subarray(0, -8), 'NAR_TRUNCATED'],
    ['longer', (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(8)]), 'NAR_TRAILING'],
  ])('an archive that is %s is refused and names the path', async (_, change, code) => {
    const reading = buildFileListFromNars(manifest, (entry) =>
      entry.path === single ? pieces(change(archives.get(single) ?? Buffer.alloc(0))) : open(entry),
    )
    await expect(reading).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`${single}: `),
      detail: { path: single },
    })
  })

  test('lets all archives go when one fails', async () => {
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) {
          await new Promise((tick) => setImmediate(tick))
          yield Buffer.alloc(0)
        }
      } finally {
        resolve()
      }
    }
    const reading = buildFileListFromNars(manifest, ({ path }) =>
      path === single ? pieces(Buffer.from('no archive at all')) : endless(),
    )
    await expect(reading).rejects.toMatchObject({
      code: expect.stringMatching(/^NAR_/),
      detail: { path: single },
    })
    await closed
  })

  test('no list comes of reading nothing', async () => {
    await expect(buildFileListFromNars(manifest, open, { concurrency: 0 })).rejects.toThrow(
      TypeError,
    )
  })

  test('ends with the reason of the signal', async () => {
    const signal = AbortSignal.abort('why')
    await expect(buildFileListFromNars(manifest, open, { signal })).rejects.toBe('why')
  })
})
