// What runc and crun keep of the containers that they started:
//   ROOT/ID/state.json                      runc (docker, containerd: a ROOT for each of their namespaces)
//   ROOT/ID/status, ROOT/ID/config.json     crun; the second is its copy of the bundle's
//   BUNDLE/config.json                      runc reads it at start and keeps no copy
// Who can write there is root, and root started the container: a state that others could have written says
// nothing. It is looked at all the same, because a container whose state is open to others is told so.
//
// The process in a container has no part in any of it. What a state says is confirmed with the kernel: its
// first process is the one with that pid *and* that start time, and is in that cgroup.
import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { AgentError, quote } from '../error.ts'
import { matchesGlob } from './glob.ts'
import { isWithin, readCgroupPath } from './cgroup.ts'
import { readStat } from './instance.ts'
import { followLinks, onHost } from './host-path.ts'
import { fileIdentity, readBounded, whyNotRootOnly } from './root-only.ts'

const MAX_STATE_BYTES = 4 * 1024 * 1024
/** Most containers of one state directory. */
const MAX_CONTAINERS = 4096
/** Longer than a tick of the clock that stamps files: a later change has another stamp. */
const SETTLED_MS = 100

/** One container as its runtime tells of it. */
export interface OciState {
  readonly id: string
  readonly runtime: 'runc' | 'crun'
  /** The directory that holds the states of all containers, such as /run/runc. */
  readonly stateDir: string
  readonly stateFile: string
  readonly bundle: string
  /** The configuration that it was started with. */
  readonly configFile: string
  /** First process, in the pid namespace of who started it. */
  readonly initPid: number
  readonly initStartTicks: number
  /** In the unified hierarchy. */
  readonly cgroup: string
  readonly createdMs: number
}

interface Remembered {
  readonly identity: string
  readonly state: OciState | undefined
}

/** States by file, as long as the file is the same. As many as there are at once. */
const parsed = new Map<string, Remembered>()

/**
 * The container around `cgroup`, or undefined. Its state is root's, and its first process lives as it says.
 * @param stateDirs absolute; a last part `*` stands for every directory there
 * @throws {AgentError} UNIT_RECORD if the state that claims the cgroup is not root's alone or not true, or
 *   if two claim it; PROC_FORMAT, PROC_UNREADABLE
 */
export function findOciState(
  stateDirs: readonly string[],
  cgroupMount: string,
  cgroup: string,
): OciState | undefined {
  const found = readStates(stateDirs, cgroupMount).filter((state) => isWithin(cgroup, state.cgroup))
  // One that ended and left its state behind claims nothing. Root's word about a live one does.
  const live = found.filter((state) => isLive(state))
  const [state, ...others] = live
  if (others.length > 0)
    throw new AgentError(
      'UNIT_RECORD',
      `expected one container for cgroup ${quote(cgroup)}, saw ${quote(live.map(({ id }) => id))}`,
    )
  if (state === undefined) return undefined
  const why = [state.stateFile, state.configFile].map(whyNotRootOnly).find(Boolean)
  if (why !== undefined)
    throw new AgentError(
      'UNIT_RECORD',
      `expected the state of container ${quote(state.id)} to be root's alone: ${why}`,
    )
  return state
}

/**
 * Containers that live and whose id is like `pattern`, in which `*` stands for anything. Nothing but their ids was
 * looked at: what else there is to say of one its measurement does.
 * @throws {AgentError} UNIT_RECORD, MEASUREMENT_LIMIT, PROC_FORMAT, PROC_UNREADABLE
 */
export function findOciStates(
  stateDirs: readonly string[],
  cgroupMount: string,
  pattern: string,
): OciState[] {
  return readStates(stateDirs, cgroupMount).filter(
    (state) => matchesGlob(state.id, pattern) && isLive(state),
  )
}

function readStates(stateDirs: readonly string[], cgroupMount: string): OciState[] {
  const seen = new Set<string>()
  const found = stateDirs
    .flatMap(expand)
    .flatMap((stateDir) =>
      directoriesIn(stateDir).flatMap((id) => readState(stateDir, id, cgroupMount, seen) ?? []),
    )
  for (const file of parsed.keys()) if (!seen.has(file)) parsed.delete(file)
  return found
}

function expand(pattern: string): string[] {
  if (!pattern.endsWith('/*')) return [pattern]
  const parent = pattern.slice(0, -2)
  return directoriesIn(parent).map((name) => join(parent, name))
}

