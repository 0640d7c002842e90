import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { findReferenceHolders } from '@bagcheck/nix'
import { at } from './closure-diff/closures.ts'

const scratch = mkdtempSync(join(tmpdir(), 'bagcheck-scan-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const path = at('c-app-1')
const lib = at('a-lib-1')
const other = at('b-other-1')
const hash = 'a'.repeat(32)

const found = async (location: string, options = {}): Promise<unknown> =>
  (await findReferenceHolders(path, [lib, other], { location, ...options })).get(lib)

describe('the files that hold a reference', () => {
  test('are found by contents, symlink targets and names, also names that are not UTF-8', async () => {
    const tree = join(scratch, 'tree')
    mkdirSync(join(tree, 'bin'), { recursive: true })
    writeFileSync(join(tree, 'bin/app'), `#! ${lib}/bin/sh\n${lib}`)
    writeFileSync(join(tree, 'bin/none'), other)
    symlinkSync(`${lib}/share`, join(tree, 'share'))
    writeFileSync(join(tree, `${hash}-link`), '')
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.of(0xff)]), lib)
    writeFileSync(join(tree, 'almost'), hash.slice(1))
    expect(await found(tree)).toEqual({
      complete: true,
      holders: [
        { file: `${hash}-link`, in: 'name', offset: 0 },
        { file: 'bin/app', in: 'contents', offset: 14 },
        { file: 'share', in: 'target', offset: 11 },
        { file: '\udcff', in: 'contents', offset: 11 },
      ],
    })
    expect((await findReferenceHolders(path, [other], { location: tree })).get(other)).toEqual({
      complete: true,
      holders: [{ file: 'bin/none', in: 'contents', offset: 11 }],
    })
  })

  test('are found wherever the hash lies across two reads', async () => {
    const file = join(scratch, 'large')
    const size = 1 << 20
    for (let shift = 0; shift <= 33; shift++) {
      const bytes = Buffer.alloc(2 * size + 100, 'x')
      const offset = size - 1 - shift + (shift % 2) * size
      bytes.write(hash, offset)
      writeFileSync(file, bytes)
      expect(await found(file)).toMatchObject({ holders: [{ file: '', in: 'contents', offset }] })
    }
  })

  test('are counted once, and cut off at the number asked for', async () => {
    const tree = join(scratch, 'many')
    mkdirSync(tree)
    writeFileSync(join(tree, 'twice'), `${hash}${'-'.repeat(3 << 20)}${hash}`)
    for (const name of ['x', 'y', 'z']) writeFileSync(join(tree, name), hash)
    expect(await found(tree, { maxHolders: 2 })).toMatchObject({
      complete: false,
      holders: [{ file: 'twice' }, { file: 'x' }],
    })
  })

  // The number of arguments that a call takes goes with the stack, which is 984 kB otherwise.
  test('are found in a directory of any size', () => {
    const tree = join(scratch, 'wide')
    mkdirSync(tree)
    for (let index = 0; index < 30_000; index++) symlinkSync('x', join(tree, `${index}`))
    writeFileSync(join(tree, 'last'), hash)
    const code = `import { findReferenceHolders, parseStorePath } from '@bagcheck/nix'
      const [path, lib] = ${JSON.stringify([path, lib])}.map(parseStorePath)
      const found = await findReferenceHolders(path, [lib], { location: ${JSON.stringify(tree)} })
      console.log(found.get(lib).holders[0].file)`
    const flags = [...process.execArgv, '--stack-size=200', '--input-type=module', '-e', code]
    expect(spawnSync(process.execPath, flags, { encoding: 'utf8' })).toMatchObject({
      stdout: 'last\n',
      stderr: '',
    })
  }, 120_000)

  test('may be the store path itself, a symlink that is not followed', async () => {
    const link = join(scratch, 'link')
    symlinkSync(`${lib}/x`, link)
    expect(await found(link)).toMatchObject({ holders: [{ file: '', in: 'target' }] })
  })

  test('are not looked for in what is not there, or when nobody waits any more', async () => {
    await expect(found(join(scratch, 'nowhere'))).rejects.toMatchObject({ code: 'STORE_MISSING' })
    const reason = new Error('ended')
    await expect(found(scratch, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  test('are an error when a file cannot be read', async () => {
    // Its first page is never mapped, so that reading gives EIO, to root too.
    await expect(found('/proc/self/mem')).rejects.toMatchObject({ code: 'STORE_READ' })
  })
})
