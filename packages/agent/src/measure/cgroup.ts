// The unit's cgroup. `/proc/PID/cgroup` has one line a hierarchy; the unified one is `0::PATH`, alone or
// beside the old ones. Every process in it and below is measured, not only the one that asks: children,
// sidecars and whoever was put there by `nsenter`. cgroups(7).
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { AgentError, quote } from '../error.ts'
import { asProcError, readProcText } from './proc-file.ts'

/** Most processes in one unit. */
export const MAX_PROCESSES = 256
const MAX_DIRECTORIES = 1024
const MAX_FILE_BYTES = 1024 * 1024

/**
 * Path of the unified hierarchy in the text of `/proc/PID/cgroup`.
 * @throws {AgentError} PROC_FORMAT also for a path outside the agent's cgroup namespace (`/..`)
 */
export function parseCgroupPath(text: string): string {
  const line = text.split('\n').find((candidate) => candidate.startsWith('0::'))
  const path = line?.slice('0::'.length)
  const wellFormed =
    path !== undefined &&
    text.endsWith('\n') &&
    path.startsWith('/') &&
    !path.split('/').some((part) => part === '..' || part === '.')
  if (!wellFormed)
    throw new AgentError(
      'PROC_FORMAT',
      `expected a line "0::/…" in a cgroup file, saw ${quote(text)}`,
    )
  // A removed cgroup that still has a process in it.
  return path.endsWith(' (deleted)') ? path.slice(0, -' (deleted)'.length) : path
}

/** @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE */
export function readCgroupPath(pid: number): string {
  return parseCgroupPath(readProcText(`/proc/${pid}/cgroup`, MAX_FILE_BYTES))
}

/** True if `path` is `ancestor` or below it. */
export function isWithin(path: string, ancestor: string): boolean {
  return path === ancestor || path.startsWith(`${ancestor}/`)
}

/** Inode of a cgroup's directory: a cgroup made anew under the same name has another. */
export function cgroupInode(mountPoint: string, path: string): string | undefined {
  return statSync(join(mountPoint, path), { bigint: true, throwIfNoEntry: false })?.ino.toString()
}

/**
 * Pids of all processes in the cgroup and below, ascending.
 * @throws {AgentError} PROCESS_HIDDEN if one cannot be seen from the agent's pid namespace,
 *   MEASUREMENT_LIMIT, PROC_UNREADABLE (threaded cgroups too), PROCESS_GONE if the cgroup is gone
 */
export function listProcesses(mountPoint: string, path: string): number[] {
  const pids = new Set<number>()
  const queue = [join(mountPoint, path)]
  for (let seen = 0; queue.length > 0; seen += 1) {
    const directory = queue.pop() as string
    if (seen >= MAX_DIRECTORIES)
      throw new AgentError(
        'MEASUREMENT_LIMIT',
        `expected at most ${seen} cgroups in ${quote(path)}`,
      )
    for (const pid of parseProcs(readProcText(join(directory, 'cgroup.procs'), MAX_FILE_BYTES)))
      pids.add(pid)
    if (pids.size > MAX_PROCESSES)
      throw new AgentError(
        'MEASUREMENT_LIMIT',
        `expected at most ${MAX_PROCESSES} processes in ${quote(path)}, saw ${pids.size}`,
      )
    const entries = asProcError(directory, () => readdirSync(directory, { withFileTypes: true }))
    for (const entry of entries) {
      if (entry.isDirectory()) queue.push(join(directory, entry.name))
    }
  }
  return [...pids].toSorted((a, b) => a - b)
}

/** @throws {AgentError} PROC_FORMAT, PROCESS_HIDDEN */
export function parseProcs(text: string): number[] {
  if (text === '') return []
  const lines = text.split('\n')
  if (lines.pop() !== '') throw new AgentError('PROC_FORMAT', 'expected whole lines of pids')
  return lines.map((line) => {
    if (line === '0')
      throw new AgentError('PROCESS_HIDDEN', 'a process of the unit is in a pid namespace not ours')
    if (!/^[1-9][0-9]{0,9}$/.test(line))
      throw new AgentError('PROC_FORMAT', `expected a pid, saw ${quote(line)}`)
    return Number(line)
  })
}
