import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readProcFile } from '../../src/measure/proc-file.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-proc-file-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

function file(bytes: Uint8Array): string {
  const path = join(directory, `${bytes.length}`)
  writeFileSync(path, bytes)
  return path
}

test.each([0, 1, 32_767, 32_768, 65_535, 65_536, 65_537, 300_000])(
  'a file of %i bytes is read whole, and no more than that is allowed',
  (length) => {
    const bytes = randomBytes(length)
    expect(readProcFile(file(bytes), length).equals(bytes)).toBe(true)
    if (length === 0) return
    expect(() => readProcFile(file(bytes), length - 1)).toThrowError(
      expect.objectContaining({ code: 'MEASUREMENT_LIMIT' }) as Error,
    )
  },
)

test('what was read stays what it was when another file is read', () => {
  const [first, second] = [randomBytes(100), randomBytes(200)]
  const read = readProcFile(file(first), 100)
  readProcFile(file(second), 200)
  expect(read.equals(first)).toBe(true)
})
