// One process: what is read at each snapshot (cheap), and the facts made from it (with hashing).
import { readdirSync } from 'node:fs'
import { AgentError } from '../error.ts'
import { readDescriptors } from './descriptors.ts'
import { parseEnvironmentHints, parseSearchPaths } from './environment.ts'
import { groupMemory, splitExecutable, type ExecutableMemory } from './executable-memory.ts'
import { readStat } from './instance.ts'
import { isKernelRegion, parseMaps, type ExecutableRegion, type FileMapping } from './maps.ts'
import type { MappedFile, ProcessFacts, StoreMount } from './messages.ts'
import { mountsBelow, type Mount } from './mounts.ts'
import { readNamespaces, type Namespaces } from './namespaces.ts'
import { shares, statObject } from './native.ts'
import { fileSystemsOf, readObject, type ObjectContext } from './objects.ts'
import { NAMESPACE_KINDS, type NamespaceKind } from './oci.ts'
import { asProcError, readProcFile, readProcLink, readProcText } from './proc-file.ts'
import type { ProcessStat } from './stat.ts'
import { combineThreads, parseNsPids, parseStatus, type Credentials } from './status.ts'
import {
  objectOf,
  readMounts,
  readStore,
  sameStore,
  withoutMount,
  type Host,
  type Surroundings,
} from './surroundings.ts'
import { assertResident, modifiedTextBytes } from './text-pages.ts'

const MAX_MAPS_BYTES = 16 * 1024 * 1024
const MAX_STATUS_BYTES = 64 * 1024
const MAX_THREADS = 4096
const MAX_FILES = 4096
const MAX_MOUNTS_TOLD = 64

/** What must stay the same while a unit is measured; plain data, compared member by member. */
export interface ProcessSnapshot {
  readonly pid: number
  readonly stat: Pick<ProcessStat, 'startTicks' | 'startCode' | 'startStack'>
  readonly executable: string
  readonly credentials: Credentials
  readonly userNamespace: string
  readonly namespaces: Namespaces
  readonly root: string
  /** Null where it cannot be reached. */
  readonly store: StoreMount | null
  readonly mountsBelowStore: readonly string[]
  readonly regions: readonly ExecutableRegion[]
  /** As it is called in each pid namespace, ours first. */
  readonly pids: readonly number[]
}

/** What may change between two snapshots of a live process: engines make code as they run. */
export interface ProcessWeather {
  readonly executableMemory: readonly ExecutableMemory[]
}

/** One look at a process. */
export interface ProcessReading {
  readonly snapshot: ProcessSnapshot
  readonly weather: ProcessWeather
  readonly mounts: readonly Mount[]
  /** What it maps and does not execute. */
  readonly mapped: readonly FileMapping[]
  readonly threads: readonly string[]
}

/**
 * Snapshot of a process, or undefined for what runs no user-space program: kernel threads, and zombies
 * without a living thread.
 * @throws {AgentError} PROCESS_HIDDEN if the leader is dead and other threads live: their program cannot
 *   be read through it; THREADS_DIFFER, PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE, MEASUREMENT_LIMIT
 */
