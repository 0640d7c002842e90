// What real Nix says about a closure it built, against what we say.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  nixAvailable,
  nixBuild,
  nixEnvironment,
  runNix,
  shellDerivation,
  startNixDaemon,
} from '@bagcheck/testkit'
import type { TestNixDaemon } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  buildFileList,
  connectDaemon,
  hashNar,
  openLedger,
  openNixDatabase,
  parseFileList,
  parseManifest,
  parseStorePath,
  readClosure,
  readNar,
  verifyClosure,
  writeNar,
} from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'
import { directory, nar, regular } from './nar/archive.ts'

const library = shellDerivation(
  'library',
  `mkdir -p $out/lib $out/share/empty
   echo data > $out/lib/data; echo data > $out/lib/same; : > $out/lib/nothing; ln -s data $out/lib/link
   echo 'with space' > "$out/share/a name"; printf x > $out/share/$(printf 'caf\\303\\251')
   printf y > $out/share/$(printf 'bad\\377'); echo $out > $out/self`,
)
const tool = shellDerivation(
  'tool',
  `mkdir -p $out/bin; echo "#! $library/lib/data" > $out/bin/tool; chmod +x $out/bin/tool`,
  { library },
)
const root = shellDerivation('root', 'mkdir $out; echo $library $tool > $out/refs', {
  library,
  tool,
})

