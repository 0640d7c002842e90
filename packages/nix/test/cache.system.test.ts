// What real Nix writes into a binary cache, prints as JSON and dumps, against what we read.
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { spawnSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import {
  nixAvailable,
  nixBuild,
  nixEnvironment,
  runNix,
  shellDerivation,
  startNixDaemon,
} from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  buildFileList,
  buildFileListFromNars,
  buildManifest,
  connectDaemon,
  encodeNar,
  formatNarInfo,
  formatNarListing,
  formatRegistrations,
  listNar,
  namesItsContent,
  narHashFromDigest,
  openBinaryCache,
  openNixDatabase,
  parseCachePublicKey,
  parseCacheSecretKey,
  parseNarInfo,
  parseNarListing,
  parsePathInfoJson,
  parseRegistrations,
  readClosure,
  readNar,
  recordedSource,
  signPathInfo,
  storePathHash,
  writeNar,
} from '@bagcheck/nix'
import type {
  BinaryCache,
  CachePublicKey,
  CacheSecretKey,
  ClosureManifest,
  PathInfo,
  StorePath,
} from '@bagcheck/nix'
import { chainOfPaths } from './cache/made-cache.ts'

const library = shellDerivation(
  'library',
  `mkdir -p $out/lib $out/empty; echo data > $out/lib/data; : > $out/lib/nothing; ln -s data $out/lib/link
   printf '#!/bin/sh\\n' > $out/lib/run; chmod +x $out/lib/run; echo $out > $out/self
   i=0; while [ $i -lt 300 ]; do echo "line $i of a file" >> $out/lib/long; i=$((i+1)); done`,
)
const root = shellDerivation('root', 'mkdir $out; echo $library $source > $out/refs', {
  library,
  source: 'builtins.toFile "source" "text that is its own address"',
})

async function* openEntry(cache: BinaryCache, path: StorePath): AsyncGenerator<Uint8Array> {
  const info = await cache.queryPathInfo(path)
  if (info === undefined) throw new Error(`${path} was there a moment ago`)
  yield* cache.openNar(info)
}

