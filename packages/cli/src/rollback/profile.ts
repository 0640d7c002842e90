// A profile of Nix: a link to the newest of its generations, which are links beside it.
//
//   /nix/var/nix/profiles/orders         → orders-3-link
//   /nix/var/nix/profiles/orders-2-link  → /nix/store/…-orders-1.0
//
// What is read here decides what root puts in force. So the directory, and all above it, must be root's and writable
// by nobody else, and a generation is a link to a store path and nothing else.
//
// Switching is what Nix does (src/libstore/profiles.cc: switchLink): a link beside it, renamed over the old one, under
// the profile's lock (src/libstore/pathlocks.cc): flock(2) on PROFILE.lock, which whoever lets go removes; "d" in it
// tells who has waited for it that it is gone.
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseStorePath, type StorePath } from '@bagcheck/nix'
import { CliError, EXIT } from '../error.ts'
import { tryLock } from './lock.ts'

const LOCK_WAIT_MS = 30_000
const MAX_GENERATIONS = 100_000

export interface Generation {
  readonly number: number
  readonly path: StorePath
}

export interface Profile {
  readonly current: Generation
  /** Newest first. */
  readonly earlier: readonly Generation[]
}

/** @throws {CliError} ROLLBACK_PROFILE */
export function readProfile(profile: string): Profile {
  const directory = dirname(profile)
  const name = basename(profile)
  if (!profile.startsWith('/') || join(directory, name) !== profile || name === '')
    throw refused(profile, 'expected an absolute path in its shortest form')
  assertRoots(directory, profile)
  const numberOf = (link: string): number | undefined => {
    const [, prefix, number] = /^(.+)-([1-9]\d{0,8})-link$/.exec(link) ?? []
    return prefix === name ? Number(number) : undefined
  }
  const target = read(profile, profile)
  const current = numberOf(target)
  if (current === undefined)
    throw refused(profile, `expected a link to ${name}-N-link, saw ${JSON.stringify(target)}`)
  const links = readdirSync(directory)
  if (links.length > MAX_GENERATIONS) throw refused(profile, `it lies among ${links.length} files`)
  const numbers = links.flatMap((link) => numberOf(link) ?? []).toSorted((a, b) => b - a)
  return {
    current: generation(profile, current),
    earlier: numbers.filter((n) => n < current).map((n) => generation(profile, n)),
  }
}

/**
 * Makes the generation `to` the current one, if `from` still is, and both still are the paths that were looked at.
 * @throws {CliError} ROLLBACK_PROFILE
 */
export async function switchProfile(
  profile: string,
  from: Generation,
  to: Generation,
): Promise<void> {
  await using _lock = await lock(profile)
  const { current, earlier } = readProfile(profile)
  const isStill = (one: Generation) => (other: Generation) =>
    other.number === one.number && other.path === one.path
  if (!isStill(from)(current) || !earlier.some(isStill(to)))
    throw refused(
      profile,
      `somebody else changed it meanwhile; it is at generation ${current.number}`,
    )
  const directory = dirname(profile)
  const temporary = join(directory, `.${basename(profile)}-${process.pid}-rollback`)
  rmSync(temporary, { force: true })
  symlinkSync(`${basename(profile)}-${to.number}-link`, temporary)
  renameSync(temporary, profile)
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  fsyncSync(fd)
  closeSync(fd)
}

function generation(profile: string, number: number): Generation {
  const target = read(`${profile}-${number}-link`, profile)
  try {
    return { number, path: parseStorePath(target) }
  } catch (cause) {
    const what = `generation ${number} leads to ${JSON.stringify(target)}, which is no store path`
    throw refused(profile, what, { cause })
  }
}

function read(link: string, profile: string): string {
  try {
    if (lstatSync(link).uid !== 0) throw refused(profile, `${link} is not root's`)
    return readlinkSync(link)
  } catch (cause) {
    if (cause instanceof CliError) throw cause
    throw refused(profile, `${link} is no link that can be read`, { cause })
  }
}

function assertRoots(directory: string, profile: string): void {
  try {
    if (realpathSync(directory) !== directory) throw refused(profile, 'it is reached over a link')
  } catch (cause) {
    if (cause instanceof CliError) throw cause
    throw refused(profile, `there is no directory ${directory}`, { cause })
  }
  for (let above = directory; ; above = dirname(above)) {
    const { uid, mode } = lstatSync(above)
    if (uid !== 0 || (mode & 0o022) !== 0)
      throw refused(profile, `others than root may write to ${above}`)
    if (above === dirname(above)) return
  }
}

async function lock(profile: string): Promise<AsyncDisposable> {
  const file = `${profile}.lock`
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW
  for (const deadline = Date.now() + LOCK_WAIT_MS; ; await sleep(100)) {
    const fd = openSync(file, flags, 0o600)
    // One that is not empty was removed by who had it: another is there by now.
    if ((await tryLock(fd)) && fstatSync(fd).size === 0)
      return {
        [Symbol.asyncDispose]: async () => {
          unlinkSync(file)
          writeSync(fd, 'd')
          closeSync(fd)
        },
      }
    closeSync(fd)
    if (Date.now() > deadline) throw refused(profile, 'somebody else has locked it')
  }
}

function refused(profile: string, why: string, options: ErrorOptions = {}): CliError {
  return new CliError('ROLLBACK_PROFILE', `no rollback of ${JSON.stringify(profile)}: ${why}`, {
    ...options,
    exit: EXIT.refused,
  })
}
