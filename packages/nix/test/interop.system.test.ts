// Newer releases of Nix against the oldest that is supported and against us: what each builds, says and
// refuses. Opt-in: BAGCHECK_INTEROP=1 (see packages/testkit/src/nix-releases.ts).
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  nixAvailable,
  nixBuild,
  nixReleaseCommand,
  nixReleases,
  runNixRelease,
  shellDerivation,
  startNixReleaseDaemon,
} from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  connectDaemon,
  encodeNar,
  formatNarInfo,
  formatRegistrations,
  listNar,
  openBinaryCache,
  openNixDatabase,
  parseCachePublicKey,
  parseNarInfo,
  parseNarListing,
  parsePathInfoJson,
  parseRegistrations,
  readClosure,
  readNar,
  recordedSource,
  storePathHash,
  writeNar,
} from '@bagcheck/nix'
import type { CachePublicKey, ClosureManifest, StorePath } from '@bagcheck/nix'
import { directory, nar, regular } from './nar/archive.ts'

const library = shellDerivation(
  'library',
  `mkdir -p $out/lib $out/empty; echo data > $out/lib/data; : > $out/lib/nothing; ln -s data $out/lib/link
   printf x > $out/lib/$(printf 'caf\\303\\251'); printf '#!/bin/sh\\n' > $out/lib/run
   chmod +x $out/lib/run; echo $out > $out/self`,
)
const root = shellDerivation('root', 'mkdir $out; echo $library $source > $out/refs', {
  library,
  source: 'builtins.toFile "source" "text"',
})

const releases = nixAvailable() ? await nixReleases() : []
// The reason is printed where there are none.
test.skipIf(releases.length === 0)('there are newer releases of Nix to compare with', () => {
  expect(releases).not.toEqual([])
})

