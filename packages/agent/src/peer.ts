// Who is at the other end of a unix socket, and does that process still live. The native calls of the
// agent are in this file, in attributes.ts, in privileges.ts and in measure/native.ts. The credentials are those
// of the process that called connect(2), whoever holds
// the socket now.
//
// SO_PEERPIDFD (Linux 6.5) pins that very process. Before it there is only a pid, which may have been
// reused between connect and our pidfd_open: that way we check that the process's user is the one that
// connected; a reuse by the same user in that gap is measured like any other caller.
//
// Node tells the descriptor of a socket only in an internal field, `_handle.fd`.
import { closeSync, fstatSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import koffi from 'koffi'
import { AgentError } from './error.ts'
import { formatDevice } from './measure/instance.ts'

// <asm-generic/socket.h>, <asm-generic/unistd.h>, <asm-generic/errno.h>, <poll.h>, <linux/memfd.h>
const SOL_SOCKET = 1
const SO_PEERCRED = 17
const SO_PEERPIDFD = 77
const SYS_PIDFD_OPEN = 434
const POLLIN = 1
const MFD_CLOEXEC = 1
const ENOPROTOOPT = 92

const libc = koffi.load(null)
const getsockopt = libc.func('int getsockopt(int, int, int, _Out_ uint8_t *, _Inout_ uint32_t *)')
const syscall = libc.func('long syscall(long, ...)')
const poll = libc.func('int poll(_Inout_ uint8_t *, unsigned long, int)')
const memfdCreate = libc.func('int memfd_create(const char *, unsigned int)')

/** The process at the other end, pinned. */
export interface Peer {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** Readable once the process has ended. Close it with {@link closePidfd}. */
  readonly pidfd: number
  /** How the process was pinned. */
  readonly source: 'SO_PEERPIDFD' | 'pidfd_open'
}

/**
 * Identifies the process that connected `socket`.
 * @param options.fallback take the way of kernels before 6.5
 * @throws {AgentError} PEER_UNKNOWN also for a process in a pid namespace that we cannot see
 */
export function identifyPeer(socket: Socket, options: { fallback?: boolean } = {}): Peer {
  const fd = descriptorOf(socket)
  const { pid, uid, gid } = readCredentials(fd)
  if (pid === 0) throw new AgentError('PEER_UNKNOWN', 'the caller is in a pid namespace not ours')
  const pinned = options.fallback === true ? undefined : readPeerPidfd(fd, pid)
  if (pinned !== undefined) {
    if (pidOf(pinned) === pid) return { pid, uid, gid, pidfd: pinned, source: 'SO_PEERPIDFD' }
    closePidfd(pinned)
    throw new AgentError('PEER_UNKNOWN', `the caller, process ${pid}, is gone`)
  }
  const pidfd = openPidfd(pid)
  if (effectiveUid(pid) === uid) return { pid, uid, gid, pidfd, source: 'pidfd_open' }
  closePidfd(pidfd)
  throw new AgentError('PEER_UNKNOWN', `process ${pid} is not of user ${uid}, who connected`)
}

/** The user at the other end of a unix socket. @throws {AgentError} PEER_UNKNOWN */
export function peerUser(socket: Socket): number {
  return readCredentials(descriptorOf(socket)).uid
}

/** @throws {AgentError} PEER_UNKNOWN */
export function openPidfd(pid: number): number {
  const pidfd = Number(syscall(SYS_PIDFD_OPEN, 'int', pid, 'unsigned int', 0))
  if (pidfd < 0) throw new AgentError('PEER_UNKNOWN', `cannot pin process ${pid}`)
  return pidfd
}

/** Lets go of a pinned process. */
export function closePidfd(pidfd: number): void {
  closeSync(pidfd)
}

/** Those of `pidfds` whose process has ended. One system call, whatever their number. */
export function endedProcesses(pidfds: readonly number[]): number[] {
  if (pidfds.length === 0) return []
  // struct pollfd { int fd; short events; short revents; }
  const entries = Buffer.alloc(pidfds.length * 8)
  pidfds.forEach((pidfd, index) => {
    entries.writeInt32LE(pidfd, index * 8)
    entries.writeInt16LE(POLLIN, index * 8 + 4)
  })
  if (Number(poll(entries, pidfds.length, 0)) < 0) return [] // EINTR: the next round tells
  return pidfds.filter((_pidfd, index) => entries.readInt16LE(index * 8 + 6) !== 0)
}

/** `major:minor` of the kernel's own shared memory, where memfds live. */
export function sharedMemoryDevice(): string {
  const fd = Number(memfdCreate('bagcheck', MFD_CLOEXEC))
  if (fd < 0) throw new AgentError('PROC_UNREADABLE', 'memfd_create failed')
  try {
    return formatDevice(fstatSync(fd, { bigint: true }).dev)
  } finally {
    closeSync(fd)
  }
}

function descriptorOf(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: unknown } })._handle?.fd
  if (typeof fd === 'number' && fd >= 0) return fd
  throw new AgentError('PEER_UNKNOWN', 'expected an open unix socket')
}

function readCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const credentials = readOption(fd, SO_PEERCRED, 12)
  if (credentials === undefined)
    throw new AgentError('PEER_UNKNOWN', 'expected the credentials of a peer')
  const [pid, uid, gid] = new Uint32Array(credentials.buffer) as unknown as [number, number, number]
  return { pid, uid, gid }
}

/**
 * The pidfd of who connected; undefined on kernels that give none. Those before 6.16 give none of a process that
 * has ended either: to go by its pid then would be to take whoever has that pid now.
 */
function readPeerPidfd(fd: number, pid: number): number | undefined {
  const pinned = readOption(fd, SO_PEERPIDFD, 4)
  if (pinned !== undefined) return new Int32Array(pinned.buffer)[0]
  if (koffi.errno() === ENOPROTOOPT) return undefined
  throw new AgentError('PEER_UNKNOWN', `the caller, process ${pid}, is gone`)
}

function readOption(fd: number, option: number, length: number): Uint8Array | undefined {
  const value = new Uint8Array(length)
  const size = new Uint32Array([length])
  if (Number(getsockopt(fd, SOL_SOCKET, option, value, size)) !== 0) return undefined
  return size[0] === length ? value : undefined
}

/** The pid behind a pidfd, -1 once the process was reaped. */
function pidOf(pidfd: number): number | undefined {
  const pid = /^Pid:\t(-?\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${pidfd}`, 'utf8'))?.[1]
  return pid === undefined ? undefined : Number(pid)
}

function effectiveUid(pid: number): number | undefined {
  try {
    const ids = /^Uid:\t\d+\t(\d+)\t/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return ids === undefined ? undefined : Number(ids)
  } catch {
    return undefined // Gone: the caller's user cannot be confirmed, which is a refusal.
  }
}
