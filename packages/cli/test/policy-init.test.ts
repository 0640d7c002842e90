import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-init-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const init = (output: string): ReturnType<typeof run> =>
  run(['policy', 'init', '--installation', 'demo', '-o', output, '--json'])

describe('policy init', () => {
  test('makes the directory, or takes an empty one', async () => {
    const empty = join(folder, 'empty')
    mkdirSync(empty)
    for (const output of [join(folder, 'new'), empty]) {
      expect(await init(output)).toMatchObject({ code: 0, stderr: '' })
      expect(readdirSync(output).toSorted()).toEqual(['keys', 'root.json'])
    }
  })

  test('puts no keys into a directory where something is', async () => {
    writeFileSync(join(folder, 'something'), '')
    const { code, stderr } = await init(folder)
    expect(code).toBe(3)
    expect(JSON.parse(stderr)).toMatchObject({ code: 'FILE_EXISTS' })
    expect(readdirSync(folder)).toEqual(['something'])
  })

  // Where a file system cannot hold directories, making all those above would never end.
  test.each(['/proc/bagcheck/trust', '/proc/bagcheck'])(
    'cannot make %s, and says so',
    async (to) => {
      const { code, stderr } = await init(to)
      expect(code).toBe(3)
      expect(JSON.parse(stderr)).toMatchObject({ code: 'FILE_UNWRITABLE' })
    },
  )

  test('prints the pin that policy pin prints again', async () => {
    const output = join(folder, 'trust')
    const { pin } = JSON.parse((await init(output)).stdout) as { pin: string }
    const { stdout } = await run(['policy', 'pin', join(output, 'root.json')])
    expect(stdout).toBe(`${pin}\n`)
  })
})

test('keygen makes no directory above the key', async () => {
  const missing = join(folder, 'nope')
  const { code, stderr } = await run(['keygen', join(missing, 'ci.pem')])
  expect(code).toBe(3)
  expect(stderr).toContain(`make ${missing} first`)
  expect(existsSync(missing)).toBe(false)
})
