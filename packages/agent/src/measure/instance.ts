// The process instance: which program runs in which process. A pidfd pins the process but says nothing
// of exec, after which pid, start time and ids are the same; exe, or the addresses of text and stack, are
// not.
import { AgentError, quote } from '../error.ts'
import type { ProcessInstance } from './messages.ts'
import { statObject } from './native.ts'
import { asProcError, readProcText } from './proc-file.ts'
import { parseStat, type ProcessStat } from './stat.ts'
import { parseNsPids } from './status.ts'

const MAX_STAT_BYTES = 4096
const MAX_STATUS_BYTES = 64 * 1024

/** @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE */
export function readStat(pid: number): ProcessStat {
  const stat = parseStat(readProcText(`/proc/${pid}/stat`, MAX_STAT_BYTES))
  if (stat.pid !== pid)
    throw new AgentError('PROC_FORMAT', `expected process ${pid}, saw ${stat.pid}`)
  return stat
}

/** @throws {AgentError} PROCESS_GONE (a zombie too), PROC_FORMAT, PROC_UNREADABLE */
export function readInstance(pid: number): ProcessInstance {
  const stat = readStat(pid)
  const link = `/proc/${pid}/exe`
  const { device, inode } = asProcError(link, () => statObject(link))
  return {
    pid,
    startTicks: stat.startTicks,
    device,
    inode,
    startCode: stat.startCode,
    startStack: stat.startStack,
  }
}

/** True if the process still runs, whatever program. */
export function isRunning({ pid, startTicks }: ProcessInstance): boolean {
  try {
    return readStat(pid).startTicks === startTicks
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PROCESS_GONE') return false
    throw error
  }
}

/** True if both are the same program in the same process. */
export function sameInstance(a: ProcessInstance, b: ProcessInstance): boolean {
  return (
    a.pid === b.pid &&
    a.startTicks === b.startTicks &&
    a.device === b.device &&
    a.inode === b.inode &&
    a.startCode === b.startCode &&
    a.startStack === b.startStack
  )
}

/**
 * Checks that `instance` is what its process still runs.
 * @throws {AgentError} PROCESS_MOVED, PROCESS_GONE, PROC_UNREADABLE
 */
export function assertInstance(instance: ProcessInstance): void {
  const seen = readInstance(instance.pid)
  if (sameInstance(instance, seen)) return
  throw new AgentError(
    'PROCESS_MOVED',
    `expected process ${instance.pid} to run what it ran when it connected, saw ${quote(seen, 200)}`,
  )
}

/**
 * True if a process calls other processes by the pids that we know. Its status can be read without
 * privileges, unlike its namespaces.
 * @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE
 */
export function sharesPidNamespace(pid: number): boolean {
  return parseNsPids(readProcText(`/proc/${pid}/status`, MAX_STATUS_BYTES)).length === 1
}

/** One string per instance, for a map's key. */
export function instanceKey(instance: ProcessInstance): string {
  const { pid, startTicks, device, inode, startCode, startStack } = instance
  return `${pid}/${startTicks}/${device}/${inode}/${startCode}/${startStack}`
}

/** `st_dev` as `major:minor`, the form of maps and mountinfo; <sys/sysmacros.h>. */
export function formatDevice(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffff_ff00n)
  return `${major}:${minor}`
}
