// What a process holds open. Most descriptors are everyday ones and are not told: sockets, pipes, epoll, timers,
// files that it writes. Told are
//   - those with which memory, code or other processes can be changed, or with which all of this can be hidden;
//   - regular files that are open for reading only: what an interpreter runs is among them.
// A kind that we do not know is told as `unknown`, so that a new kernel object is not harmless by default.
//
//   /proc/PID/fd/N      where the descriptor leads, as the kernel names it. A name that begins with "/" is a file's
//                       and its owner's choice; every other one is the kernel's
//   the link's mode     how it is open: r, w, both, or neither (O_PATH)
//   statx(2) of it      kind, object and mount, without asking the file's own file system, which may be a program
//                       that never answers
//   /proc/PID/fdinfo/N  whether a ring holds files of its own
//
// A thread can have a table of its own (unshare(CLONE_FILES)): kcmp(2) tells, and then its table is read too.
// Not seen: descriptors on their way through a socket (SCM_RIGHTS), and what was open between two looks.
// proc_pid_fd(5), proc_pid_fdinfo(5).
import { lstatSync, readdirSync } from 'node:fs'
import type { Evidence } from '@bagcheck/api'
import { AgentError } from '../error.ts'
import type { FileMapping } from './maps.ts'
import { isKernelFileSystem } from './mounts.ts'
import { shares, statObject, type StatedObject } from './native.ts'
import { isStoreObject, type ObjectContext } from './objects.ts'
import { asProcError, readProcLink, readProcText } from './proc-file.ts'

/** Descriptors of one kind and name that policy judges. */
export type Descriptor = Evidence['facts']['processes'][number]['descriptors'][number]
/** A regular file that a process can read and does not execute. */
export type DataFile = Evidence['facts']['processes'][number]['dataFiles']['files'][number]

/** What {@link readDescriptors} found. */
export interface OpenObjects {
  readonly descriptors: readonly Descriptor[]
  readonly dataFiles: { readonly count: number; readonly files: readonly DataFile[] }
}

const MAX_DESCRIPTORS = 65_536
/** Kinds and names told of one process. */
const MAX_TOLD = 64
const MAX_DATA_FILES_TOLD = 256
const MAX_NAME_CHARACTERS = 256
const MAX_INFO_BYTES = 256 * 1024

// <linux/major.h>, <linux/miscdevice.h> and the kernel's devices.txt
const KERNEL_MEMORY: ReadonlySet<string> = new Set(['1:1', '1:2', '1:4'])
const FUSE_DEVICE = '10:229'
/** Kernel objects with a name of their own that change nothing but the process itself. */
const HARMLESS = /^(eventfd|eventpoll|timerfd|signalfd|inotify|pidfd)$/
const KINDS: readonly (readonly [RegExp, Descriptor['kind']])[] = [
  [/^userfaultfd$/, 'userfaultfd'],
  [/^io_uring$/, 'io-uring'],
  [/^(bpf|btf)/, 'bpf'],
  [/^perf_event$/, 'perf-event'],
  [/^fanotify$/, 'fanotify'],
]
// Device numbers of drivers that get theirs at boot cannot be listed.
const USERFAULTFD_NAME = '/dev/userfaultfd'
const PRIVATE_MAPPINGS: ReadonlySet<string> = new Set([
  '/[aio] (deleted)',
  '/anon_hugepage (deleted)',
])

/** What reading descriptors needs beside the process. */
export interface DescriptorContext extends ObjectContext {
  /** The host's, and the one that a container brings: see {@link isBelowStore}. */
  readonly mounts: ReadonlyMap<number, MountPlace>
  readonly stores: readonly { readonly device: string; readonly place: string }[]
}

/** What of a file system lies where. */
export interface MountPlace {
  readonly device: string
  readonly root: string
  readonly mountPoint: string
  readonly fsType: string
}

/**
 * What process `pid` holds open in any of its threads, and maps without executing it (`mapped`).
 * @throws {AgentError} MEASUREMENT_LIMIT, PROCESS_GONE, PROC_UNREADABLE
 */