function directoriesIn(path: string): string[] {
  try {
    const names = readdirSync(onHost(followLinks(path)), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
    if (names.length <= MAX_CONTAINERS) return names
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (cause instanceof AgentError) throw cause
    if (code === 'ENOENT' || code === 'ENOTDIR') return [] // no such runtime here
    throw new AgentError('UNIT_RECORD', `cannot read ${quote(path)}`, { cause })
  }
  throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_CONTAINERS} in ${quote(path)}`)
}

/** Undefined for what is no state of a container: half written, of a runtime that is not known, gone. */
function readState(
  stateDir: string,
  id: string,
  cgroupMount: string,
  seen: Set<string>,
): OciState | undefined {
  for (const [name, parse] of [
    ['state.json', parseRuncState],
    ['status', parseCrunStatus],
  ] as const) {
    const file = join(stateDir, id, name)
    const stats = lstatSync(onHost(file), { bigint: true, throwIfNoEntry: false })
    if (stats === undefined) continue
    seen.add(file)
    const known = parsed.get(file)
    if (known?.identity === fileIdentity(stats)) return known.state
    const read = readBounded(file, MAX_STATE_BYTES)
    if (read === undefined) continue
    const state = parse(read.bytes.toString('utf8'), { id, stateDir, stateFile: file, cgroupMount })
    if (Date.now() - Number(read.stats.ctimeMs) > SETTLED_MS)
      parsed.set(file, { identity: fileIdentity(read.stats), state })
    return state
  }
  return undefined
}

interface Place {
  readonly id: string
  readonly stateDir: string
  readonly stateFile: string
  readonly cgroupMount: string
}

/** The state that runc keeps; undefined if that is not one. */
export function parseRuncState(text: string, place: Place): OciState | undefined {
  const value = parseObject(text)
  const config = objectOf(value?.['config'])
  const paths = objectOf(value?.['cgroup_paths'])
  const labels = config?.['labels']
  const bundle = (Array.isArray(labels) ? (labels as unknown[]) : [])
    .filter((label) => typeof label === 'string')
    .find((label) => label.startsWith('bundle='))
    ?.slice('bundle='.length)
  return stateOf(
    {
      runtime: 'runc',
      id: value?.['id'],
      pid: value?.['init_process_pid'],
      start: value?.['init_process_start'],
      cgroup: paths?.[''],
      created: value?.['created'],
      bundle,
      configFile: bundle === undefined ? undefined : join(bundle, 'config.json'),
    },
    place,
  )
}

/** The state that crun keeps; undefined if that is not one. */
export function parseCrunStatus(text: string, place: Place): OciState | undefined {
  const value = parseObject(text)
  return stateOf(
    {
      runtime: 'crun',
      id: place.id,
      pid: value?.['pid'],
      start: value?.['process-start-time'],
      cgroup: value?.['cgroup-path'],
      created: value?.['created'],
      bundle: value?.['bundle'],
      configFile: join(place.stateDir, place.id, 'config.json'),
    },
    place,
  )
}

function stateOf(
  said: Record<'id' | 'pid' | 'start' | 'cgroup' | 'created' | 'bundle' | 'configFile', unknown> & {
    readonly runtime: OciState['runtime']
  },
  { id, stateDir, stateFile, cgroupMount }: Place,
): OciState | undefined {
  const { pid, start, cgroup, created, bundle, configFile } = said
  const createdMs = typeof created === 'string' ? Date.parse(created) : Number.NaN
  const own = typeof cgroup === 'string' ? unifiedPath(cgroup, cgroupMount) : undefined
  const wellFormed =
    said.id === id &&
    isPositive(pid) &&
    isPositive(start) &&
    !Number.isNaN(createdMs) &&
    typeof bundle === 'string' &&
    bundle.startsWith('/') &&
    bundle.length <= 4096 &&
    typeof configFile === 'string' &&
    own !== undefined
  if (!wellFormed) return undefined
  const { runtime } = said
  return {
    ...{ id, runtime, stateDir, stateFile, bundle, configFile, createdMs },
    initPid: pid,
    initStartTicks: start,
    cgroup: own,
  }
}

/**
 * A cgroup's path in the hierarchy, from one that may begin with where the runtime saw it mounted; undefined
 * for the root, which the world shares, and for what is no path.
 */
export function unifiedPath(path: string, cgroupMount: string): string | undefined {
  const mount = [cgroupMount, '/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((prefix) =>
    path.startsWith(`${prefix}/`),
  )
  const own = mount === undefined ? path : path.slice(mount.length)
  const plain = /^(\/[^/\0]+)+$/.test(own) && !/\/\.\.?(\/|$)/.test(own)
  return plain ? own : undefined
}

/** Whether the first process that a state names is alive and where it says: pids are used again. */
function isLive({ initPid, initStartTicks, cgroup }: OciState): boolean {
  try {
    const { startTicks, state } = readStat(initPid)
    return (
      startTicks === initStartTicks &&
      state !== 'Z' &&
      state !== 'X' &&
      isWithin(readCgroupPath(initPid), cgroup)
    )
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PROCESS_GONE') return false
    throw error
  }
}

const isPositive = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    return objectOf(JSON.parse(text))
  } catch {
    return undefined // half written: whoever looks again finds it whole
  }
}

export function objectOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined
}