export function takeSnapshot(
  pid: number,
  host: Host,
  { storeDir, sharedMemoryDevice, budget }: SnapshotContext,
): ProcessReading | undefined {
  const stat = readStat(pid)
  if (stat.kernelThread) return undefined
  const threads = asProcError(`/proc/${pid}/task`, () => readdirSync(`/proc/${pid}/task`))
  if (stat.state === 'Z' || stat.state === 'X') {
    if (threads.length <= 1) return undefined
    throw new AgentError('PROCESS_HIDDEN', `process ${pid} runs on without its first thread`)
  }
  if (threads.length > MAX_THREADS)
    throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_THREADS} threads`)
  const namespaces = readNamespaces(`/proc/${pid}`)
  const root = objectOf(`/proc/${pid}/root`)
  assertOnePlace(pid, threads, namespaces.mnt, root)
  // The same mount namespace and root show the same mounts: one parse for the whole host.
  const mounts =
    namespaces.mnt === host.namespaces.mnt && root === host.root ? host.mounts : readMounts(pid)
  const maps = parseMaps(readProcText(`/proc/${pid}/maps`, MAX_MAPS_BYTES))
  budget.spendMappings(maps.count)
  const { files: regions, memory } = splitExecutable(maps.executable, sharedMemoryDevice)
  const store = readStore(pid, storeDir, mounts)
  const { startTicks, startCode, startStack } = stat
  return {
    snapshot: {
      pid,
      stat: { startTicks, startCode, startStack },
      executable: objectOf(`/proc/${pid}/exe`),
      credentials: readCredentials(pid, threads),
      userNamespace: readProcLink(`/proc/${pid}/ns/user`),
      namespaces,
      root,
      store: store && withoutMount(store),
      mountsBelowStore: mountsBelow(mounts, storeDir).slice(0, MAX_MOUNTS_TOLD),
      regions,
      pids: parseNsPids(readProcText(`/proc/${pid}/status`, MAX_STATUS_BYTES)),
    },
    weather: { executableMemory: groupMemory(memory) },
    mounts,
    mapped: maps.files,
    threads,
  }
}

/**
 * The files that a process executes and maps, hashed.
 * @throws {AgentError} FILE_UNREADABLE, MEASUREMENT_LIMIT, PROCESS_GONE, PROC_UNREADABLE
 */
export function readFiles(
  snapshot: ProcessSnapshot,
  mounts: readonly Mount[],
  facts: FactsContext,
): { executable: MappedFile; files: MappedFile[] } {
  const context = contextOf(mounts, facts)
  const { pid } = snapshot
  const exe = `/proc/${pid}/exe`
  const { mountId, device } = asProcError(exe, () => statObject(exe))
  // By its mount, where it has one: btrfs numbers subvolumes that no list of mounts knows.
  const executable = readObject(exe, context.mountDevices.get(mountId) ?? device, context)
  const files = new Map<string, MappedFile>()
  const read = new Set<string>()
  for (const region of snapshot.regions) {
    if (isKernelRegion(region)) continue
    const mapped = `${region.device}/${region.inode}/${region.path}`
    if (read.has(mapped)) continue
    read.add(mapped)
    const link = `/proc/${pid}/map_files/${region.start}-${region.end}`
    const file = readObject(link, region.device, context)
    files.set(`${file.device}/${file.inode}/${file.path}`, file)
    if (files.size > MAX_FILES)
      throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_FILES} mapped files`)
  }
  files.delete(`${executable.device}/${executable.inode}/${executable.path}`)
  return { executable, files: [...files.values()] }
}

/** The facts of a process, from equal snapshots before and after its files were read. */
export function factsOf(
  { snapshot, weather, mounts, mapped, threads }: ProcessReading,
  files: { executable: MappedFile; files: MappedFile[] },
  main: ProcessSnapshot | undefined,
  context: FactsContext,
): ProcessFacts {
  const { host, surroundings } = context
  const { credentials, store } = snapshot
  const open = readDescriptors(snapshot.pid, threads, mapped, {
    ...contextOf(mounts, context),
    mounts: new Map([...host.mounts, ...mounts].map((mount) => [mount.id, mount])),
    stores: [
      { device: host.storeMount.device, place: host.storePlace },
      ...(surroundings.containerPlace === null ? [] : [surroundings.containerPlace]),
    ],
  })
  const { argumentsAt, environmentAt } = readStat(snapshot.pid)
  assertResident(snapshot.pid, [argumentsAt, environmentAt])
  const readable = snapshot.regions.filter((region) => region.path !== '[vsyscall]')
  return {
    pid: snapshot.pid,
    startTicks: snapshot.stat.startTicks,
    uids: [...credentials.uids],
    gids: [...credentials.gids],
    isMainImage: main !== undefined && sameImage(snapshot, main),
    ...files,
    executableMemory: weather.executableMemory.map((group) => ({ ...group })),
    modifiedTextBytes: modifiedTextBytes(snapshot.pid, readable),
    capabilities: credentials.capabilities,
    noNewPrivs: credentials.noNewPrivs,
    seccomp: credentials.seccomp,
    tracerPid: credentials.tracerPid,
    hostUserNamespace: snapshot.userNamespace === host.userNamespace,
    hostRoot: snapshot.root === host.root,
    verifiedStoreMount:
      store !== null && surroundings.store !== null && sameStore(store, surroundings.store),
    mountsBelowStore: snapshot.mountsBelowStore.map((path) => path.slice(0, 4096)),
    ...readEnvironment(snapshot.pid),
    argv: readArguments(snapshot.pid),
    namespaces: snapshot.namespaces,
    descriptors: [...open.descriptors],
    dataFiles: { count: open.dataFiles.count, files: [...open.dataFiles.files] },
    inContainer: inContainer(snapshot, surroundings),
  }
}

