// Files whose word counts because only root could have written it: the state of container runtimes, the
// configuration they were started with. Whoever can write to a directory can put another file in its place,
// so every directory on the way is looked at, and every link.
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  type BigIntStats,
  type Stats,
} from 'node:fs'
import { join } from 'node:path'
import { AgentError, quote } from '../error.ts'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000

/** What somebody other than root could write to on the way to `path`, in words, or undefined if nothing. */
export function whyNotRootOnly(path: string): string | undefined {
  try {
    for (const spelling of new Set([path, realpathSync(path)])) {
      let at = '/'
      for (const part of ['', ...spelling.split('/').filter((name) => name !== '')]) {
        at = join(at, part)
        const stats = lstatSync(at)
        const why = whyOpen(at, stats)
        if (why !== undefined) return why
        if (stats.isSymbolicLink()) break // the rest is looked at where it really is
      }
    }
  } catch (error) {
    return `${quote(path)} cannot be read (${(error as NodeJS.ErrnoException).code})`
  }
  return undefined
}

function whyOpen(path: string, stats: Stats): string | undefined {
  const mode = stats.mode & 0o7777
  if (stats.uid !== 0) return `${quote(path)} belongs to user ${stats.uid}`
  if (stats.isSymbolicLink()) return undefined
  // In a sticky directory nobody can replace what is root's.
  const open = (mode & WRITABLE_BY_OTHERS) !== 0 && (mode & STICKY) === 0
  return open ? `${quote(path)} has mode ${mode.toString(8)}` : undefined
}

/** A file and what it was when it was read. */
export interface RootFile {
  readonly bytes: Buffer
  readonly stats: BigIntStats
}

/**
 * Reads a regular file, whoever can write to it: ask {@link whyNotRootOnly} before believing a word.
 * Undefined if there is none.
 * @throws {AgentError} UNIT_RECORD
 */
export function readBounded(path: string, maxBytes: number): RootFile | undefined {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new AgentError('UNIT_RECORD', `cannot open ${quote(path)}`, { cause })
  }
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (!stats.isFile() || stats.size > BigInt(maxBytes))
      throw new AgentError('UNIT_RECORD', `expected ${quote(path)} of at most ${maxBytes} bytes`)
    return { bytes: readFileSync(fd), stats }
  } finally {
    closeSync(fd)
  }
}

/** Changes with every change of a file; one with this name made anew has another. */
export function fileIdentity({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev}/${ino}/${size}/${mtimeNs}/${ctimeNs}`
}
