// The examples of the README, run as they stand.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { nixAvailable, nixBuild, runNix, shellDerivation } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildManifest, narHashFromDigest, parseStorePath } from '../src/index.ts'

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

  /** Runs the one example that calls `name`. */
  const run = (name: string, ...args: string[]): string => {
    const found = examples.filter((code) => code.includes(`${name}(`))
    expect(found).toHaveLength(1)
    const flags = [...process.execArgv, '--input-type=module-typescript', '-']
    const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, ...args], {
      cwd: scratch,
      input: found[0] ?? '',
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    return stdout
  }

  test('has four examples, each of which is run here', () => {
    expect(examples).toHaveLength(4)
  })

  test('verifies a closure of the store', () => {
    expect(run('openNixDatabase', root)).toMatch(/^[0-9a-f]{64} 1 paths\ntrue full \[\]\n$/)
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
    const printed = run('openBinaryCache', cache, readFileSync(key, 'utf8').trim(), root)
    expect(printed).toMatch(/^[0-9a-f]{64} 1 paths\n[0-9a-f]{64} 1 files\n$/)
  })

  test('says what changed between two closures', () => {
    const narHash = narHashFromDigest(new Uint8Array(32))
    const files = ['1.0', '1.1'].map((version) => {
      const path = parseStorePath(`/nix/store/${version[2]?.repeat(32)}-orders-${version}`)
      const file = join(scratch, version)
      const { text } = buildManifest(path, [{ path, narHash, narSize: 100, references: [] }])
      writeFileSync(file, text)
      return file
    })
    expect(run('diffClosures', ...files)).toBe('version orders 1.0 → 1.1 0\n')
  })

  test('says why two builds are not one', () => {
    const derivations = ['a', 'b'].map((text) => {
      const built = nixBuild(shellDerivation('orders-1.0', `mkdir $out; echo ${text} > $out/x`))
      return runNix('nix-store', ['--query', '--deriver', built]).trim()
    })
    expect(run('findRootCauses', ...derivations)).toMatch(/^orders-1\.0 /)
  })
})
