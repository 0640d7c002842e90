import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'
import { afterAll, expect, test } from 'vitest'
import { listAttributes } from '../src/attributes.ts'

const scratch = mkdtempSync(join(tmpdir(), 'bagcheck-attributes-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const setxattr = koffi
  .load(null)
  .func('int setxattr(const char *, const char *, const uint8_t *, size_t, int)')
const set = (file: string, name: string): boolean =>
  Number(setxattr(file, name, Buffer.from('x'), 1, 0)) === 0

test('a file has no attributes until it gets some, and a link is not followed', () => {
  const file = join(scratch, 'file')
  writeFileSync(file, '')
  symlinkSync(file, join(scratch, 'link'))
  expect(listAttributes(file)).toEqual([])
  // A file system without attributes has none to list.
  const names = ['user.one', 'user.two'].filter((name) => set(file, name))
  expect(listAttributes(file).toSorted()).toEqual(names)
  expect(listAttributes(join(scratch, 'link'))).toEqual([])
})

test('a name that is not UTF-8 is asked for by its bytes', () => {
  const file = Buffer.concat([Buffer.from(join(scratch, 'z')), Buffer.of(0xff)])
  writeFileSync(file, '')
  expect(listAttributes(file)).toEqual([])
})

test('a file that is not there is an error, with its name', () => {
  expect(() => listAttributes(join(scratch, 'none'))).toThrow('llistxattr: ENOENT')
})
