// Which systems a NixOS host knows: the one that it booted, the one that is active, the one that it will
// boot, and the generations that it can go back to. All are symlinks that root can point anywhere, so they
// say where to look and prove nothing.
//
//   /run/booted-system                  -> /nix/store/…-nixos-system-…   since boot
//   /run/current-system                 -> /nix/store/…-nixos-system-…   since the last activation
//   /nix/var/nix/profiles/system        -> system-N-link
//   /nix/var/nix/profiles/system-N-link -> /nix/store/…-nixos-system-…
import { constants } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { NixError, quote } from '../error.ts'
import { parseStorePath, storePathOf } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { BOOTSPEC_MAX_BYTES, parseBootspec } from './bootspec.ts'
import type { Bootspec } from './bootspec.ts'
import { locateWithin, readLink } from './within-root.ts'

/** One generation of the system profile. */
export interface Generation {
  readonly number: number
  readonly toplevel: StorePath
  /** True for the one that the profile points at, which the next boot starts by default. */
  readonly selected: boolean
}

/** What the links of a host say. */
export interface NixosHost {
  /** Undefined when there is no such link: no NixOS, or a file system that is not running. */
  readonly booted: StorePath | undefined
  readonly current: StorePath | undefined
  /** In ascending order of number. */
  readonly generations: readonly Generation[]
}

const PROFILES = '/nix/var/nix/profiles'
const GENERATION = /^system-([1-9][0-9]{0,8})-link$/
const MAX_GENERATIONS = 10_000

/**
 * Reads the links of the NixOS host whose file system is at `root` (`/`, a mount point, `/proc/1/root`).
 * What is not there is undefined or left out; what is there must be as NixOS leaves it.
 *
 * @throws {NixError} SYSTEM_LINK – a link that leads anywhere but to a store path, or cannot be read.
 */
export async function readNixosHost(root = '/'): Promise<NixosHost> {
  const [booted, current, selected, names] = await Promise.all([
    readSystemLink(root, '/run/booted-system'),
    readSystemLink(root, '/run/current-system'),
    locateWithin(root, `${PROFILES}/system`, false).then(readLink),
    listProfiles(root),
  ])
  if (selected !== undefined && !GENERATION.test(selected))
    throw linkError(`${PROFILES}/system`, 'system-<number>-link', selected)
  const numbers = names.flatMap((name) => GENERATION.exec(name)?.[1] ?? []).map(Number)
  if (numbers.length > MAX_GENERATIONS)
    throw linkError(PROFILES, `at most ${MAX_GENERATIONS} generations`, String(numbers.length))
  const generations: Generation[] = []
  for (const number of numbers.sort((a, b) => a - b)) {
    const name = `system-${number}-link`
    const toplevel = await readSystemLink(root, `${PROFILES}/${name}`)
    if (toplevel !== undefined) generations.push({ number, toplevel, selected: name === selected })
  }
  if (selected !== undefined && !generations.some((generation) => generation.selected))
    throw linkError(`${PROFILES}/system`, 'a generation that is there', selected)
  return { booted, current, generations }
}

/**
 * The bootspec of the system `toplevel` of the host at `root`; undefined when it has none (NixOS before
 * 22.11, or disabled).
 *
 * @throws {NixError} SYSTEM_LINK – the file cannot be read; BOOTSPEC – also when it describes another
 * system; JSON_SYNTAX, JSON_DUPLICATE_KEY, JSON_LIMIT
 */
export async function readBootspec(toplevel: StorePath, root = '/'): Promise<Bootspec | undefined> {
  const bytes = await readBounded(await locateWithin(root, `${toplevel}/boot.json`, true))
  if (bytes === undefined) return undefined
  const bootspec = parseBootspec(bytes)
  if (bootspec.toplevel === toplevel) return bootspec
  throw new NixError(
    'BOOTSPEC',
    `expected the bootspec of ${quote(toplevel)}, got that of ${quote(bootspec.toplevel)}`,
  )
}

/**
 * The system that a kernel command line starts: the store path in its last `init=`, as the kernel takes it.
 * Undefined when there is none, or it is not in the store.
 */
export function bootedToplevel(commandLine: string): StorePath | undefined {
  let init: string | undefined
  // Parameters are separated by blanks outside of double quotes; what follows "--" is for init itself.
  for (const [parameter] of commandLine.matchAll(/(?:"[^"]*"?|[^\s"])+/g)) {
    if (parameter === '--') break
    const bare = parameter.replaceAll('"', '')
    if (bare.startsWith('init=')) init = bare.slice('init='.length)
  }
  return init === undefined ? undefined : storePathOf(init)
}

async function readSystemLink(root: string, path: string): Promise<StorePath | undefined> {
  const target = await readLink(await locateWithin(root, path, false))
  if (target === undefined) return undefined
  try {
    return parseStorePath(target)
  } catch {
    // The error below names the link, which matters more than the rule that its target breaks.
    throw linkError(path, 'a store path', target)
  }
}

async function listProfiles(root: string): Promise<string[]> {
  const directory = await locateWithin(root, PROFILES, true)
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw linkError(PROFILES, 'a readable directory', String(error))
  }
}

/** At most one byte more than a bootspec may have, so that parsing refuses it. */
async function readBounded(file: string): Promise<Uint8Array | undefined> {
  try {
    // Not blocking: nobody may ever write to what could be a pipe.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
    if (!(await handle.stat()).isFile()) throw new Error('it is no regular file')
    const buffer = Buffer.alloc(BOOTSPEC_MAX_BYTES + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
      length += bytesRead
      if (bytesRead === 0 || length === buffer.length) return buffer.subarray(0, length)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw linkError(file, 'a readable file', String(error))
  }
}

function linkError(path: string, expected: string, seen: string): NixError {
  const message = `expected ${join('/', path)} to be ${expected}, got ${quote(seen)}`
  return new NixError('SYSTEM_LINK', message, { detail: { path } })
}
