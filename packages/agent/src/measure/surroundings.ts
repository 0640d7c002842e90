// Where a process stands: what is compared with the host, or with the first process of its container. Root
// directory, namespaces, and the store that is verified for it: which directory, on which mount.
import { closeSync, constants, openSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { AgentError } from '../error.ts'
import { HOST_PID } from './host-path.ts'
import { formatDevice } from './instance.ts'
import type { ContainerFacts, StoreMount } from './messages.ts'
import { isForeignFileSystem, parseMountinfo, type Mount } from './mounts.ts'
import { readNamespaces, type Namespaces } from './namespaces.ts'
import { statObject } from './native.ts'
import { asProcError, readProcLink, readProcText } from './proc-file.ts'

const O_PATH = 0o10000000
const MAX_MOUNTINFO_BYTES = 16 * 1024 * 1024

/** The host, read once for each measurement. */
export interface Host {
  readonly userNamespace: string
  readonly namespaces: Namespaces
  readonly mounts: readonly Mount[]
  readonly root: string
  readonly store: StoreMount
  /** The mount that holds the store, and where on its file system the store lies. */
  readonly storeMount: Mount
  readonly storePlace: string
}

/** What the processes of a unit are compared with: the host, or the first process of their container. */
export interface Surroundings {
  /** The store that is verified for the unit; null where there is none. */
  readonly store: StoreMount | null
  /** Where names of a container's own store are looked up; null where the store is the host's. */
  readonly containerRoot: string | null
  /** Where such a store lies: device of its mount, and path in that file system. */
  readonly containerPlace: { readonly device: string; readonly place: string } | null
  readonly container: {
    readonly namespaces: Namespaces
    readonly userNamespace: string
    readonly root: string
  } | null
}

/**
 * Reads what the host is: what PID 1 sees. The measurer itself may be in a mount namespace of its own, in which
 * its service manager made much of the host read-only or hid it.
 * @throws {AgentError} PROC_UNREADABLE, PROC_FORMAT
 */
export function readHost(storeDir: string): Host {
  const mounts = readMounts(HOST_PID)
  const store = readStore(HOST_PID, storeDir, mounts)
  if (store === null)
    throw new AgentError('PROC_UNREADABLE', `expected a store at ${storeDir}, saw none`)
  const { mount: storeMount, ...directory } = store
  return {
    userNamespace: readProcLink(`/proc/${HOST_PID}/ns/user`),
    namespaces: readNamespaces(`/proc/${HOST_PID}`),
    mounts,
    root: objectOf(`/proc/${HOST_PID}/root`),
    store: directory,
    storeMount,
    storePlace: placeOf(storeMount, storeDir),
  }
}

/** True if both are one directory, reached at the same place of the same file system. */
export function sameStore(a: StoreMount, b: StoreMount): boolean {
  return a.directory === b.directory && a.place === b.place
}

/**
 * What the processes of a container are compared with: its first process.
 * @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE, PROC_FORMAT
 */
export function readSurroundings(
  initPid: number,
  host: Host,
  storeDir: string,
): Surroundings & { readonly kind: ContainerFacts['store'] } {
  const mounts = readMounts(initPid)
  const store = readStore(initPid, storeDir, mounts)
  // Bytes of a file system that a program answers for are others at each read.
  const isForeign = store === null || isForeignFileSystem(store.mount.fsType)
  const isHosts = store !== null && sameStore(store, host.store)
  const kind = isHosts ? 'host' : isForeign ? 'other' : 'container'
  return {
    kind,
    store: store === null || kind === 'other' ? null : withoutMount(store),
    containerPlace:
      store === null || kind !== 'container'
        ? null
        : { device: store.mount.device, place: placeOf(store.mount, storeDir) },
    containerRoot: kind === 'container' ? `/proc/${initPid}/root` : null,
    container: {
      namespaces: readNamespaces(`/proc/${initPid}`),
      userNamespace: readProcLink(`/proc/${initPid}/ns/user`),
      root: objectOf(`/proc/${initPid}/root`),
    },
  }
}

/** The store without the mount that it is on. */
export const withoutMount = ({ directory, device, place }: StoreMount): StoreMount => ({
  ...{ directory, device, place },
})

/** The store as the process sees it: which directory, on which mount. The mount id of an open file decides. */
export function readStore(
  pid: number,
  storeDir: string,
  mounts: readonly Mount[],
): (StoreMount & { readonly mount: Mount }) | null {
  let fd: number
  try {
    fd = openSync(
      `/proc/${pid}/root${storeDir}`,
      O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    )
  } catch {
    return null // A process without a store has no verified one; the fact says so.
  }
  try {
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
    const id = Number(/^mnt_id:\t(\d+)$/m.exec(info)?.[1] ?? Number.NaN)
    const mount = mounts.find((candidate) => candidate.id === id)
    if (mount === undefined) return null
    // A link on the way leads to a directory of another name, and what is mounted below that has other names.
    if (readlinkSync(`/proc/self/fd/${fd}`) !== storeDir) return null
    const { dev, ino } = statSync(`/proc/self/fd/${fd}`, { bigint: true })
    const device = formatDevice(dev)
    const place = `${mount.device} ${placeOf(mount, storeDir)}`
    return { directory: `${device}/${ino}`, device, place, mount }
  } finally {
    closeSync(fd)
  }
}

/** What a process sees mounted. @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE */
export function readMounts(pid: number): Mount[] {
  return parseMountinfo(readProcText(`/proc/${pid}/mountinfo`, MAX_MOUNTINFO_BYTES))
}

/** Where on its file system a directory lies that `mount` shows. */
function placeOf({ root, mountPoint }: Mount, directory: string): string {
  const below = mountPoint === '/' ? directory : directory.slice(mountPoint.length)
  return `${root === '/' ? '' : root}${below}`
}

/** Device and inode of what a link of `/proc` leads to. @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE */
export function objectOf(link: string): string {
  const { device, inode } = asProcError(link, () => statObject(link))
  return `${device}/${inode}`
}
