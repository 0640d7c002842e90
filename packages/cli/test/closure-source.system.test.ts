// One closure from every source that --source can name, with real Nix.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nixAvailable, nixBuild, runNix, shellDerivation, startNixDaemon } from '@bagcheck/testkit'
import type { TestNixDaemon } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

describe.runIf(nixAvailable())('bagcheck closure manifest --source', () => {
  let scratch: string
  let root: string
  let daemon: TestNixDaemon
  let manifest: string
  let key: string
  let otherKey: string
  const file = (name: string): string => join(scratch, name)
  const newKey = (name: string): string => {
    runNix('nix-store', ['--generate-binary-cache-key', name, file(name), file(`${name}.pub`)])
    return readFileSync(file(`${name}.pub`), 'utf8').trim()
  }
  const read = (source: string, ...more: string[]): ReturnType<typeof run> =>
    readWith(process.env['PATH'] ?? '', source, ...more)
  const readWith = (PATH: string, source: string, ...more: string[]): ReturnType<typeof run> =>
    run(['closure', 'manifest', root, '--source', source, ...more], { PATH })

  beforeAll(async () => {
    scratch = mkdtempSync('/var/tmp/bagcheck-source-')
    const library = shellDerivation('library', 'mkdir $out; echo x > $out/x')
    root = nixBuild(shellDerivation('root', 'mkdir $out; echo $library > $out/refs', { library }))
    key = newKey('one-1')
    otherKey = newKey('two-1')
    daemon = await startNixDaemon(file('daemon'))
    manifest = (await read('database')).stdout
    writeFileSync(file('manifest'), manifest)
    const nix = (...args: string[]): string =>
      runNix('nix', ['--extra-experimental-features', 'nix-command', ...args])
    writeFileSync(file('path-info.json'), nix('path-info', '--json', '--recursive', root))
    const paths = manifest.trimEnd().split('\n')
    writeFileSync(
      file('registration'),
      runNix('nix-store', ['--dump-db', ...paths.map((line) => line.split(' ')[0] ?? '')]),
    )
    nix(
      'copy',
      '--to',
      `file://${file('cache')}?compression=none&secret-key=${file('one-1')}`,
      root,
    )
  })
  afterAll(async () => {
    await daemon.stop()
    rmSync(scratch, { recursive: true, force: true })
  })

  test('says the same from every source', async () => {
    expect(manifest.split('\n')).toHaveLength(3)
    const answers = [
      await read('daemon', '--daemon-socket', daemon.socketPath),
      await read(file('manifest')),
      await read(file('path-info.json')),
      await read(file('registration')),
      await read(file('cache'), '--trusted-key', key),
      await read(`file://${file('cache')}`, '--trusted-key', key, '--trusted-key', otherKey),
    ]
    for (const answer of answers) expect(answer).toEqual({ code: 0, stdout: manifest, stderr: '' })
  })

  test('lists the files of a cache as those of the store', async () => {
    const store = await read('database', '--files', file('store.files'), '--json')
    for (const compression of ['none', 'zstd', 'xz', 'bzip2']) {
      const target = file(`cache-${compression}`)
      runNix('nix', [
        ...['--extra-experimental-features', 'nix-command', 'copy', '--to'],
        `file://${target}?compression=${compression}&secret-key=${file('one-1')}`,
        root,
      ])
      const more = ['--trusted-key', key, '--files', file('cache.files'), '--json']
      const path = compression === 'bzip2' ? (process.env['PATH'] ?? '') : '/nonexistent'
      expect(await readWith(path, target, ...more)).toEqual(store)
      expect(readFileSync(file('cache.files'))).toEqual(readFileSync(file('store.files')))
      if (compression !== 'bzip2') continue
      const without = await readWith('/nonexistent', target, ...more)
      expect(without.code).toBe(1)
      expect(without.stderr).toContain('"COMPRESSION_UNSUPPORTED"')
    }
    // Cut off: told.
    const [name = ''] = readdirSync(join(file('cache-xz'), 'nar'))
    const archive = join(file('cache-xz'), 'nar', name)
    writeFileSync(archive, readFileSync(archive).subarray(0, -20))
    const more = ['--trusted-key', key, '--files', file('cache.files')]
    const { code, stderr } = await read(file('cache-xz'), ...more)
    expect(code).toBe(1)
    expect(stderr).toMatch(/^bagcheck: COMPRESSION_DATA: /)
  })

  test('refuses a cache for which too few trusted keys vouch', async () => {
    for (const more of [
      ['--trusted-key', otherKey],
      ['--trusted-key', key, '--trusted-key', otherKey, '--threshold', '2'],
    ]) {
      const { code, stdout, stderr } = await read(file('cache'), ...more)
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr).toMatch(/^bagcheck: SIGNATURE_MISSING: /)
    }
  })

  test('with trusted keys demands their signatures from every source', async () => {
    expect(await read('database', '--trusted-key', key)).toMatchObject({ code: 1 })
    runNix('nix', [
      ...['--extra-experimental-features', 'nix-command', 'store', 'sign', '--recursive'],
      ...['--key-file', file('one-1'), root],
    ])
    expect(await read('database', '--trusted-key', key)).toMatchObject({ code: 0 })
    expect(await read('database', '--trusted-key', otherKey)).toMatchObject({ code: 1 })
  })

  test.each([
    ['a cache without keys', () => [file('cache')], 2],
    ['a key that is none', () => [file('cache'), '--trusted-key', 'x'], 2],
    [
      'a threshold beyond the keys',
      () => ['database', '--trusted-key', key, '--threshold', '2'],
      2,
    ],
    ['a threshold without keys', () => ['database', '--threshold', '2'], 2],
    ['a threshold of none', () => ['database', '--trusted-key', key, '--threshold', '0'], 2],
    ['a kind of URL that is not read', () => ['s3://bucket', '--trusted-key', key], 3],
    ['a directory that is no cache', () => [scratch, '--trusted-key', key], 1],
    ['a file of something else', () => [file('one-1')], 1],
  ])('says no to %s', async (_, args, code) => {
    const [source = '', ...more] = args()
    const answer = await read(source, ...more)
    expect(answer).toMatchObject({ code, stdout: '' })
    expect(answer.stderr).toMatch(/^bagcheck: [A-Z_]+: .*\n$/)
  })
})
