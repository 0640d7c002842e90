import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { bootedToplevel, readBootspec, readNixosHost } from '@bagcheck/nix'
import { document, systemPath } from './documents.ts'

const scratch = mkdtempSync(join(tmpdir(), 'bagcheck-host-'))
afterAll(() => rmSync(scratch, { recursive: true }))

let root: string
let count = 0
beforeEach(() => {
  root = join(scratch, String(count++))
  mkdirSync(root)
})

function link(path: string, target: string): void {
  mkdirSync(join(root, dirname(path)), { recursive: true })
  symlinkSync(target, join(root, path))
}

/** A host that booted a, runs b, and will boot generation 10. */
function makeHost(): void {
  link('/run/booted-system', systemPath('a'))
  link('/run/current-system', systemPath('b'))
  for (const [number, letter] of [
    [9, 'a'],
    [10, 'b'],
    [2, 'c'],
  ] as const)
    link(`/nix/var/nix/profiles/system-${number}-link`, systemPath(letter))
  link('/nix/var/nix/profiles/system', 'system-10-link')
}

const linkError = expect.objectContaining({ code: 'SYSTEM_LINK' })

describe('a NixOS host', () => {
  test('knows what it booted, what runs, and its generations by number', async () => {
    makeHost()
    link('/nix/var/nix/profiles/default', '/nix/var/nix/profiles/default-1-link')
    link('/nix/var/nix/profiles/system-010-link', '/anywhere')
    expect(await readNixosHost(root)).toEqual({
      booted: systemPath('a'),
      current: systemPath('b'),
      generations: [
        { number: 2, toplevel: systemPath('c'), selected: false },
        { number: 9, toplevel: systemPath('a'), selected: false },
        { number: 10, toplevel: systemPath('b'), selected: true },
      ],
    })
  })

  test('that is none has nothing', async () => {
    expect(await readNixosHost(root)).toEqual({
      booted: undefined,
      current: undefined,
      generations: [],
    })
  })

  test('below a directory is read with its own absolute links, not with ours', async () => {
    makeHost()
    rmSync(join(root, 'run'), { recursive: true })
    link('/volatile/run/current-system', systemPath('d'))
    link('/run', '/volatile/./x/../run')
    expect(await readNixosHost(root)).toMatchObject({ current: systemPath('d') })
    rmSync(join(root, 'run'))
    link('/run', `../../../../../../../../${scratch}/elsewhere`)
    link('/../elsewhere/current-system', systemPath('f'))
    expect(await readNixosHost(root)).toMatchObject({ current: undefined })
    rmSync(join(scratch, 'elsewhere'), { recursive: true })
  })

  test.each([
    ['/run/current-system', '/etc'],
    ['/run/current-system', `${systemPath('a')}/sw`],
    ['/run/booted-system', '../nix/store/x'],
    ['/nix/var/nix/profiles/system', 'system-11-link'],
    ['/nix/var/nix/profiles/system', '/nix/var/nix/profiles/system-10-link'],
    ['/nix/var/nix/profiles/system-9-link', '/tmp'],
  ])('is refused when %s leads to %s', async (path, target) => {
    makeHost()
    rmSync(join(root, path))
    link(path, target)
    await expect(readNixosHost(root)).rejects.toThrow(linkError)
  })

  test('is refused when links go round in a circle', async () => {
    link('/run', '/also')
    link('/also', '/run')
    await expect(readNixosHost(root)).rejects.toThrow(linkError)
  })

  test('may have something else than links: that is no system', async () => {
    mkdirSync(join(root, 'run/current-system'), { recursive: true })
    writeFileSync(join(root, 'nix'), '')
    await expect(readNixosHost(root)).rejects.toThrow(linkError)
    rmSync(join(root, 'nix'))
    expect(await readNixosHost(root)).toMatchObject({ current: undefined })
  })
})

describe('the bootspec of a host', () => {
  const file = (): string => join(root, systemPath('a'), 'boot.json')
  beforeEach(() => mkdirSync(dirname(file()), { recursive: true }))
  afterEach(() => rmSync(root, { recursive: true }))

  test('is read from its toplevel, through links of the same file system', async () => {
    expect(await readBootspec(systemPath('a'), root)).toBeUndefined()
    writeFileSync(join(root, 'real.json'), JSON.stringify(document('a')))
    symlinkSync('/real.json', file())
    expect(await readBootspec(systemPath('a'), root)).toMatchObject({ toplevel: systemPath('a') })
  })

  test('is refused when it describes another system', async () => {
    writeFileSync(file(), JSON.stringify(document('b')))
    await expect(readBootspec(systemPath('a'), root)).rejects.toThrow(
      expect.objectContaining({ code: 'BOOTSPEC' }),
    )
  })

  test('is refused when it is longer than any, a directory, or a pipe that nobody writes to', async () => {
    writeFileSync(file(), Buffer.alloc(3 << 20, ' '))
    await expect(readBootspec(systemPath('a'), root)).rejects.toThrow(
      expect.objectContaining({ code: 'JSON_LIMIT' }),
    )
    rmSync(file())
    mkdirSync(file())
    await expect(readBootspec(systemPath('a'), root)).rejects.toThrow(linkError)
    rmSync(file(), { recursive: true })
    expect(spawnSync('mkfifo', [file()]).status).toBe(0)
    await expect(readBootspec(systemPath('a'), root)).rejects.toThrow(linkError)
  })
})

describe('the system of a kernel command line', () => {
  const init = `${systemPath('a')}/init`
  test.each([
    ['a usual one', `initrd=\\efi\\x.efi init=${init} loglevel=4 root=fstab`, 'a'],
    ['the last of two', `init=${systemPath('b')}/init init=${init}\n`, 'a'],
    ['one in quotes', `dyndbg="init=/bin/sh x" "init=${init}"`, 'a'],
    ['a value in quotes', `init="${init}"`, 'a'],
  ])('is that of %s', (_, line, letter) => {
    expect(bootedToplevel(line)).toBe(systemPath(letter))
  })

  test.each([
    ['nothing', ''],
    ['no init', 'quiet rdinit=/init'],
    ['init outside of the store', `init=${init} init=/bin/sh`],
    ['init as an argument of init', `quiet -- init=${init}`],
    ['init within another value', `x=init=${init}`],
  ])('is unknown with %s', (_, line) => {
    expect(bootedToplevel(line)).toBeUndefined()
  })
})
