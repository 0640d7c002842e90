// The examples of the README, run as they stand.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { nixAvailable, nixBuild, runNix, shellDerivation } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = '']) => code)

describe.runIf(nixAvailable())('the README', () => {
  let scratch: string
  let root: string
  beforeAll(() => {
    scratch = mkdtempSync('/var/tmp/bagcheck-readme-')
    symlinkSync(resolve('node_modules'), join(scratch, 'node_modules'))
    root = nixBuild(shellDerivation('example', 'mkdir $out; echo x > $out/x'))
  })
  afterAll(() => rmSync(scratch, { recursive: true }))

  const run = (index: number, ...args: string[]): string => {
    const flags = [...process.execArgv, '--input-type=module-typescript', '-']
    const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, ...args], {
      cwd: scratch,
      input: examples[index] ?? '',
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    return stdout
  }

  test('has an example for a store and one for a cache', () => {
    expect(examples).toHaveLength(2)
  })

  test('verifies a closure of the store', () => {
    expect(run(0, root)).toMatch(/^[0-9a-f]{64} 1 paths\ntrue full \[\]\n$/)
  })

  test('reads a closure from a cache', () => {
    const [secret, key] = [join(scratch, 'secret'), join(scratch, 'key')]
    runNix('nix-store', ['--generate-binary-cache-key', 'example-1', secret, key])
    const cache = join(scratch, 'cache')
    const parameters = `compression=zstd&secret-key=${secret}`
    runNix('nix', [
      ...['--extra-experimental-features', 'nix-command', 'copy'],
      ...['--to', `file://${cache}?${parameters}`, root],
    ])
    const printed = run(1, cache, readFileSync(key, 'utf8').trim(), root)
    expect(printed).toMatch(/^[0-9a-f]{64} 1 paths\n[0-9a-f]{64} 1 files\n$/)
  })
})