export function readDescriptors(
  pid: number,
  threads: readonly string[],
  mapped: readonly FileMapping[],
  context: DescriptorContext,
): OpenObjects {
  const found = new Found()
  for (const directory of tablesOf(pid, threads)) {
    const path = `${directory}/fd`
    const numbers = asProcError(path, () => readdirSync(path))
    if (numbers.length > MAX_DESCRIPTORS)
      throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_DESCRIPTORS} descriptors`)
    context.budget.spendDescriptors(numbers.length)
    for (const number of numbers) unlessClosed(() => judge(directory, number, found, context))
  }
  for (const mapping of mapped) unlessClosed(() => judgeMapping(pid, mapping, found, context))
  return found.told()
}

/** The directories below which all descriptors of a process are. */
function tablesOf(pid: number, threads: readonly string[]): string[] {
  const others = threads
    .map(Number)
    .filter((tid) => tid !== pid && !shares('files', pid, tid))
    .map((tid) => `/proc/${pid}/task/${tid}`)
  return [`/proc/${pid}`, ...others]
}

/** A descriptor that was closed meanwhile, or a thread that ended, is none; if the process is gone, others say so. */
function unlessClosed(read: () => void): void {
  try {
    read()
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== 'PROCESS_GONE') throw error
  }
}

function judge(directory: string, number: string, found: Found, context: DescriptorContext): void {
  const link = `${directory}/fd/${number}`
  const name = readProcLink(link)
  if (!name.startsWith('/')) {
    const kind = kindOf(name)
    if (kind === undefined) return
    const hides = kind === 'io-uring' && holdsFiles(`${directory}/fdinfo/${number}`)
    return found.add(hides ? 'io-uring-files' : kind, name)
  }
  if (name.startsWith('/memfd:')) return found.add('memfd', name)
  const object = asProcError(link, () => statObject(link))
  const mount = context.mounts.get(object.mountId)
  if (mount === undefined) return found.add('unknown', name)
  if (mount.fsType === 'proc') return judgeProc(name, found)
  if (isKernelFileSystem(mount.fsType)) return
  const { mode } = asProcError(link, () => lstatSync(link))
  const access = { reads: (mode & 0o400) !== 0, writes: (mode & 0o200) !== 0 }
  judgeObject(name, object, access, mount, found, context)
}

function judgeObject(
  path: string,
  { kind, target, device, inode }: StatedObject,
  access: { readonly reads: boolean; readonly writes: boolean },
  mount: MountPlace,
  found: Found,
  context: DescriptorContext,
): void {
  if (kind === 'block-device') found.add('block-device', path)
  else if (kind === 'character-device') {
    if (KERNEL_MEMORY.has(target)) found.add('kernel-memory', path)
    else if (target === FUSE_DEVICE) found.add('fuse', path)
    else if (path === USERFAULTFD_NAME) found.add('userfaultfd', path)
  } else if (kind !== 'file') return
  else if (access.writes) {
    if (context.stores.some((store) => isBelowStore(path, mount, store)))
      found.add('store-writable', path)
  } else if (access.reads)
    found.addData({
      path,
      device,
      inode,
      isStoreFile: isStoreObject(path, { device, inode }, context),
    })
}

/** `/proc/PID/mem` of anybody, one's own included, and the kernel's own memory. */
function judgeProc(name: string, found: Found): void {
  const file = name.replace(/ \(deleted\)$/, '')
  if (file.endsWith('/mem')) found.add('process-memory', name)
  else if (file.endsWith('/kcore')) found.add('kernel-memory', name)
}

/** A descriptor may be closed while its mapping lives on. */
function judgeMapping(
  pid: number,
  mapping: FileMapping,
  found: Found,
  context: DescriptorContext,
): void {
  const { path, device, writesThrough } = mapping
  if (!path.startsWith('/')) {
    const kind = kindOf(path)
    if (kind !== undefined) found.add(kind, path)
    return
  }
  if (device === context.sharedMemoryDevice) return
  if (!context.fileSystems.has(device) && PRIVATE_MAPPINGS.has(path)) return
  const link = `/proc/${pid}/map_files/${mapping.start}-${mapping.end}`
  const object = asProcError(link, () => statObject(link))
  // Its mount may be gone by now, and the mapping live on.
  const mount = context.mounts.get(object.mountId) ?? {
    device,
    root: '/',
    mountPoint: '/',
    fsType: '',
  }
  const access = { reads: true, writes: writesThrough }
  judgeObject(path, object, access, mount, found, context)
}

/** The kind of a kernel object without a file, or undefined if it is an everyday one. */
function kindOf(name: string): Descriptor['kind'] | undefined {
  // "socket:[…]", "pipe:[…]", "pidfd:[…]", "net:[…]": a number, and no power over memory.
  const object = /^anon_inode:\[?(.*?)\]?$/.exec(name)?.[1]
  if (object === undefined) return /^[a-z_]+:\[\d+\]$/.test(name) ? undefined : 'unknown'
  if (HARMLESS.test(object)) return undefined
  return KINDS.find(([pattern]) => pattern.test(object))?.[1] ?? 'unknown'
}

/**
 * True if a ring holds files of its own, which are then in no table. A kernel that is just working on the ring
 * says nothing of them; after a few looks that counts as holding some.
 */
function holdsFiles(path: string): boolean {
  for (let look = 0; look < 5; look += 1) {
    const files = /^UserFiles:\t(\d+)$/m.exec(readProcText(path, MAX_INFO_BYTES))?.[1]
    if (files !== undefined) return files !== '0'
  }
  return true
}

/**
 * True if the file called `name` on `mount` lies in the store, whatever path it was opened by: a bind mount
 * shows the store's files elsewhere.
 */
function isBelowStore(
  name: string,
  { device, root, mountPoint }: MountPlace,
  store: DescriptorContext['stores'][number],
): boolean {
  if (device !== store.device) return false
  const at = mountPoint === '/' ? '' : mountPoint
  const inMount = name.startsWith(`${at}/`) ? name.slice(at.length) : name
  const place = `${root === '/' ? '' : root}${inMount}`
  return place.startsWith(`${store.place}/`)
}

/** Collects what is told, each kind and name once. */
class Found {
  readonly #descriptors = new Map<string, Descriptor>()
  readonly #files = new Map<string, DataFile>()

  add(kind: Descriptor['kind'], name: string): void {
    const cut = name.slice(0, MAX_NAME_CHARACTERS)
    const key = `${kind} ${cut}`
    const count = (this.#descriptors.get(key)?.count ?? 0) + 1
    this.#descriptors.set(key, { kind, name: cut, count })
    if (this.#descriptors.size > MAX_TOLD)
      throw new AgentError(
        'MEASUREMENT_LIMIT',
        `expected at most ${MAX_TOLD} kinds of descriptors that count in one process`,
      )
  }

  addData(file: DataFile): void {
    const path = file.path.slice(0, 4096)
    this.#files.set(`${file.device}/${file.inode}/${path}`, { ...file, path })
  }

  told(): OpenObjects {
    const files = [...this.#files.values()]
    const told = files.slice(0, MAX_DATA_FILES_TOLD)
    return {
      descriptors: [...this.#descriptors.values()],
      dataFiles: { count: files.length, files: told },
    }
  }
}
