// Whose measurements wait for each other: those of one cgroup. Who may make cgroups, such as the owner of a
// delegated one, must not get more turns by making many: what is below the first directory that is not root's
// counts as that directory.
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { readCgroupPath } from './cgroup.ts'
import { findCgroup2, parseMountinfo } from './mounts.ts'

/** The group that process `pid` takes turns with. @throws {AgentError} PROCESS_GONE, PROC_FORMAT */
export function unitKeyOf(pid: number, cgroupMount: string | undefined): string {
  const path = readCgroupPath(pid)
  if (cgroupMount === undefined) return path
  let key = ''
  for (const part of path.split('/').slice(1)) {
    key = `${key}/${part}`
    const owner = statSync(join(cgroupMount, key), { throwIfNoEntry: false })?.uid
    if (owner !== 0) return key
  }
  return key
}

/** Where the unified hierarchy is mounted on the host. */
export function findCgroupMount(): string | undefined {
  return findCgroup2(parseMountinfo(readFileSync('/proc/1/mountinfo', 'utf8')))?.mountPoint
}
