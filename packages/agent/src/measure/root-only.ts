// Files whose word counts because only root could have written it: the state of container runtimes, the
// configuration they were started with. Whoever can write to a directory can put another file in its place,
// so every directory on the way is looked at, and every link. Paths are the host's (host-path.ts).
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  type BigIntStats,
  type Stats,
} from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { followLinks, onHost } from './host-path.ts'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000

/** What somebody other than root could write to on the way to `path`, in words, or undefined if nothing. */
export function whyNotRootOnly(path: string): string | undefined {
  let why: string | undefined
  try {
    followLinks(path, (at, stats) => {
      why ??= stats === undefined ? `${quote(at)} cannot be read (ENOENT)` : whyOpen(at, stats)
    })
  } catch (error) {
    return `${quote(path)} cannot be read (${(error as NodeJS.ErrnoException).code})`
  }
  return why
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
    fd = openSync(
      onHost(followLinks(path)),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    )
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (cause instanceof AgentError) throw cause
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
