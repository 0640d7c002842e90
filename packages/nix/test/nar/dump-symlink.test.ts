import fs, { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { dumpNar } from '../../src/nar/dump.ts'

afterEach(() => {
  vi.restoreAllMocks()
  syncBuiltinESMExports()
})

test('a file that becomes a symlink between look and reading is a change, as its metadata are not the link’s', () => {
  const root = mkdtempSync(join(tmpdir(), 'bagcheck-dump-'))
  mkdirSync(join(root, 'bin'))
  symlinkSync('target', join(root, 'bin', 'link'))
  writeFileSync(join(root, 'file'), '')
  const file = fs.lstatSync(join(root, 'file'), { bigint: true })
  const look = fs.lstatSync as (...args: readonly unknown[]) => unknown
  vi.spyOn(fs, 'lstatSync').mockImplementation(((...args: unknown[]) =>
    String(args[0]).endsWith('/link') ? file : look(...args)) as typeof fs.lstatSync)
  syncBuiltinESMExports()
  expect(() => [...dumpNar(root, {}, { lookAgain: false })]).toThrow(
    expect.objectContaining({ code: 'STORE_CHANGED' }),
  )
  rmSync(root, { recursive: true })
})
