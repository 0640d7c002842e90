// Containers that runc or crun started. The runtime's state names the container and its first process; what
// it was started with is in the configuration of its bundle (config.json, OCI runtime specification). Both
// are root's alone (oci-state.ts). What namespaces it has, and how users are mapped, is the kernel's word.
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { followLinks, HOST_PID } from './host-path.ts'
import { readInstance } from './instance.ts'
import type { ContainerFacts, LaunchContract, ObservedUnit } from './messages.ts'
import { findOciState, objectOf, type OciState } from './oci-state.ts'
import { asProcError, readProcLink, readProcText } from './proc-file.ts'
import { readBounded } from './root-only.ts'

const MAX_CONFIG_BYTES = 1024 * 1024
const MAX_TOLD = 128
/** Kinds of namespaces. */
export const NAMESPACE_KINDS = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'] as const

export type NamespaceKind = (typeof NAMESPACE_KINDS)[number]

/**
 * The container around `cgroup`, or undefined.
 * @throws {AgentError} UNIT_RECORD, PROC_FORMAT, PROC_UNREADABLE; PROCESS_GONE if it is just ending
 */
export function readOciUnit(
  stateDirs: readonly string[],
  cgroupMount: string,
  cgroup: string,
): ObservedUnit | undefined {
  const state = findOciState(stateDirs, cgroupMount, cgroup)
  if (state === undefined) return undefined
  const config = readConfig(state)
  const instance = readInstance(state.initPid)
  if (instance.startTicks !== state.initStartTicks)
    throw new AgentError('PROCESS_GONE', `container ${quote(state.id)} ended`)
  const users = readUserMaps(state.initPid)
  const program = readProcLink(`/proc/${state.initPid}/exe`)
  const contract: LaunchContract = {
    executable: config.args[0] ?? '',
    arguments: config.args.slice(1),
    uid: hostId(config.uid, users?.uids),
    gid: hostId(config.gid, users?.gids),
    noNewPrivs: config.noNewPrivs,
    pid: state.initPid,
    startTicks: state.initStartTicks,
    // Which program the process began with nobody recorded: an exec of the same one shows against the first
    // sight (first-sights.ts), and before that only in the arguments that the process itself reports.
    intact: program === config.args[0],
  }
  const container: ContainerFacts = {
    id: state.id,
    runtime: state.runtime,
    stateDir: state.stateDir,
    bundle: state.bundle,
    annotations: config.annotations,
    config: {
      path: config.path,
      sha256: config.sha256,
      // A file that was written to since is not what the container was started with.
      unchanged: config.changedMs <= state.createdMs,
    },
    capabilities: config.capabilities,
    seccomp: config.seccomp,
    readonlyRoot: config.readonlyRoot,
    mounts: config.mounts,
    namespaces: ownNamespaces(state.initPid),
    userMaps: users,
    // Until the store was looked at: process.ts.
    store: 'other',
  }
  const facts = {
    launcher: 'oci' as const,
    name: state.id,
    cgroup: state.cgroup,
    contract,
    container,
    service: null,
  }
  return { facts, main: { instance, witnessed: container.config.unchanged } }
}

interface OciConfig {
  /** Where the file really is. */
  readonly path: string
  readonly sha256: ContainerFacts['config']['sha256']
  readonly changedMs: number
  readonly args: string[]
  readonly uid: number
  readonly gid: number
  readonly noNewPrivs: boolean
  readonly capabilities: ContainerFacts['capabilities']
  readonly seccomp: boolean
  readonly readonlyRoot: boolean
  readonly mounts: ContainerFacts['mounts']
  readonly annotations: ContainerFacts['annotations']
}

function readConfig(state: OciState): OciConfig {
  const file = readBounded(state.configFile, MAX_CONFIG_BYTES)
  if (file === undefined)
    throw new AgentError('UNIT_RECORD', `expected the configuration ${quote(state.configFile)}`)
  const { bytes, stats } = file
  return {
    path: originOf(state, bytes),
    sha256: digestOf(bytes),
    changedMs: Number(stats.ctimeMs),
    ...parseOciConfig(bytes.toString('utf8')),
  }
}

const digestOf = (bytes: Buffer): ContainerFacts['config']['sha256'] =>
  createHash('sha256').update(bytes).digest('hex') as ContainerFacts['config']['sha256']

/** crun works with a copy: the bundle's own file is named if it still has the same bytes. */
function originOf(state: OciState, bytes: Buffer): string {
  const bundled = join(state.bundle, 'config.json')
  const same = readBounded(bundled, MAX_CONFIG_BYTES)?.bytes.equals(bytes) === true
  return followLinks(same ? bundled : state.configFile).slice(0, 4096)
}

/**
 * The parts of a `config.json` that say how the program is started.
 * @throws {AgentError} UNIT_RECORD
 */
