// The commands that read derivations, on what real Nix instantiated and built.
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { ImpurityAudit, RootCauses } from '@bagcheck/nix'
import { nixAvailable, nixBuild, runNix, shellDerivation } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

const base = ['--source', 'database'] as const

/** A tool, and a library that it uses. */
function tool(version: string, content: string): string {
  const library = shellDerivation(`library-${version}`, `echo ${content} > $out`, {
    version: JSON.stringify(version),
  })
  return shellDerivation('tool', 'mkdir $out; echo $library > $out/uses', { library })
}

// Instantiated only: nothing here has a network.
const fetch = `derivation {
  name = "source.txt"; system = "builtin"; builder = "builtin:fetchurl"; url = "http://example.org/x";
  outputHashMode = "flat"; outputHashAlgo = "sha1"; outputHash = builtins.hashString "sha1" "x";
}`

describe.runIf(nixAvailable())('with real Nix', () => {
  let directory: string
  let old: string
  let young: string
  let drv: string
  beforeAll(() => {
    directory = mkdtempSync('/var/tmp/bagcheck-derivations-')
    old = nixBuild(tool('1.0', 'old'))
    young = nixBuild(tool('1.1', 'new'))
    drv = runNix('nix-store', ['--query', '--deriver', old]).trim()
    symlinkSync(young, join(directory, 'result'))
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test('causes: a new library is the cause, the tool was only rebuilt', async () => {
    const { code, stdout } = await run([
      'closure',
      'causes',
      ...base,
      old,
      join(directory, 'result'),
    ])
    expect(code).toBe(0)
    expect(stdout).toContain(
      '1 root cause: 2 derivations of 2 differ, 1 of them only because of it',
    )
    expect(stdout).toContain('library-1.1  (1 other rebuilt)')
    expect(stdout).toContain('name: "library-1.0" → "library-1.1"')
    const json = await run(['closure', 'causes', '--json', ...base, drv, young])
    const found = JSON.parse(json.stdout) as RootCauses
    expect(found.schema).toBe('bagcheck.root-causes/v1')
    expect(found.causes.map(({ name }) => name)).toEqual(['library-1.1'])
    expect(found.causes[0]?.changes.map((change) => change.field)).toEqual(['name', 'args', 'env'])
    expect(found.propagated.map(({ name }) => name)).toEqual(['tool'])
    const same = await run(['closure', 'causes', ...base, old, drv])
    expect(same.stdout).toBe('the same 2 derivations on both sides\n')
  })

  test('audit: says what it found, and fails where that was asked for', async () => {
    const { code, stdout } = await run(['closure', 'audit', ...base, old])
    expect(code).toBe(0)
    expect(stdout).toContain('2 derivations, 0 of them fetched')
    expect(stdout).toContain('MEDIUM  host-builder: ')
    expect((await run(['closure', 'audit', ...base, '--fail-on', 'high', old])).code).toBe(0)
    expect((await run(['closure', 'audit', ...base, '--fail-on', 'low', old])).code).toBe(1)
    expect((await run(['closure', 'audit', ...base, '--fail-on', 'grave', old])).code).toBe(2)
    const source = runNix('nix-instantiate', ['--expr', fetch]).trim()
    const fetched = await run(['closure', 'audit', '--json', source])
    const audit = JSON.parse(fetched.stdout) as ImpurityAudit
    expect(audit.findings.map(({ kind }) => kind)).toEqual([
      'weak-hash',
      'insecure-url',
      'builtin-builder',
      'fixed-output',
    ])
  })

  test('what built a path must be known, and must have it as an output', async () => {
    const text = runNix('nix-store', ['--add', join(import.meta.dirname, 'transcript.ts')]).trim()
    const { code, stderr } = await run(['closure', 'audit', ...base, text])
    expect({ code, stderr }).toEqual({
      code: 3,
      stderr: `bagcheck: NOT_FOUND: the store does not know what built ${text}; name the .drv\n`,
    })
    const missing = await run(['closure', 'audit', ...base, `/nix/store/${'0'.repeat(32)}-x`])
    expect(missing.stderr).toContain('NOT_FOUND')
    const elsewhere = await run(['closure', 'audit', '--store', directory, drv])
    expect(elsewhere.stderr).toContain('DRV_READ')
    expect((await run(['closure', 'audit', directory])).code).toBe(2)
  })
})