describe.each(releases)('Nix $version', (release) => {
  const store = `/nix/interop-${release.suite}`
  const newest = Number(release.version.split('.')[1])
  const run = (program: string, ...args: string[]): string =>
    runNixRelease(release, store, program, args)
  let scratch: string
  let path: StorePath
  let expected: ClosureManifest
  let publicKey: CachePublicKey
  /** Where the content of a path lies: the release has its store below a directory. */
  const physical = (logical: string): string => store + logical

  beforeAll(async () => {
    scratch = mkdtempSync('/var/tmp/bagcheck-interop-')
    path = nixBuild(root)
    const database = openNixDatabase()
    expected = await readClosure(database, path)
    await database.close()
    expect(run('nix-build', '--no-out-link', '--expr', root).trim()).toBe(path)
    const [secretFile, publicFile] = [join(scratch, 'secret'), join(scratch, 'public')]
    run('nix-store', '--generate-binary-cache-key', 'newer-1', secretFile, publicFile)
    publicKey = parseCachePublicKey(readFileSync(publicFile, 'utf8').trim())
  })
  afterAll(() => rmSync(scratch, { recursive: true, force: true }))

  test('builds the closure that the oldest release builds, and its database says so', async () => {
    const database = openNixDatabase(physical('/nix/var/nix/db/db.sqlite'))
    expect((await readClosure(database, path)).text).toBe(expected.text)
    await database.close()
  })

  test('gives it by its daemon', async () => {
    const daemon = await startNixReleaseDaemon(release, store)
    const client = await connectDaemon({ socketPath: daemon.socketPath })
    expect(client.nixVersion).toBe(release.version)
    expect((await readClosure(client, path)).text).toBe(expected.text)
    const gone = `/nix/store/${'0'.repeat(32)}-gone` as StorePath
    expect(await client.queryPathInfo(gone)).toBeUndefined()
    await client.close()
    await daemon.stop()
  })

  test.each([
    ['of its own choice', [], 0],
    ['version 1', ['--json-format', '1'], 33],
    ['version 2', ['--json-format', '2'], 33],
    ['version 3', ['--json-format', '3'], 35],
  ])('prints it as JSON %s', async (_, flags, since) => {
    const { command, args, env } = nixReleaseCommand(release, store, 'nix')
    const { status, stdout } = spawnSync(
      command,
      [...args, 'path-info', '--json', '--recursive', ...flags, path],
      { env },
    )
    expect(status === 0).toBe(newest >= since)
    if (status !== 0) return
    const source = recordedSource('path-info', parsePathInfoJson(stdout))
    expect((await readClosure(source, path)).text).toBe(expected.text)
  })

  test('dumps registrations that print as they were', async () => {
    const paths = expected.entries.map((entry) => entry.path)
    const text = run('nix-store', '--dump-db', ...paths)
    const infos = parseRegistrations(Buffer.from(text))
    expect(formatRegistrations(infos)).toBe(text)
    const closure = await readClosure(recordedSource('registration', infos), path)
    expect(closure.text).toBe(expected.text)
  })

  test.each(['none', 'gzip', 'zstd', 'xz', 'br'])(
    'makes a binary cache that is read (%s)',
    async (compression) => {
      const target = join(scratch, compression)
      const parameters = `compression=${compression}&secret-key=${join(scratch, 'secret')}`
      run('nix', 'copy', '--to', `file://${target}?${parameters}&write-nar-listing=1`, path)
      for (const name of readdirSync(target).filter((one) => one.endsWith('.narinfo'))) {
        const bytes = readFileSync(join(target, name))
        const info = parseNarInfo(bytes, { hashPart: name.slice(0, 32) })
        expect(info.quirks).toEqual([])
        expect(formatNarInfo(info)).toBe(bytes.toString())
      }
      const cache = await openBinaryCache(target, { trust: { keys: [publicKey] } })
      expect((await readClosure(cache, path)).text).toBe(expected.text)
      for (const entry of expected.entries) {
        const ls = readFileSync(join(target, `${storePathHash(entry.path)}.ls`))
        const listing = await listNar(writeNar(physical(entry.path)))
        expect(parseNarListing(ls)).toEqual(listing)
        if (compression === 'xz') continue
        const info = await cache.queryPathInfo(entry.path)
        if (info === undefined) throw new Error('read a moment ago')
        const events = readNar(cache.openNar(info), { narSize: entry.narSize })
        const copied = Buffer.concat(await Array.fromAsync(encodeNar(events)))
        const own = Buffer.concat(await Array.fromAsync(writeNar(physical(entry.path))))
        expect(copied.equals(own)).toBe(true)
      }
      await cache.close()
    },
  )

  const nested = (levels: number): string[] =>
    levels === 0 ? regular('') : directory(['d', nested(levels - 1)])
  test.each([
    ['a tree', nar(...directory(['a', regular('x')])), true, undefined],
    [
      'names out of order',
      nar(...directory(['b', regular('')], ['a', regular('')])),
      false,
      'NAR_ORDER',
    ],
    ['a name twice', nar(...directory(['a', regular('')], ['a', regular('')])), false, 'NAR_ORDER'],
    ['a slash in a name', nar(...directory(['a/b', regular('')])), false, 'NAR_NAME'],
    ['the name ".."', nar(...directory(['..', regular('')])), false, 'NAR_NAME'],
    ['70 levels of directories', nar(...nested(70)), newest < 34, 'NAR_LIMIT'],
    ['bytes after it', Buffer.concat([nar(...regular('')), Buffer.alloc(8)]), true, 'NAR_TRAILING'],
    ['no end', nar(...regular('')).subarray(0, -16), false, 'NAR_TRUNCATED'],
  ] as const)(
    'an archive with %s: what it takes and what we take',
    async (name, bytes, taken, code) => {
      const { command, args, env } = nixReleaseCommand(release, store, 'nix-store')
      const target = join(scratch, `restored ${name.replaceAll('/', '')}`)
      const { status } = spawnSync(command, [...args, '--restore', target], { input: bytes, env })
      expect(status === 0).toBe(taken)
      const reading = Array.fromAsync(readNar(ReadableStream.from([bytes])))
      if (code === undefined) await reading
      else await expect(reading).rejects.toMatchObject({ code })
    },
  )
})
