// The files behind executable mappings. Objects decide, not names: each is opened through the kernel's
// own link to the mapped object (`map_files`, `exe`), so that a bind mount, a rename or a file named
// "x (deleted)" cannot show us other bytes than those that run. The path is only used to ask whether
// this very object is the store file of that name.
//
// Before an object is touched its file system is looked up: a FUSE server run by the workload could
// answer each read differently, or never.
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
} from 'node:fs'
import { AgentError, quote } from '../error.ts'
import type { HashCache } from './hash-cache.ts'
import { formatDevice } from './instance.ts'
import type { MappedFile } from './messages.ts'
import { isForeignFileSystem, type Mount } from './mounts.ts'
import { asProcError, readProcLink } from './proc-file.ts'

// Not in node:fs; <asm-generic/fcntl.h>, the same on x86-64 and arm64.
const O_PATH = 0o10000000

/** What is needed to judge the file systems of one process's objects. */
export interface ObjectContext {
  readonly storeDir: string
  /** `major:minor` of the verified store directory. */
  readonly storeDevice: string
  /** File system type by device, from the mounts of the process and of the agent. */
  readonly fileSystems: ReadonlyMap<string, string>
  /** Device by mount id, which is the same in every mount namespace. */
  readonly mountDevices: ReadonlyMap<number, string>
  /** Device of the kernel's own shared memory: memfd, SysV. */
  readonly sharedMemoryDevice: string
  readonly cache: HashCache
  /** Left to hash in this measurement. */
  readonly budget: { bytes: bigint }
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
 * Facts about the object behind `link`, a magic link below /proc/PID. `device` is what the kernel says
 * of it in maps, or undefined if that must be learnt from the link itself (`exe`).
 * @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE, FILE_UNREADABLE, MEASUREMENT_LIMIT
 */
export function readObject(
  link: string,
  device: string | undefined,
  context: ObjectContext,
): MappedFile {
  const path = readProcLink(link)
  assertLocal(path, device ?? deviceOfLink(link, path, context), context)
  const fd = asProcError(link, () => openSync(link, constants.O_RDONLY | constants.O_NONBLOCK))
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (!stats.isFile())
      throw new AgentError('FILE_UNREADABLE', `expected a regular file behind ${quote(path)}`)
    const isStoreFile = isStoreObject(path, stats, context)
    return {
      path: path.length <= 4096 ? path : path.slice(0, 4096),
      sha256: context.cache.hash(fd, isStoreFile, context.budget) as MappedFile['sha256'],
      device: formatDevice(stats.dev),
      inode: String(stats.ino),
      isStoreFile,
      unlinked: stats.nlink === 0n,
    }
  } finally {
    closeSync(fd)
  }
}

/** True if `stats` are those of the file at `path` below the verified store, with no symlink on the way. */
function isStoreObject(
  path: string,
  stats: { dev: bigint; ino: bigint },
  context: ObjectContext,
): boolean {
  if (!path.startsWith(`${context.storeDir}/`)) return false
  if (formatDevice(stats.dev) !== context.storeDevice) return false
  try {
    const named = lstatSync(path, { bigint: true })
    return (
      named.isFile() &&
      named.dev === stats.dev &&
      named.ino === stats.ino &&
      realpathSync.native(path) === path
    )
  } catch {
    return false // No such name in the store: then it is no store file, whatever its bytes are.
  }
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

/** Device of the object behind `link`, learnt without a call to its file system. */
function deviceOfLink(link: string, path: string, context: ObjectContext): string {
  const fd = asProcError(link, () => openSync(link, O_PATH))
  try {
    const mountId = /^mnt_id:\t(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
    const known = context.mountDevices.get(Number(mountId))
    if (known !== undefined) return known
  } finally {
    closeSync(fd)
  }
  throw new AgentError('FILE_UNREADABLE', `expected ${quote(path)} on a mount that can be seen`)
}
