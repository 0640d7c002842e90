import fs, {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { hash } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeFileName, hashNar, narHashFromDigest, readNar, writeNar } from '@bagcheck/nix'
import { dumpNar } from '../../src/nar/dump.ts'
import { directory, nar, regular, symlink } from './archive.ts'

let scratch: string
let next = 0
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bagcheck-nar-'))
})
afterAll(() => rmSync(scratch, { recursive: true }))

const fresh = (): string => join(scratch, String(next++))

async function dump(path: string): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(writeNar(path)))
}

describe('writeNar', () => {
  test('writes files, modes, links and directories in byte order', async () => {
    const root = fresh()
    mkdirSync(join(root, 'b'), { recursive: true })
    writeFileSync(join(root, 'B'), 'upper')
    writeFileSync(join(root, 'b', 'x'), '', { mode: 0o755 })
    writeFileSync(encodeFileName(join(root, 'b', 'z\udcff')), 'not UTF-8')
    writeFileSync(join(root, 'b', 'zé'), 'UTF-8')
    symlinkSync('../nowhere', join(root, 'link'))
    const inner = directory(
      ['x', regular('', true)],
      ['zÃ©', regular('UTF-8')],
      ['zÿ', regular('not UTF-8')],
    )
    expect(await dump(root)).toEqual(
      nar(...directory(['B', regular('upper')], ['b', inner], ['link', symlink('../nowhere')])),
    )
  })

  test('the tree itself may have any name', async () => {
    for (const name of ['café', 'z\udcff']) {
      const root = join(fresh(), name)
      mkdirSync(encodeFileName(root), { recursive: true })
      expect(await dump(root)).toEqual(nar(...directory()))
      const { narSize } = await hashNar(root)
      expect(narSize).toBe(nar(...directory()).length)
    }
    const missing = join(fresh(), 'café')
    await expect(hashNar(missing)).rejects.toMatchObject({ detail: { file: missing } })
  })

  test('only the execute bit of the owner counts', async () => {
    const root = fresh()
    writeFileSync(root, 'x')
    for (const [mode, executable] of [
      [0o600, false],
      [0o655, false],
      [0o700, true],
      [0o4555, true],
    ] as const) {
      chmodSync(root, mode)
      expect(await dump(root)).toEqual(nar(...regular('x', executable)))
    }
  })

  test('files of any size around the buffer keep their bytes', async () => {
    const root = fresh()
    mkdirSync(root)
    const sizes = [
      0,
      1,
      7,
      8,
      9,
      (1 << 20) - 200,
      (1 << 20) - 1,
      1 << 20,
      (1 << 20) + 8192,
      3 << 20,
    ]
    const entries = sizes.map((size, index) => {
      const text = String(index).repeat(size)
      writeFileSync(join(root, String(index)), text)
      return [String(index), regular(text)] as const
    })
    expect((await dump(root)).equals(nar(...directory(...entries)))).toBe(true)
  })

  test('a file that ends anywhere near the end of the buffer leaves room for what ends it', async () => {
    // Behind a name of 8 bytes and its frame, so that the file alone decides where it ends.
    const root = fresh()
    for (let over = -160; over <= 24; over += 1) {
      const text = 'x'.repeat((1 << 20) + 8192 + over)
      writeFileSync(root, text)
      const { narHash } = await hashNar(root)
      const expected = narHashFromDigest(hash('sha256', nar(...regular(text)), 'buffer'))
      expect(narHash, `${text.length} bytes`).toBe(expected)
    }
  })

  test('archives that are under way at the same time do not write into each other', () => {
    const texts = ['x', 'y', 'z'].map((letter) => letter.repeat((2 << 20) + 1))
    const dumps = texts.map((text) => {
      const root = fresh()
      writeFileSync(root, text)
      return { archive: nar(...regular(text)), pieces: dumpNar(root), at: 0 }
    })
    for (let round = 0; round < 4; round++) {
      const steps = dumps.map((dump) => ({ dump, step: dump.pieces.next() }))
      for (const { dump, step } of steps) {
        if (step.done === true) continue
        const end = dump.at + step.value.length
        expect(dump.archive.subarray(dump.at, end).equals(step.value)).toBe(true)
        dump.at = end
      }
    }
    expect(dumps.map(({ at }) => at)).toEqual(dumps.map(({ archive }) => archive.length))
  })

  test('a file system that answers with less than was asked for gives the same archive', () => {
    const root = fresh()
    const text = 'x'.repeat((3 << 20) + 5)
    mkdirSync(root)
    for (const name of ['a', 'b']) writeFileSync(join(root, name), text)
    const expected = nar(...directory(['a', regular(text)], ['b', regular(text)]))
    const { readSync } = fs
    try {
      for (const most of [99_991, (1 << 18) + 3, (1 << 20) + 3]) {
        fs.readSync = ((fd: number, bytes: Buffer, at: number, length: number) =>
          readSync(fd, bytes, at, Math.min(length, most), null)) as typeof readSync
        syncBuiltinESMExports()
        const pieces: Buffer[] = []
        for (const piece of dumpNar(root)) pieces.push(Buffer.from(piece))
        const bytes = Buffer.concat(pieces)
        expect(bytes.equals(expected), `${most} bytes`).toBe(true)
      }
    } finally {
      Object.assign(fs, { readSync })
      syncBuiltinESMExports()
    }
  })

  test('what is written can be read, and hashes as hashNar says', async () => {
    const name = fc.stringMatching(/^[a-zA-Z.é-]{1,6}$/).filter((n) => n !== '.' && n !== '..')
    const tree = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 3 },
        fc.string(),
        fc.dictionary(name, tie('node') as fc.Arbitrary<string>, { maxKeys: 4 }),
      ),
    })).node
    const write = (path: string, node: unknown): void => {
      if (typeof node === 'string') return writeFileSync(path, node)
      mkdirSync(path)
      for (const [key, child] of Object.entries(node as object)) write(join(path, key), child)
    }
    await fc.assert(
      fc.asyncProperty(tree, async (node) => {
        const root = fresh()
        write(root, node)
        const bytes = await dump(root)
        let entries = 0
        for await (const event of readNar(writeNar(root), { narSize: bytes.length }))
          if (event.type === 'entry') entries++
        const count = (n: unknown): number =>
          typeof n === 'string'
            ? 0
            : Object.values(n as object).reduce((s, c) => s + 1 + count(c), 0)
        expect(entries).toBe(count(node))
        expect(await hashNar(root)).toEqual({
          narHash: narHashFromDigest(hash('sha256', bytes, 'buffer')),
          narSize: bytes.length,
        })
      }),
      { numRuns: 50 },
    )
  })
})

