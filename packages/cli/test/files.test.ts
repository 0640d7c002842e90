import {
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { readInput, writeOutput, writeSecret } from '../src/files.ts'
import { run } from './transcript.ts'

describe('files', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bagcheck-files-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  test('an output replaces what was there and leaves nothing beside it', async () => {
    const file = join(folder, 'a/b.json')
    await writeOutput(file, 'one')
    await writeOutput(file, 'two')
    expect(readFileSync(file, 'utf8')).toBe('two')
    expect(readdirSync(join(folder, 'a'))).toEqual(['b.json'])
  })

  test('an output that cannot be written leaves nothing behind', async () => {
    const file = join(folder, 'taken')
    rmSync(folder, { recursive: true })
    writeFileSync(folder, '')
    await expect(writeOutput(file, 'x')).rejects.toMatchObject({ code: 'FILE_UNWRITABLE' })
    rmSync(folder)
    folder = mkdtempSync(join(tmpdir(), 'bagcheck-files-'))
  })

  test('a secret is mode 0600', async () => {
    const file = join(folder, 'key.pem')
    await writeSecret(file, 'secret')
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  test('a secret is never written over a file or through a link', async () => {
    const file = join(folder, 'key.pem')
    await writeSecret(file, 'first')
    await expect(writeSecret(file, 'second')).rejects.toMatchObject({ code: 'FILE_EXISTS' })
    expect(readFileSync(file, 'utf8')).toBe('first')
    symlinkSync(join(folder, 'elsewhere'), join(folder, 'link.pem'))
    await expect(writeSecret(join(folder, 'link.pem'), 'x')).rejects.toMatchObject({
      code: 'FILE_EXISTS',
    })
  })

  test('an input above its limit is refused before it is read', async () => {
    const file = join(folder, 'big')
    writeFileSync(file, 'x'.repeat(11))
    await expect(readInput(file, 10)).rejects.toMatchObject({ code: 'FILE_UNREADABLE' })
    expect((await readInput(file, 11)).length).toBe(11)
  })

  test('keygen writes a pair and refuses to write it again', async () => {
    const file = join(folder, 'ci.pem')
    expect(await run(['keygen', file])).toMatchObject({ code: 0 })
    expect(readFileSync(join(folder, 'ci.pub'), 'utf8')).toMatch(/BEGIN PUBLIC KEY/)
    const again = await run(['keygen', file])
    expect(again.code).toBe(3)
    expect(again.stderr).toMatch(/FILE_EXISTS/)
  })
})
