// `/proc/PID/maps`:
//   START-END PERMS OFFSET MAJOR:MINOR INODE [PATH]
// The path is a name for people (a process chooses its files' names, and " (deleted)" can be part of
// one); device and inode say whether a file backs the mapping. proc_pid_maps(5).
import { AgentError, quote } from '../error.ts'

/** More mappings than any sane process; the kernel's default limit is 65,530. */
export const MAX_MAPPINGS = 50_000

/** One executable mapping. */
export interface ExecutableRegion {
  /** Hex without leading zeros, as `map_files` names it. */
  readonly start: string
  readonly end: string
  readonly permissions: string
  readonly offset: string
  /** `major:minor`, decimal, as mountinfo prints it. */
  readonly device: string
  /** `0` if no file backs it. */
  readonly inode: string
  readonly path: string
}

const LINE =
  /^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$/s

/** A file that is mapped and not executed: data, or what an interpreter reads as its program. */
export interface FileMapping {
  /** One of its mappings, as `map_files` names it. */
  readonly start: string
  readonly end: string
  readonly device: string
  readonly inode: string
  readonly path: string
  /** True if what is written to some mapping of it goes to the file. */
  readonly writesThrough: boolean
}

/** The mappings of a process. */
export interface Mappings {
  readonly executable: readonly ExecutableRegion[]
  /** Files that have no executable mapping, each once. */
  readonly files: readonly FileMapping[]
  /** Mappings of all kinds. */
  readonly count: number
}

/** @throws {AgentError} PROC_FORMAT, MEASUREMENT_LIMIT */
export function parseMaps(text: string): Mappings {
  if (text === '') return { executable: [], files: [], count: 0 }
  if (!text.endsWith('\n')) throw malformed(text.slice(-80))
  const lines = text.slice(0, -1).split('\n')
  if (lines.length > MAX_MAPPINGS)
    throw new AgentError(
      'MEASUREMENT_LIMIT',
      `expected at most ${MAX_MAPPINGS} mappings, saw ${lines.length}`,
    )
  const executable: ExecutableRegion[] = []
  const files = new Map<string, FileMapping>()
  for (const line of lines) {
    const match = LINE.exec(line)
    if (match === null) throw malformed(line)
    const [, start, end, permissions, offset, major, minor, inode, path] = match as unknown as [
      string,
      ...string[],
    ] as [string, string, string, string, string, string, string, string, string]
    const runs = permissions[2] === 'x'
    if (!runs && inode === '0') continue
    const device = `${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`
    const addresses = { start: bare(start), end: bare(end) }
    if (runs) executable.push({ ...addresses, permissions, offset, device, inode, path })
    const key = `${device}/${inode}/${path}`
    const writesThrough = permissions[1] === 'w' && permissions[3] === 's'
    const known = files.get(key)
    if (known === undefined || (writesThrough && !known.writesThrough))
      files.set(key, { ...addresses, device, inode, path, writesThrough })
  }
  for (const { device, inode, path } of executable) {
    const key = `${device}/${inode}/${path}`
    if (files.get(key)?.writesThrough === false) files.delete(key)
  }
  return { executable, files: [...files.values()], count: lines.length }
}

/** The kernel's own code in every process. Nobody else can make a mapping with such a name. */
export function isKernelRegion(region: ExecutableRegion): boolean {
  return region.inode === '0' && (region.path === '[vdso]' || region.path === '[vsyscall]')
}

/** Length in bytes. */
export function regionBytes(region: ExecutableRegion): number {
  return Number(BigInt(`0x${region.end}`) - BigInt(`0x${region.start}`))
}

const bare = (address: string): string => address.replace(/^0+(?=.)/, '')

function malformed(line: string): AgentError {
  return new AgentError('PROC_FORMAT', `expected a line of /proc/PID/maps, saw ${quote(line)}`)
}
