// What the program does when nobody takes what it prints: its own process, with a standard output of each kind.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildManifest, narHashFromDigest, parseStorePath } from '@bagcheck/nix'

const main = [...process.execArgv, resolve(import.meta.dirname, '../src/main.ts')]
let scratch: string
let manifest: string
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bagcheck-output-'))
  manifest = join(scratch, 'manifest')
  const root = parseStorePath(`/nix/store/${'a'.repeat(32)}-orders-1.0`)
  const narHash = narHashFromDigest(new Uint8Array(32))
  const info = { path: root, narHash, narSize: 100, references: [] }
  writeFileSync(manifest, buildManifest(root, [info]).text)
})
afterAll(() => rmSync(scratch, { recursive: true }))

/** The exit code and standard error of a run whose standard output is closed before it prints. */
async function runUnread(...argv: string[]): Promise<{ code: number; stderr: string }> {
  const child = spawn(process.execPath, [...main, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let stderr = ''
  child.stderr.on('data', (text: Buffer) => void (stderr += text.toString()))
  const [code] = (await once(child, 'close')) as [number]
  return { code, stderr }
}

test('a result that nobody reads keeps its exit code, and nothing is said about it', async () => {
  expect(await runUnread('closure', 'why', manifest, 'orders-1.0')).toEqual({ code: 0, stderr: '' })
  expect(await runUnread('closure', 'why', manifest, 'other')).toEqual({ code: 1, stderr: '' })
  expect(await runUnread('closure', '--help')).toEqual({ code: 0, stderr: '' })
})

test('an error that nobody reads keeps its exit code', async () => {
  const child = spawn(process.execPath, [...main, 'closure', 'why'], { stdio: 'pipe' })
  child.stderr.destroy()
  child.stdout.destroy()
  expect(await once(child, 'close')).toEqual([2, null])
})

test('a result that cannot be written is no success', () => {
  const full = openSync('/dev/full', 'w')
  const run = (...argv: string[]) => {
    const { status, stderr } = spawnSync(process.execPath, [...main, ...argv], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    })
    return { status, stderr }
  }
  const stderr = expect.stringMatching(/^bagcheck: FILE_UNWRITABLE: standard output .*ENOSPC.*\n$/)
  expect(run('closure', 'why', manifest, 'orders-1.0')).toEqual({ status: 3, stderr })
  expect(run('closure', 'why', manifest, 'other')).toEqual({ status: 1, stderr })
  closeSync(full)
})
