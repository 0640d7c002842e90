// `bagcheck closure verify` over what real Nix built, tampered with in every way that it names.
import {
  chmodSync,
  chownSync,
  copyFileSync,
  linkSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import koffi from 'koffi'
import { nixAvailable, nixBuild, shellDerivation } from '@bagcheck/testkit'
import {
  buildFileList,
  buildManifest,
  NIX_DATABASE_FILE,
  openNixDatabase,
  parseStorePath,
  readClosure,
} from '@bagcheck/nix'
import type { ClosureManifest, ClosureVerification, PathInfo } from '@bagcheck/nix'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

const setxattr = koffi
  .load(null)
  .func('int setxattr(const char *, const char *, const uint8_t *, size_t, int)')

/** vfs_cap_data of revision 2: CAP_NET_RAW, permitted and effective. See <linux/capability.h>. */
const CAP_NET_RAW = Buffer.alloc(20)
CAP_NET_RAW.writeUInt32LE(0x0200_0001, 0)
CAP_NET_RAW.writeUInt32LE(1 << 13, 4)

type Printed = ClosureVerification & { closures: { root: string }[]; paths: number }

describe.runIf(nixAvailable())('bagcheck closure verify', () => {
  let scratch: string
  let manifest: ClosureManifest
  let attested: string[]
  let path: string
  let next = 0

  beforeAll(() => void (scratch = mkdtempSync('/var/tmp/bagcheck-cli-verify-')))
  afterAll(() => rmSync(scratch, { recursive: true }))

  // Every test has a closure of its own to tamper with.
  beforeEach(async () => {
    // Content of its own too: another test optimises the store, and what it links is altered together.
    const unique = `closure-verify ${String(next).padStart(2, '0')}`
    const library = shellDerivation(
      `library-${next}`,
      `mkdir -p $out/lib; echo ${unique} > $out/lib/data; echo ${unique}. > $out/lib/more; ln -s data $out/lib/link`,
    )
    const script = 'mkdir -p $out/bin; echo "#! $library" > $out/bin/run; chmod +x $out/bin/run'
    const root = nixBuild(shellDerivation(`program-${next}`, script, { library }))
    const database = openNixDatabase()
    manifest = await readClosure(database, root)
    await database.close()
    path = manifest.entries.find((entry) => entry.path.endsWith(`-library-${next}`))?.path ?? ''
    const [manifestFile, files] = ['manifest', 'files'].map((name) => join(scratch, name + next))
    writeFileSync(manifestFile ?? '', manifest.text)
    writeFileSync(files ?? '', (await buildFileList(manifest)).text)
    attested = ['--manifest', manifestFile ?? '', '--files', files ?? '']
    next++
  })

  const verify = (...args: string[]): ReturnType<typeof run> =>
    run(['closure', 'verify', ...args, '--source', 'database'])

  async function facts(...args: string[]): Promise<Printed> {
    const { code, stdout } = await verify(...args, '--json')
    const printed = JSON.parse(stdout) as Printed
    expect(code).toBe(printed.ok ? 0 : 1)
    return printed
  }

  function alter(file: string, work: () => void): void {
    chmodSync(dirname(file), 0o755)
    work()
    chmodSync(dirname(file), 0o555)
  }

  test('says what it looked at, and how', async () => {
    const { code, stdout, stderr } = await verify(manifest.root)
    expect(stdout).toBe(
      `${manifest.root}: 2 paths as they should be (full; 3 files looked at, 3 read)\n`,
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await facts(manifest.root)).toEqual({
      closures: [{ root: manifest.root, closureDigest: manifest.digest }],
      paths: 2,
      ok: true,
      strength: 'full',
      checkedAtMs: expect.any(Number),
      lastFullAtMs: expect.any(Number),
      mismatches: [],
      mismatchCount: 0,
      attributes: 'checked',
      strayLinks: [],
      filesChecked: 3,
      filesHashed: 3,
    })
  })

  /** Nix's database with this test's closure only: other tests share the store and tamper with it. */
  function ownDatabase(): string {
    const file = join(scratch, `db${next}`)
    const paths = manifest.entries.map((entry) => `'${entry.path}'`).join()
    const whole = new DatabaseSync(NIX_DATABASE_FILE)
    whole.exec(`vacuum into '${file}'`)
    whole.close()
    const own = new DatabaseSync(file)
    own.exec(`delete from Refs; delete from ValidPaths where path not in (${paths})`)
    own.close()
    return file
  }

  test('metadata alone has the NAR sizes of Nix, and says that nothing was read', async () => {
    expect(await facts('--all', '--metadata', '--database', ownDatabase())).toMatchObject({
      ok: true,
      paths: 2,
      strength: 'metadata',
      lastFullAtMs: 0,
      filesHashed: 0,
    })
    const { stdout, stderr } = await verify(manifest.root, '--metadata')
    expect(stdout).toContain('(metadata, never read in full; 3 files looked at, 0 read)')
    expect(stderr).toBe('extended attributes: not checked\n')
  })

  test('all valid paths of a store are one verification', async () => {
    const database = ownDatabase()
    const { ok, paths, closures } = await facts('--all', '--database', database)
    expect({ ok, paths, closures }).toEqual({ ok: true, paths: 2, closures: [] })
    const { stdout } = await verify('--all', '--database', database)
    expect(stdout).toMatch(/^the store: 2 paths as they should be \(full; /)
  })

  test('a name outside the store is told and is no mismatch', async () => {
    const file = join(path, 'lib/more')
    linkSync(file, `/nix/outside-${next}`) // on another file system there are no links
    const { code, stdout, stderr } = await verify(manifest.root)
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `${file} has 2 names; 1 neither in this closure nor in .links\n`,
    })
    expect(stdout).toContain('2 paths as they should be')
  })

  const tampering: [string, string, (file: string) => void, object][] = [
    [
      'altered content',
      'lib/data',
      (file) => {
        chmodSync(file, 0o644)
        writeFileSync(file, 'closure-verofy 00\n')
        chmodSync(file, 0o444)
      },
      { kind: 'content' },
    ],
    [
      'another size',
      'lib/data',
      (file) => {
        chmodSync(file, 0o644)
        writeFileSync(file, 'closure-verify, and longer than before\n')
        chmodSync(file, 0o444)
      },
      { kind: 'size', expected: '18 bytes', seen: '39 bytes' },
    ],
    [
      'a file replaced by rename',
      'lib/data',
      (file) =>
        alter(
          file,
          () => (copyFileSync(file, `${file}~`), append(`${file}~`), renameSync(`${file}~`, file)),
        ),
      { kind: 'size' },
    ],
    [
      'an added file',
      'lib/extra',
      (file) => alter(file, () => writeFileSync(file, 'x', { mode: 0o444 })),
      { kind: 'unexpected' },
    ],
    ['a lost file', 'lib/data', (file) => alter(file, () => unlinkSync(file)), { kind: 'missing' }],
    [
      'a link in place of a file',
      'lib/data',
      (file) => alter(file, () => (unlinkSync(file), symlinkSync('more', file))),
      { kind: 'type', seen: 'symlink' },
    ],
    [
      'a writable file',
      'lib/data',
      (file) => chmodSync(file, 0o664),
      { kind: 'mode', seen: '0664 (writable)' },
    ],
    [
      'a setuid file',
      'lib/data',
      (file) => chmodSync(file, 0o4444),
      { kind: 'mode', seen: '4444 (setuid)' },
    ],
    [
      'a setgid file',
      'lib/data',
      (file) => chmodSync(file, 0o2444),
      { kind: 'mode', seen: '2444 (setgid)' },
    ],
    [
      'another owner',
      'lib/data',
      (file) => chownSync(file, 1000, 1000),
      { kind: 'owner', seen: 'uid 1000' },
    ],
    [
      'file capabilities',
      'lib/data',
      (file) =>
        expect(setxattr(file, 'security.capability', CAP_NET_RAW, CAP_NET_RAW.length, 0)).toBe(0),
      { kind: 'attribute', seen: 'security.capability' },
    ],
    [
      'an extended attribute',
      'lib',
      (file) => expect(setxattr(file, 'user.note', Buffer.from('x'), 1, 0)).toBe(0),
      { kind: 'attribute', seen: 'user.note' },
    ],
  ]
  function append(file: string): void {
    chmodSync(file, 0o644)
    writeFileSync(file, 'appended\n', { flag: 'a' })
    chmodSync(file, 0o444)
  }

  describe.each([
    ['in full', []],
    ['with a ledger that knows it', ['--ledger']],
  ])('%s', (_, [ledger]) => {
    test.each(tampering)('names %s', async (_, name, tamper, expected) => {
      const how = ledger === undefined ? attested : [...attested, ledger, join(scratch, `l${next}`)]
      expect(await facts(...how)).toMatchObject({ ok: true, attributes: 'checked' })
      if (ledger !== undefined)
        expect(await facts(...how)).toMatchObject({ strength: 'incremental', filesHashed: 0 })
      tamper(join(path, name))
      const { mismatches } = await facts(...how)
      expect(mismatches).toEqual([
        expect.objectContaining({ path, file: join(path, name), ...expected }),
      ])
      const { code, stdout } = await verify(...how)
      expect(code).toBe(1)
      expect(stdout).toMatch(new RegExp(`^${join(path, name)}: `))
      expect(stdout).toContain(': 1 difference (')
    })
  })

  test('a path that is gone is named', async () => {
    const gone = parseStorePath(`/nix/store/${'0'.repeat(32)}-gone`)
    const [entry] = manifest.entries as [PathInfo]
    const file = join(scratch, `gone${next}`)
    writeFileSync(file, buildManifest(gone, [{ ...entry, path: gone, references: [] }]).text)
    for (const how of [[], ['--metadata']])
      expect((await facts('--manifest', file, ...how)).mismatches).toEqual([
        { path: gone, kind: 'missing', expected: entry.narHash, seen: 'nothing' },
      ])
  })

  test('several roots are one verification', async () => {
    const { closures, paths } = await facts(manifest.root, path)
    expect(closures.map(({ root }) => root)).toEqual([manifest.root, path])
    expect(paths).toBe(2)
  })
})