describe('a tree that moves while it is read', () => {
  const read = (
    root: string,
    during: () => void,
    when: 'regular' | 'contents' | 'directory',
  ): void => {
    let done = false
    const once = (): void => {
      if (!done) during()
      done = true
    }
    for (const _ of dumpNar(root, { [when]: once }));
  }
  const changed = expect.objectContaining({ code: 'STORE_CHANGED' })

  test('a file that grows is STORE_CHANGED', () => {
    const root = fresh()
    writeFileSync(root, 'x')
    expect(() => read(root, () => appendFileSync(root, 'y'), 'regular')).toThrow(changed)
  })

  test('a file that shrinks is STORE_CHANGED', () => {
    const root = fresh()
    writeFileSync(root, 'xyz')
    expect(() => read(root, () => writeFileSync(root, 'x'), 'regular')).toThrow(changed)
  })

  test('a large file that is altered behind the reader is STORE_CHANGED', () => {
    const root = fresh()
    const bytes = Buffer.alloc(4 << 20)
    writeFileSync(root, bytes)
    expect(() => read(root, () => writeFileSync(root, bytes.fill(1)), 'contents')).toThrow(changed)
  })

  test('a directory that gains an entry is STORE_CHANGED', () => {
    const root = fresh()
    mkdirSync(root)
    writeFileSync(join(root, 'a'), '')
    const add = (): void => writeFileSync(join(root, 'b'), '')
    expect(() => read(root, add, 'regular')).toThrow(changed)
  })

  test('a directory that gains one is not looked at again where nobody wants it', () => {
    const root = fresh()
    mkdirSync(root)
    writeFileSync(join(root, 'a'), '')
    const add = (): void => writeFileSync(join(root, 'b'), '')
    const chunks = [...dumpNar(root, { regular: add }, { lookAgain: false })]
    expect(Buffer.concat(chunks)).toEqual(nar(...directory(['a', regular('')])))
  })

  test('a file replaced by a link or a pipe is STORE_CHANGED, and never followed or waited for', () => {
    for (const replace of [
      (path: string) => symlinkSync('/etc/passwd', path),
      (path: string) => void spawnSync('mkfifo', [path]),
    ]) {
      const root = fresh()
      mkdirSync(root)
      writeFileSync(join(root, 'a'), '')
      writeFileSync(join(root, 'b'), '')
      const swap = (): void => {
        unlinkSync(join(root, 'b'))
        replace(join(root, 'b'))
      }
      expect(() => read(root, swap, 'regular')).toThrow(changed)
    }
  })
})

describe('what has no NAR', () => {
  test('nothing at the path is STORE_MISSING', async () => {
    await expect(hashNar(fresh())).rejects.toMatchObject({ code: 'STORE_MISSING' })
  })

  test('a pipe in the tree is STORE_TYPE and names it', async () => {
    const root = fresh()
    mkdirSync(root)
    spawnSync('mkfifo', [join(root, 'pipe')])
    await expect(hashNar(root)).rejects.toMatchObject({
      code: 'STORE_TYPE',
      detail: { file: join(root, 'pipe') },
    })
  })

  test('a hash that was given up ends with the reason', async () => {
    const root = fresh()
    writeFileSync(root, 'x')
    await expect(hashNar(root, { signal: AbortSignal.abort('why') })).rejects.toBe('why')
  })
})
