// Executable memory that no file on disk backs: code that was made, or brought, at run time. Three kinds, because
// they mean different things: anonymous memory (a JIT, or injected code), memfds (.NET maps its code twice that
// way; a loader that wants no file does too) and other shared memory (SysV segments, shared anonymous pages),
// which another process may write to while this one runs it.
//
// The names are the process's own choice (`[anon:…]` by prctl(2), `memfd:…` by memfd_create(2)). They can narrow
// an allowance, never be its ground: that is the digest of the program.
import type { Evidence } from '@bagcheck/api'
import { AgentError } from '../error.ts'
import { isKernelRegion, regionBytes, type ExecutableRegion } from './maps.ts'

/** Executable memory of one kind and name, as evidence carries it. */
export type ExecutableMemory = Evidence['facts']['processes'][number]['executableMemory'][number]

/** Most kinds and names that evidence carries for one process. */
const MAX_GROUPS = 64
const MAX_NAME_CHARACTERS = 256
const DELETED = ' (deleted)'

/** Splits executable mappings into those of files and those of memory. */
export function splitExecutable(
  regions: readonly ExecutableRegion[],
  sharedMemoryDevice: string,
): { files: ExecutableRegion[]; memory: ExecutableRegion[] } {
  const isMemory = (region: ExecutableRegion): boolean =>
    !isKernelRegion(region) && (region.inode === '0' || region.device === sharedMemoryDevice)
  return {
    files: regions.filter((region) => !isMemory(region)),
    memory: regions.filter(isMemory),
  }
}

/** Counts regions and bytes by kind and name. @throws {AgentError} MEASUREMENT_LIMIT */
export function groupMemory(regions: readonly ExecutableRegion[]): ExecutableMemory[] {
  const groups = new Map<string, ExecutableMemory>()
  for (const region of regions) {
    const { kind, name } = nameOf(region)
    const key = `${kind} ${name}`
    const known = groups.get(key) ?? { kind, name, regions: 0, bytes: 0 }
    const bytes = known.bytes + regionBytes(region)
    groups.set(key, { kind, name, regions: known.regions + 1, bytes })
    assertFew(groups.size)
  }
  return [...groups.values()]
}

/** The larger of two readings, each kind and name for itself: what an engine freed meanwhile was there. */
export function worseMemory(
  ...readings: readonly (readonly ExecutableMemory[])[]
): ExecutableMemory[] {
  const worst = new Map<string, ExecutableMemory>()
  for (const group of readings.flat()) {
    const key = `${group.kind} ${group.name}`
    const known = worst.get(key) ?? group
    worst.set(key, {
      ...group,
      regions: Math.max(known.regions, group.regions),
      bytes: Math.max(known.bytes, group.bytes),
    })
  }
  assertFew(worst.size)
  return [...worst.values()]
}

function assertFew(groups: number): void {
  if (groups <= MAX_GROUPS) return
  throw new AgentError(
    'MEASUREMENT_LIMIT',
    `expected at most ${MAX_GROUPS} names of executable memory in one process`,
  )
}

function nameOf({ inode, path }: ExecutableRegion): Pick<ExecutableMemory, 'kind' | 'name'> {
  const name = (path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path).slice(
    0,
    MAX_NAME_CHARACTERS,
  )
  if (inode === '0') return { kind: 'anonymous', name }
  return name.startsWith('/memfd:')
    ? { kind: 'memfd', name: name.slice('/memfd:'.length) }
    : { kind: 'shared', name }
}
