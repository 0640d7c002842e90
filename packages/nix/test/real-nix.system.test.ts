// What real Nix says about a closure it built, against what we say.
import { mkdtempSync, rmSync, writeFileSync, chmodSync } from 'node:fs'
import { join } from 'node:path'
import { nixAvailable, nixBuild, runNix, shellDerivation, startNixDaemon } from '@bagcheck/testkit'
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
  readClosure,
  verifyClosure,
} from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'

const library = shellDerivation(
  'library',
  `mkdir -p $out/lib $out/share/empty
   echo data > $out/lib/data; : > $out/lib/nothing; ln -s data $out/lib/link
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
    const file = `${manifest.entries.find((e) => e.path.endsWith('-library'))?.path}/lib/data`
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
})