describe.runIf(nixAvailable())('with real Nix', () => {
  let path: StorePath
  let daemon: TestNixDaemon
  let scratch: string
  let manifest: ClosureManifest
  const now = (): number => Date.now()
  const libraryPath = (): string =>
    manifest.entries.find((entry) => entry.path.endsWith('-library'))?.path ?? ''

  beforeAll(async () => {
    scratch = mkdtempSync('/var/tmp/bagcheck-nix-test-')
    daemon = await startNixDaemon(scratch)
    path = nixBuild(root)
    const database = openNixDatabase()
    manifest = await readClosure(database, path)
    await database.close()
  })
  afterAll(async () => {
    await daemon.stop()
    rmSync(scratch, { recursive: true })
  })

  test('daemon, database, nix-store and path-info agree on the closure', async () => {
    const client = await connectDaemon({ socketPath: daemon.socketPath })
    expect(client.nixVersion).toMatch(/^2\./)
    const asked = await readClosure(client, path)
    await client.close()
    expect(asked.text).toBe(manifest.text)
    expect(parseManifest(Buffer.from(asked.text))).toMatchObject({
      root: path,
      digest: manifest.digest,
    })
    const requisites = runNix('nix-store', ['-qR', path]).trim().split('\n').sort()
    expect(manifest.entries.map((entry) => entry.path)).toEqual(requisites)
    const infos = JSON.parse(
      runNix('nix', [
        '--extra-experimental-features',
        'nix-command',
        'path-info',
        '-r',
        '--json',
        path,
      ]),
    ) as { path: string; narHash: string; narSize: number; references: string[] }[]
    for (const info of infos)
      expect(manifest.entries.find((entry) => entry.path === info.path)).toMatchObject({
        narHash: info.narHash,
        narSize: info.narSize,
        references: info.references.sort(),
      })
  })

  test('hashNar gives the hash and size that Nix recorded', async () => {
    for (const { path, narHash, narSize } of manifest.entries)
      expect(await hashNar(path)).toEqual({ narHash, narSize })
  })

  test('verifies, incrementally too, and names an altered file', async () => {
    const files = await buildFileList(manifest)
    expect(parseFileList(Buffer.from(files.text)).digest).toBe(files.digest)
    const ledger = openLedger(join(scratch, 'ledger'))
    const first = await verifyClosure(manifest, { files, ledger, now })
    expect(first).toMatchObject({ ok: true, strength: 'full' })
    const second = await verifyClosure(manifest, { files, ledger, now })
    expect(second).toMatchObject({
      ok: true,
      strength: 'incremental',
      lastFullAtMs: first.lastFullAtMs,
      filesHashed: 0,
    })
    const file = `${libraryPath()}/lib/data`
    chmodSync(file, 0o644)
    writeFileSync(file, 'dbta\n')
    chmodSync(file, 0o444)
    const third = await verifyClosure(manifest, { files, ledger, now })
    expect(third).toMatchObject({ ok: false, mismatches: [{ file, kind: 'content' }] })
    writeFileSync(file, 'data\n')
    const fourth = await verifyClosure(manifest, { files, ledger, now })
    expect(fourth).toMatchObject({ ok: true })
    ledger.close()
  })

  test('a ledger outlives the death of the process that wrote it', async () => {
    const file = join(scratch, 'crash')
    const child = spawn(
      process.execPath,
      [...process.execArgv, join(import.meta.dirname, 'ledger-child.ts'), file, path],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(child.stdout, 'data') // it has written and goes on verifying
    child.kill('SIGKILL')
    await once(child, 'exit')
    const ledger = openLedger(file)
    const result = await verifyClosure(manifest, { ledger, now })
    expect(result).toMatchObject({ ok: true, strength: 'incremental', filesHashed: 0 })
    ledger.close()
  })

  test('names a file that was replaced by rename, and finds a path that was deleted', async () => {
    const copy = nixBuild(
      shellDerivation('victim', 'mkdir $out; echo one > $out/a; echo two > $out/b'),
    )
    const database = openNixDatabase()
    const victim = await readClosure(database, copy)
    await database.close()
    const files = await buildFileList(victim)
    const ledger = openLedger(join(scratch, 'victim'))
    expect(await verifyClosure(victim, { files, ledger, now })).toMatchObject({ ok: true })
    chmodSync(copy, 0o755)
    writeFileSync(`${copy}/new`, 'six\n', { mode: 0o444 })
    renameSync(`${copy}/new`, `${copy}/b`)
    chmodSync(copy, 0o555)
    expect(await verifyClosure(victim, { files, ledger, now })).toMatchObject({
      ok: false,
      mismatches: [{ file: `${copy}/b`, kind: 'content' }],
    })
    await expect(buildFileList(victim)).rejects.toMatchObject({ code: 'CONTENT_MISMATCH' })
    runNix('nix-store', ['--delete', copy])
    expect(await verifyClosure(victim, { files, ledger, now })).toMatchObject({
      mismatches: [{ path: copy, kind: 'missing' }],
    })
    ledger.close()
  })

  test('stays good when Nix optimises the store, which moves files without changing them', async () => {
    const files = await buildFileList(manifest)
    const ledger = openLedger(join(scratch, 'optimise'))
    await verifyClosure(manifest, { files, ledger, now })
    const before = statSync(`${libraryPath()}/lib/same`)
    runNix('nix-store', ['--optimise'])
    expect(statSync(`${libraryPath()}/lib/same`).nlink).toBeGreaterThan(before.nlink)
    for (const full of [false, true])
      expect(await verifyClosure(manifest, { files, ledger, now, full })).toMatchObject({
        ok: true,
        strayLinks: [], // the other names lie in .links
      })
    ledger.close()
  })

  test('metadata alone give the NAR sizes that Nix recorded', async () => {
    const result = await verifyClosure(manifest, { now, metadataOnly: true })
    expect(result).toMatchObject({ ok: true, strength: 'metadata', filesHashed: 0 })
  })

  test('writes the archive that nix-store --dump writes', async () => {
    for (const entry of manifest.entries) {
      const dumped = spawnSync('nix-store', ['--dump', entry.path], {
        env: nixEnvironment(),
      }).stdout
      expect(Buffer.concat(await Array.fromAsync(writeNar(entry.path))).equals(dumped)).toBe(true)
    }
  })

  const nested = (levels: number): string[] =>
    levels === 0 ? regular('') : directory(['d', nested(levels - 1)])
  test.each([
    ['names out of order', nar(...directory(['b', regular('')], ['a', regular('')])), 'NAR_ORDER'],
    [
      'bytes after the archive',
      Buffer.concat([nar(...regular('')), Buffer.alloc(8)]),
      'NAR_TRAILING',
    ],
    ['70 levels of directories', nar(...nested(70)), 'NAR_LIMIT'],
  ])('an archive with %s is taken by Nix 2.8 and refused by us', async (name, bytes, code) => {
    const target = join(scratch, name)
    const restored = spawnSync('nix-store', ['--restore', target], {
      input: bytes,
      env: nixEnvironment(),
    })
    if (runNix('nix-store', ['--version']).includes('2.8.')) expect(restored.status).toBe(0)
    const reading = Array.fromAsync(readNar(ReadableStream.from([bytes])))
    await expect(reading).rejects.toMatchObject({ code })
  })

  test('a path that Nix does not have is undefined to daemon and database', async () => {
    const missing = parseStorePath(`/nix/store/${'0'.repeat(32)}-missing`)
    await using client = await connectDaemon({ socketPath: daemon.socketPath })
    expect(await client.queryPathInfo(missing)).toBeUndefined()
    await expect(readClosure(client, missing)).rejects.toMatchObject({ code: 'PATH_INVALID' })
    const database = openNixDatabase()
    expect(await database.queryPathInfo(missing)).toBeUndefined()
    await database.close()
  })

  test('a daemon that is gone is DAEMON_UNREACHABLE, a closed connection DAEMON_CLOSED', async () => {
    const mortal = await startNixDaemon(join(scratch, 'mortal'))
    const client = await connectDaemon({ socketPath: mortal.socketPath })
    await client.close()
    await mortal.stop()
    await expect(connectDaemon({ socketPath: mortal.socketPath })).rejects.toMatchObject({
      code: 'DAEMON_UNREACHABLE',
    })
    await expect(client.queryPathInfo(path)).rejects.toMatchObject({ code: 'DAEMON_CLOSED' })
  })
})