describe.runIf(nixAvailable())('a binary cache of real Nix', () => {
  let scratch: string
  let manifest: ClosureManifest
  let path: StorePath
  let secret: CacheSecretKey
  let publicKey: CachePublicKey

  const nix = (args: readonly string[]): string =>
    runNix('nix', ['--extra-experimental-features', 'nix-command', ...args])
  /** Copies the closure into a new cache. */
  const copy = (name: string, parameters: string, ...paths: string[]): string => {
    const directory = join(scratch, name)
    nix(['copy', '--to', `file://${directory}?${parameters}`, ...paths])
    return directory
  }
  const narInfos = (directory: string): string[] =>
    readdirSync(directory)
      .filter((name) => name.endsWith('.narinfo'))
      .map((name) => readFileSync(join(directory, name), 'latin1'))

  beforeAll(async () => {
    scratch = mkdtempSync('/var/tmp/bagcheck-cache-test-')
    path = nixBuild(root)
    const database = openNixDatabase()
    manifest = await readClosure(database, path)
    await database.close()
    const [secretFile, publicFile] = [join(scratch, 'secret'), join(scratch, 'public')]
    runNix('nix-store', ['--generate-binary-cache-key', 'test-1', secretFile, publicFile])
    secret = parseCacheSecretKey(readFileSync(secretFile, 'utf8'))
    publicKey = parseCachePublicKey(readFileSync(publicFile, 'utf8').trim())
  })
  afterAll(() => rmSync(scratch, { recursive: true, force: true }))

  test('keys that Nix generates fit together', () => {
    expect(secret.publicKey.bytes).toEqual(publicKey.bytes)
    expect(secret.name).toBe('test-1')
  })

  test.each(['none', 'gzip', 'zstd', 'xz', 'bzip2', 'br'])(
    'its narinfo prints as it was, and its archives are read (%s)',
    async (compression) => {
      const parameters = `compression=${compression}&secret-key=${join(scratch, 'secret')}`
      const directory = copy(compression, parameters, path)
      const texts = narInfos(directory)
      expect(texts).toHaveLength(manifest.entries.length)
      for (const text of texts) {
        const info = parseNarInfo(Buffer.from(text, 'latin1'))
        expect(info.quirks).toEqual([])
        expect(formatNarInfo(info)).toBe(text)
        // Ed25519 is deterministic: our signature is Nix's.
        expect(info.signatures).toEqual([signPathInfo(info, secret)])
      }
      const cache = await openBinaryCache(directory, { trust: { keys: [publicKey] } })
      const closure = await readClosure(cache, path)
      expect(closure.text).toBe(manifest.text)
      for (const entry of closure.entries) {
        const info = await cache.queryPathInfo(entry.path)
        if (info === undefined) throw new Error('read a moment ago')
        expect(info.compression).toBe(compression)
        if (compression === 'xz' || compression === 'bzip2') {
          await expect(Array.fromAsync(cache.openNar(info))).rejects.toMatchObject({
            code: 'COMPRESSION_UNSUPPORTED',
          })
          continue
        }
        const bytes = Buffer.concat(await Array.fromAsync(cache.openNar(info)))
        expect(bytes.equals(Buffer.concat(await Array.fromAsync(writeNar(entry.path))))).toBe(true)
      }
      if (compression !== 'xz' && compression !== 'bzip2') {
        const files = await buildFileListFromNars(closure, (entry) => openEntry(cache, entry.path))
        expect(files.text).toBe((await buildFileList(manifest)).text)
      }
      await cache.close()
    },
  )

  test('over HTTP it says the same, and a narinfo that was altered says nothing', async () => {
    const directory = copy('http', `compression=none&secret-key=${join(scratch, 'secret')}`, path)
    const server: Server = createServer((request, response) => {
      try {
        response.end(readFileSync(join(directory, request.url ?? '')))
      } catch {
        response.writeHead(404).end()
      }
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const location = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const trust = { keys: [publicKey] }
    const cache = await openBinaryCache(location, { trust })
    expect((await readClosure(cache, path)).digest).toBe(manifest.digest)
    await cache.close()

    const file = join(directory, `${storePathHash(path)}.narinfo`)
    const text = readFileSync(file, 'latin1')
    for (const altered of [
      text.replace(/NarSize: ./, 'NarSize: 7'),
      text.replace(/References: \S+ ?/, 'References: '),
      text.replace(/^Sig: .*\n/m, ''),
    ]) {
      expect(altered).not.toBe(text)
      writeFileSync(file, altered)
      const again = await openBinaryCache(location, { trust })
      await expect(readClosure(again, path)).rejects.toMatchObject({ code: 'SIGNATURE_MISSING' })
      await again.close()
    }
    await new Promise((resolve) => server.close(resolve))
  })

  test('what names its content needs no signature, everything else does', async () => {
    const directory = copy('unsigned', 'compression=none', path)
    const other = parseCachePublicKey(`other:${Buffer.alloc(32, 9).toString('base64')}`)
    const cache = await openBinaryCache(directory, { trust: { keys: [other] } })
    const verdicts = await Promise.all(
      manifest.entries.map(async (entry) => {
        const facts = parseNarInfo(
          readFileSync(join(directory, `${storePathHash(entry.path)}.narinfo`)),
        )
        const answer = await cache.queryPathInfo(entry.path).then(
          () => 'taken',
          (error: { code: string }) => error.code,
        )
        return [entry.path.slice(44), facts.ca?.split(':', 2).join(':'), answer]
      }),
    )
    expect(verdicts.sort(([a = ''], [b = '']) => (a < b ? -1 : 1))).toEqual([
      ['library', undefined, 'SIGNATURE_MISSING'],
      ['root', undefined, 'SIGNATURE_MISSING'],
      ['source', 'text:sha256', 'SIGNATURE_MISSING'],
    ])
    await cache.close()
  })

  test('a path that Nix adds as a source names its content', async () => {
    const file = join(scratch, 'added')
    mkdirSync(file)
    writeFileSync(join(file, 'a'), 'content')
    const added = nix(['store', 'add-path', file]).trim()
    const database = openNixDatabase()
    const [facts] = (await readClosure(database, added as StorePath)).entries
    await database.close()
    expect(facts && namesItsContent(facts)).toBe(true)
    const directory = copy('added-cache', 'compression=none', added)
    const other = parseCachePublicKey(`other:${Buffer.alloc(32, 9).toString('base64')}`)
    const cache = await openBinaryCache(directory, { trust: { keys: [other] } })
    expect(await cache.queryPathInfo(added as StorePath)).toMatchObject({ path: added })
    await cache.close()
  })

  test("Nix takes a narinfo that we signed, and refuses one by another's key", async () => {
    const directory = copy('ours', 'compression=none', path)
    for (const entry of manifest.entries) {
      const file = join(directory, `${storePathHash(entry.path)}.narinfo`)
      const info = parseNarInfo(readFileSync(file))
      writeFileSync(file, formatNarInfo({ ...info, signatures: [signPathInfo(info, secret)] }))
    }
    const verify = (key: string): number | null =>
      spawnSync(
        'nix',
        [
          ...['--extra-experimental-features', 'nix-command'],
          ...['--option', 'trusted-public-keys', key],
          ...['store', 'verify', '--no-contents', '--recursive', '--store', `file://${directory}`],
          path,
        ],
        { env: nixEnvironment() },
      ).status
    expect(verify(readFileSync(join(scratch, 'public'), 'utf8').trim())).toBe(0)
    expect(verify(`test-1:${Buffer.alloc(32, 9).toString('base64')}`)).not.toBe(0)
  })

  test('a narinfo that Nix 2.8 takes in spite of it is refused', async () => {
    const directory = copy('quirks', `compression=none&secret-key=${join(scratch, 'secret')}`, path)
    const file = join(directory, `${storePathHash(path)}.narinfo`)
    const text = readFileSync(file, 'latin1')
    // Nix remembers what it saw of a cache; a fresh memory for each question.
    const ask = (): string => {
      const environment = nixEnvironment({ XDG_CACHE_HOME: mkdtempSync(join(scratch, 'memory-')) })
      const flags = ['--extra-experimental-features', 'nix-command']
      return runNix(
        'nix',
        [...flags, 'path-info', '--json', '--store', `file://${directory}`, path],
        environment,
      )
    }
    writeFileSync(file, `${text}NarSize: 7\n`)
    if (runNix('nix', ['--version']).includes(' 2.8.')) expect(ask()).toContain('"narSize":7')
    expect(() => parseNarInfo(readFileSync(file))).toThrow(
      expect.objectContaining({ code: 'NAR_INFO_KEY' }),
    )
    // What both refuse.
    for (const bad of [text.replaceAll('\n', '\r\n'), text.slice(0, -1), `${text}\n`]) {
      writeFileSync(file, bad)
      expect(ask).toThrow(/error:/)
      expect(() => parseNarInfo(readFileSync(file))).toThrow(
        expect.objectContaining({ code: 'NAR_INFO_LINE' }),
      )
    }
    // What both take.
    writeFileSync(file, text.replace(/^References: .*\n/m, ''))
    expect(ask()).toContain('"references":[]')
    expect(parseNarInfo(readFileSync(file))).toMatchObject({ references: [] })
  })

  test('a URL that leads out of the cache, which Nix 2.8 follows, is refused', () => {
    const directory = copy('outside', 'compression=none', path)
    const file = join(directory, `${storePathHash(path)}.narinfo`)
    const text = readFileSync(file, 'latin1')
    const [, url = ''] = /^URL: (.*)$/m.exec(text) ?? []
    renameSync(join(directory, url), join(scratch, 'outside.nar'))
    writeFileSync(file, text.replace(`URL: ${url}`, 'URL: ../outside.nar'))
    if (runNix('nix', ['--version']).includes(' 2.8.'))
      nix(['store', 'verify', '--no-trust', '--store', `file://${directory}`, path])
    expect(() => parseNarInfo(readFileSync(file))).toThrow(
      expect.objectContaining({ code: 'NAR_INFO_VALUE' }),
    )
  })

  test('its listings say what the archives say', async () => {
    const directory = copy('listed', 'compression=none&write-nar-listing=1', path)
    for (const entry of manifest.entries) {
      const text = readFileSync(join(directory, `${storePathHash(entry.path)}.ls`))
      const listing = await listNar(writeNar(entry.path), { narSize: entry.narSize })
      expect(parseNarListing(text)).toEqual(listing)
      expect(JSON.parse(formatNarListing(listing))).toEqual(JSON.parse(text.toString()))
    }
  })

  test('archives that are read and written again are the same', async () => {
    for (const entry of manifest.entries) {
      const dumped = spawnSync('nix-store', ['--dump', entry.path], {
        env: nixEnvironment(),
      }).stdout
      const events = readNar(ReadableStream.from([dumped]), { narSize: entry.narSize })
      expect(Buffer.concat(await Array.fromAsync(encodeNar(events))).equals(dumped)).toBe(true)
    }
  })

  test('path-info JSON and registrations say what the database says', async () => {
    const json = parsePathInfoJson(
      Buffer.from(nix(['path-info', '--json', '--recursive', '--closure-size', path])),
    )
    expect((await readClosure(recordedSource('path-info', json), path)).text).toBe(manifest.text)
    const database = openNixDatabase()
    for (const info of json)
      // Nix 2.8 leaves out a flag that is not set
      expect(await database.queryPathInfo(info.path)).toEqual({ ultimate: false, ...info })
    await database.close()

    const paths = manifest.entries.map((entry) => entry.path)
    const dumped = runNix('nix-store', ['--dump-db', ...paths])
    const registered = parseRegistrations(Buffer.from(dumped))
    expect(formatRegistrations(registered)).toBe(dumped)
    const closure = await readClosure(recordedSource('registration', registered), path)
    expect(closure.text).toBe(manifest.text)
  })

  test('registrations that we print are loaded by Nix, and daemon and database know 1,300 paths', async () => {
    const chain = chainOfPaths(1300)
    const infos: PathInfo[] = [...chain].map(([path, references], index) => ({
      path,
      narHash: narHashFromDigest(Buffer.alloc(32, index % 256)),
      narSize: index + 1,
      references,
    }))
    // A database of its own: nothing of these paths is in the store.
    const state = { NIX_STATE_DIR: join(scratch, 'state') }
    const loaded = spawnSync('nix-store', ['--load-db'], {
      input: formatRegistrations(infos),
      env: nixEnvironment(state),
    })
    expect(loaded.status).toBe(0)
    const top = infos[0]?.path ?? path
    const expected = buildManifest(top, infos)
    const daemon = await startNixDaemon(join(scratch, 'daemon'), state)
    const client = await connectDaemon({ socketPath: daemon.socketPath })
    const database = openNixDatabase(join(state.NIX_STATE_DIR, 'db/db.sqlite'))
    for (const source of [client, database])
      expect((await readClosure(source, top)).text).toBe(expected.text)
    await client.close()
    await database.close()
    await daemon.stop()
  })
})