function inContainer(
  { namespaces, userNamespace, root, pids }: ProcessSnapshot,
  { container }: Surroundings,
): ProcessFacts['inContainer'] {
  if (container === null) return null
  const same = (kind: NamespaceKind): boolean =>
    kind === 'user'
      ? userNamespace === container.userNamespace
      : namespaces[kind] === container.namespaces[kind]
  return {
    pid: pids.at(-1) ?? 0,
    sharedNamespaces: NAMESPACE_KINDS.filter(same),
    sharedRoot: root === container.root,
  }
}

/** True of a process and its forks until either executes something: exec draws both addresses anew. */
function sameImage(a: ProcessSnapshot, b: ProcessSnapshot): boolean {
  return (
    a.executable === b.executable &&
    a.stat.startCode === b.stat.startCode &&
    a.stat.startStack === b.stat.startStack
  )
}

function readCredentials(pid: number, threads: readonly string[]): Credentials {
  return combineThreads(
    pid,
    threads.map((tid) =>
      parseStatus(readProcText(`/proc/${pid}/task/${tid}/status`, MAX_STATUS_BYTES)),
    ),
  )
}

/** What the measurer brings to the measurement of each process. */
export type MeasurerContext = Pick<
  ObjectContext,
  'storeDir' | 'sharedMemoryDevice' | 'cache' | 'budget'
>
/** What the facts of a process are made with and compared with. */
export interface FactsContext {
  readonly host: Host
  readonly measurer: MeasurerContext
  readonly surroundings: Surroundings
}
type SnapshotContext = Pick<MeasurerContext, 'storeDir' | 'sharedMemoryDevice' | 'budget'>

function contextOf(
  mounts: readonly Mount[],
  { host, measurer, surroundings }: FactsContext,
): ObjectContext {
  return {
    ...measurer,
    containerRoot: surroundings.containerRoot,
    storeDevice: host.store.device,
    ...fileSystemsOf(host.mounts, mounts),
  }
}

/**
 * A thread may have a root and a mount namespace of its own; facts have room for one.
 * @throws {AgentError} THREADS_DIFFER
 */
function assertOnePlace(pid: number, threads: readonly string[], mnt: string, root: string): void {
  for (const tid of threads) {
    if (Number(tid) === pid) continue
    const directory = `/proc/${pid}/task/${tid}`
    const same =
      readProcLink(`${directory}/ns/mnt`) === `mnt:[${mnt}]` &&
      (shares('fs', pid, Number(tid)) || objectOf(`${directory}/root`) === root)
    if (!same)
      throw new AgentError(
        'THREADS_DIFFER',
        `expected one root and one mount namespace in all threads of process ${pid}`,
      )
  }
}

const MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024
/** Loader and interpreter variables. A process can wipe its environment: a hint only. */
function readEnvironment(pid: number): Pick<ProcessFacts, 'environmentHints' | 'searchPaths'> {
  const text = readProcText(`/proc/${pid}/environ`, MAX_ENVIRONMENT_BYTES)
  return { environmentHints: parseEnvironmentHints(text), searchPaths: parseSearchPaths(text) }
}

/** The process's own word, cut to what evidence can carry. */
function readArguments(pid: number): string[] {
  const bytes = readProcFile(`/proc/${pid}/cmdline`, MAX_ENVIRONMENT_BYTES)
  if (bytes.length === 0) return []
  const args = bytes.toString('utf8').split('\0')
  if (args.at(-1) === '') args.pop()
  return args.slice(0, 256).map((argument) => argument.slice(0, 4096))
}
