// The files behind executable mappings. Objects decide, not names: each is opened through the kernel's
// own link to the mapped object (`map_files`, `exe`), so that a bind mount, a rename or a file named
// "x (deleted)" cannot show us other bytes than those that run. The path is only used to ask whether
// this very object is the store file of that name.
//
// Before an object is touched its file system is looked up: a FUSE server run by the workload could
// answer each read differently, or never.
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import type { Budget } from './budget.ts'
import type { HashCache } from './hash-cache.ts'
import { onHost } from './host-path.ts'
import { formatDevice } from './instance.ts'
import type { MappedFile } from './messages.ts'
import { isForeignFileSystem, type Mount } from './mounts.ts'
import { statObject } from './native.ts'
import { asProcError, readProcLink } from './proc-file.ts'

// Not in node:fs; <asm-generic/fcntl.h>, the same on x86-64 and arm64.
const O_PATH = 0o10000000

/** What is needed to judge the file systems of one process's objects. */
export interface ObjectContext {
  readonly storeDir: string
  /** `major:minor` of the verified store directory. */
  readonly storeDevice: string
  /** The root directory in which names of a container's own store are looked up; null where it is the host's. */
  readonly containerRoot: string | null
  /** File system type by device, from the mounts of the process and of the agent. */
  readonly fileSystems: ReadonlyMap<string, string>
  /** Device by mount id, which is the same in every mount namespace. */
  readonly mountDevices: ReadonlyMap<number, string>
  /** Device of the kernel's own shared memory: memfd, SysV. */
  readonly sharedMemoryDevice: string
  readonly cache: HashCache
  readonly budget: Budget
}

/** What the mounts in `lists` say of file systems: type by device, device by mount id. */
export function fileSystemsOf(
  ...lists: readonly (readonly Mount[])[]
): Pick<ObjectContext, 'fileSystems' | 'mountDevices'> {
  const fileSystems = new Map<string, string>()
  const mountDevices = new Map<number, string>()
  for (const mount of lists.flat()) {
    fileSystems.set(mount.device, mount.fsType)
    mountDevices.set(mount.id, mount.device)
  }
  return { fileSystems, mountDevices }
}

/**
 * Facts about the object behind `link`, a magic link below /proc/PID. `device` is what the kernel says of it,
 * learnt without a call to its file system.
 * @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE, FILE_UNREADABLE, MEASUREMENT_LIMIT
 */
export function readObject(link: string, device: string, context: ObjectContext): MappedFile {
  const path = readProcLink(link)
  assertLocal(path, knownDevice(link, device, context), context)
  const fd = asProcError(link, () => openSync(link, constants.O_RDONLY | constants.O_NONBLOCK))
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (!stats.isFile())
      throw new AgentError('FILE_UNREADABLE', `expected a regular file behind ${quote(path)}`)
    const device = formatDevice(stats.dev)
    const inode = String(stats.ino)
    const isStoreFile = isStoreObject(path, { device, inode }, context)
    return {
      path: path.length <= 4096 ? path : path.slice(0, 4096),
      sha256: context.cache.hash(fd, isStoreFile, context.budget) as MappedFile['sha256'],
      device,
      inode,
      isStoreFile,
      unlinked: stats.nlink === 0n,
    }
  } finally {
    closeSync(fd)
  }
}

/** True if `stats` are those of the file at `path` below the verified store, with no symlink on the way. */
export function isStoreObject(
  path: string,
  object: { readonly device: string; readonly inode: string },
  context: ObjectContext,
): boolean {
  if (!path.startsWith(`${context.storeDir}/`)) return false
  if (context.containerRoot !== null) return isContainedObject(context.containerRoot, path, object)
  if (object.device !== context.storeDevice) return false
  try {
    const named = lstatSync(onHost(path), { bigint: true })
    return (
      named.isFile() &&
      formatDevice(named.dev) === object.device &&
      String(named.ino) === object.inode &&
      !hasLinkOnTheWay(path)
    )
  } catch {
    return false // No such name in the store: then it is no store file, whatever its bytes are.
  }
}

/** By each directory of its own: realpath(3) would follow /proc/1/root into our own mounts. */
function hasLinkOnTheWay(path: string): boolean {
  for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1))
    if (lstatSync(onHost(path.slice(0, end))).isSymbolicLink()) return true
  return false
}

/** As {@link isStoreObject}, for a store that is reached through the container's first process. */
function isContainedObject(
  root: string,
  path: string,
  object: { readonly device: string; readonly inode: string },
): boolean {
  let fd: number
  try {
    fd = openSync(`${root}${path}`, O_PATH | constants.O_NOFOLLOW)
  } catch {
    return false // no such name there
  }
  try {
    const named = fstatSync(fd, { bigint: true })
    const isObject =
      named.isFile() &&
      formatDevice(named.dev) === object.device &&
      String(named.ino) === object.inode
    // A link on the way would have led to a file of another name.
    return isObject && readlinkSync(`/proc/self/fd/${fd}`) === path
  } finally {
    closeSync(fd)
  }
}

/**
 * The device to judge the object behind `link` by. An overlay's files are told by the device of the layer they
 * lie in, which may be mounted nowhere in sight: then by their mount.
 */
function knownDevice(link: string, device: string, context: ObjectContext): string {
  const isKnown =
    device === context.storeDevice ||
    device === context.sharedMemoryDevice ||
    context.fileSystems.has(device)
  if (isKnown) return device
  const { mountId } = asProcError(link, () => statObject(link))
  return context.mountDevices.get(mountId) ?? device
}

function assertLocal(path: string, device: string, context: ObjectContext): void {
  if (device === context.storeDevice || device === context.sharedMemoryDevice) return
  const fsType = context.fileSystems.get(device)
  if (fsType !== undefined && !isForeignFileSystem(fsType)) return
  throw new AgentError(
    'FILE_UNREADABLE',
    `expected ${quote(path)} on a local file system, saw ${fsType ?? `unknown device ${device}`}`,
  )
}