export function parseOciConfig(text: string): Omit<OciConfig, 'path' | 'sha256' | 'changedMs'> {
  let config: Record<string, unknown> | undefined
  try {
    config = objectOf(JSON.parse(text))
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', 'expected JSON in the configuration of a container', {
      cause,
    })
  }
  const process = objectOf(config?.['process'])
  const user = objectOf(process?.['user'])
  const args = process?.['args']
  const isId = (id: unknown): id is number => Number.isSafeInteger(id) && (id as number) >= 0
  const uid = user?.['uid'] ?? 0
  const gid = user?.['gid'] ?? 0
  if (
    !Array.isArray(args) ||
    args.length === 0 ||
    args.length > 257 ||
    !args.every((argument) => typeof argument === 'string' && argument.length <= 4096) ||
    !isId(uid) ||
    !isId(gid)
  )
    throw new AgentError(
      'UNIT_RECORD',
      `expected args and user of a container, saw ${quote(process)}`,
    )
  const capabilities = objectOf(process?.['capabilities'])
  const linux = objectOf(config?.['linux'])
  return {
    args: args as string[], // looked at above
    uid,
    gid,
    noNewPrivs: process?.['noNewPrivileges'] === true,
    capabilities: strings(capabilities?.['bounding']),
    seccomp: objectOf(linux?.['seccomp']) !== undefined,
    readonlyRoot: objectOf(config?.['root'])?.['readonly'] === true,
    mounts: mountsOf(config?.['mounts']),
    annotations: annotationsOf(config?.['annotations']),
  }
}

function mountsOf(value: unknown): ContainerFacts['mounts'] {
  const text = (field: unknown): string => (typeof field === 'string' ? field.slice(0, 4096) : '')
  return (Array.isArray(value) ? (value as unknown[]) : []).slice(0, MAX_TOLD).map((mount) => {
    const fields = objectOf(mount)
    return {
      destination: text(fields?.['destination']),
      type: text(fields?.['type']).slice(0, 64),
      source: text(fields?.['source']),
      readonly: strings(fields?.['options']).some((option) => option === 'ro' || option === 'rro'),
    }
  })
}

/** What is too long to be told selects nothing. */
function annotationsOf(value: unknown): ContainerFacts['annotations'] {
  const entries = Object.entries(objectOf(value) ?? {}).filter(
    (entry): entry is [string, string] => {
      const [key, text] = entry
      return key !== '' && key.length <= 256 && typeof text === 'string' && text.length <= 1024
    },
  )
  return Object.fromEntries(entries.slice(0, MAX_TOLD))
}

function strings(value: unknown): string[] {
  const list = Array.isArray(value) ? (value as unknown[]) : []
  return list
    .filter((item) => typeof item === 'string')
    .map((item) => item.slice(0, 64))
    .slice(0, MAX_TOLD)
    .toSorted()
}

/** The namespaces of a process, by kind. */
function namespacesOf(pid: number): Record<NamespaceKind, string> {
  const entries = NAMESPACE_KINDS.map((kind) => [kind, readProcLink(`/proc/${pid}/ns/${kind}`)])
  return Object.fromEntries(entries) as Record<NamespaceKind, string>
}

function ownNamespaces(pid: number): NamespaceKind[] {
  const [own, hosts] = [namespacesOf(pid), namespacesOf(HOST_PID)]
  return NAMESPACE_KINDS.filter((kind) => own[kind] !== hosts[kind])
}

/** Every process in the pid namespace of `pid`, whatever its cgroup; none if that is the host's. */
export function processesBeside(pid: number): number[] {
  const namespace = readProcLink(`/proc/${pid}/ns/pid`)
  if (namespace === readProcLink(`/proc/${HOST_PID}/ns/pid`)) return []
  const pids = asProcError('/proc', () => readdirSync('/proc')).filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((other) => {
    try {
      return readProcLink(`/proc/${other}/ns/pid`) === namespace
    } catch (error) {
      if (error instanceof AgentError && error.code === 'PROCESS_GONE') return false
      throw error
    }
  })
}

type IdMap = NonNullable<ContainerFacts['userMaps']>['uids']

/** How the users of the process's user namespace are mapped to the host's; null if it has none of its own. */
function readUserMaps(pid: number): ContainerFacts['userMaps'] {
  if (readProcLink(`/proc/${pid}/ns/user`) === readProcLink(`/proc/${HOST_PID}/ns/user`))
    return null
  const read = (name: string): IdMap =>
    parseIdMap(readProcText(`/proc/${pid}/${name}`, 64 * 1024)).slice(0, MAX_TOLD)
  return { uids: read('uid_map'), gids: read('gid_map') }
}

/**
 * Lines of `/proc/PID/uid_map`, read from the parent namespace: first id inside, first outside, how many.
 * @throws {AgentError} PROC_FORMAT
 */
export function parseIdMap(text: string): { inside: number; outside: number; count: number }[] {
  const lines = text.split('\n').filter((line) => line !== '')
  return lines.map((line) => {
    const fields = /^ *(\d+) +(\d+) +(\d+)$/.exec(line)
    if (fields === null)
      throw new AgentError('PROC_FORMAT', `expected a line of an id map, saw ${quote(line)}`)
    const [inside, outside, count] = fields.slice(1).map(Number) as [number, number, number]
    return { inside, outside, count }
  })
}

/** The id outside; the kernel's id for those that have none if it is not mapped. */
function hostId(id: number, map: IdMap | undefined): number {
  if (map === undefined) return id
  const range = map.find(({ inside, count }) => id >= inside && id < inside + count)
  return range === undefined ? 65_534 : range.outside + id - range.inside
}
