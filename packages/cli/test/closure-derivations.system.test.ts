// The commands that read derivations, on what real Nix instantiated and built.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BuildComparison, ImpurityAudit, RootCauses } from '@bagcheck/nix'
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

  test('audit: finds secrets in sources where that was asked for', async () => {
    mkdirSync(join(directory, 'src'))
    const secret = `gh${'p_'}${'a1'.repeat(18)}`
    writeFileSync(join(directory, 'src/.env'), `TOKEN=${secret}\n`)
    const using = shellDerivation('using', 'echo $src > $out', { src: join(directory, 'src') })
    const path = runNix('nix-instantiate', ['--expr', using]).trim()
    const plain = await run(['closure', 'audit', '--fail-on', 'high', path])
    expect(plain.code).toBe(0)
    const { code, stdout } = await run(['closure', 'audit', '--sources', '--fail-on', 'high', path])
    expect(code).toBe(1)
    expect(stdout).toContain('1 source with 1 file\n1 high, ')
    expect(stdout).toContain('  using  sources.src/.env: a GitHub token\n')
    expect(stdout).not.toContain(secret)
    const json = JSON.parse((await run(['closure', 'audit', '--json', '--sources', path])).stdout)
    expect(json).toMatchObject({
      sources: { sources: 1, files: 1, unread: [] },
      counts: { high: 1 },
    })
  })

  test('what nix show-derivation printed will do instead of a store', async () => {
    const show = (path: string): string => {
      const features = ['--extra-experimental-features', 'nix-command']
      return runNix('nix', ['show-derivation', ...features, '-r', path])
    }
    const file = join(directory, 'derivations.json')
    writeFileSync(file, show(drv))
    expect((await run(['closure', 'causes', file, drv])).stdout).toBe(
      'the same 2 derivations on both sides\n',
    )
    writeFileSync(file, show(drv).replace('echo old', 'echo odd'))
    const altered = await run(['closure', 'audit', file])
    expect(altered).toMatchObject({ code: 1, stdout: '' })
    expect(altered.stderr).toContain('DRV_PATH')
    writeFileSync(file, '{}')
    expect((await run(['closure', 'audit', file])).stderr).toContain('has 0 derivations')
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
    const nothing = await run(['closure', 'audit', join(directory, 'none')])
    expect(nothing.stderr).toContain('FILE_UNREADABLE')
  })

  /** The verdict on two builds, and the exit code. */
  const classify = async (...args: string[]): Promise<[BuildComparison, number]> => {
    const { code, stdout, stderr } = await run(['closure', 'classify', '--json', ...base, ...args])
    expect(stderr).toBe('')
    return [JSON.parse(stdout) as BuildComparison, code]
  }

  test('classify: a library with other content is a change, with its cause', async () => {
    const [found, code] = await classify(old, young)
    expect(found).toMatchObject({
      verdict: 'change',
      content: { moved: [], unread: [] },
      rootCauses: { causes: [{ name: 'library-1.1' }] },
    })
    const changed = found.content.changed.map(({ name }) => name)
    expect(new Set(changed)).toEqual(new Set(['library-1.1', 'tool']))
    expect(code).toBe(0)
  })

  test('classify: a library that was built otherwise, with the same result, is a rebuild', async () => {
    const quick = (flag: string): string => {
      const library = shellDerivation('library', 'mkdir $out; echo $out > $out/self', {
        flag: JSON.stringify(flag),
      })
      return nixBuild(shellDerivation('tool', 'echo $library > $out', { library }))
    }
    const [found, code] = await classify(quick('-O1'), quick('-O2'))
    expect(found).toMatchObject({
      verdict: 'rebuild',
      content: { result: 'moved', changed: [], unread: [] },
      rootCauses: { causes: [{ changes: [{ field: 'env', key: 'flag' }] }] },
    })
    expect(found.content.moved).toHaveLength(2)
    expect(code).toBe(0)
    // The same intent must not give two derivations, however little came of it.
    const lock = join(directory, 'flake.lock')
    writeFileSync(lock, '{"version":7,"root":"root","nodes":{"root":{}}}')
    const args = ['--lock', lock, '--revision', 'a'.repeat(40), quick('-O1'), quick('-O2')]
    const [impure, refused] = await classify(...args)
    expect(impure).toMatchObject({ verdict: 'impure-evaluation', intent: { result: 'same' } })
    expect(refused).toBe(1)
    const [clean] = await classify('--revision', 'b'.repeat(40), ...args)
    expect(clean).toMatchObject({ verdict: 'rebuild', intent: { result: 'different' } })
  })

  test('classify: a source that is fetched otherwise cuts the change off', async () => {
    const from = (url: string): string => {
      const source = shellDerivation('source', 'printf content > $out', {
        url: JSON.stringify(url),
        outputHashMode: '"flat"',
        outputHashAlgo: '"sha256"',
        outputHash: 'builtins.hashString "sha256" "content"',
      })
      return shellDerivation('tool', 'cp $source $out', { source })
    }
    expect(nixBuild(from('a'))).toBe(nixBuild(from('b')))
    const [drv = '', other = ''] = ['a', 'b'].map((url) =>
      runNix('nix-instantiate', ['--expr', from(url)]).trim(),
    )
    expect(other).not.toBe(drv)
    expect((await classify(drv, drv))[0]).toMatchObject({
      verdict: 'identical',
      derivation: { result: 'same' },
    })
    expect((await classify(drv, other))[0]).toMatchObject({
      verdict: 'cut-off',
      rootCauses: { causes: [{ name: 'source', changes: [{ field: 'env', key: 'url' }] }] },
    })
  })

  test('classify: one path with two contents is refused', async () => {
    const noisy = shellDerivation('noisy', 'cat /proc/sys/kernel/random/uuid > $out')
    const path = nixBuild(noisy)
    const manifest = join(directory, 'noisy.manifest')
    expect((await run(['closure', 'manifest', ...base, '-o', manifest, path])).code).toBe(0)
    runNix('nix-store', ['--delete', path])
    expect(nixBuild(noisy)).toBe(path)
    const [found, code] = await classify(manifest, path)
    expect(found).toMatchObject({
      verdict: 'altered',
      content: { altered: [{ from: path, to: path }] },
    })
    expect(code).toBe(1)
    const { stdout } = await run(['closure', 'classify', ...base, manifest, path])
    expect(stdout).toMatch(/^altered: One store path has two contents/)
  })
})
