// Who this process is and what it may do. Started as root, the agent is two processes that are no longer root's
// before anything foreign is read: the measurer keeps three capabilities, the front none. A measurer that a service
// manager starts as a user of its own may have two more, for what is opened first, and gives them up in the same way.
//
// Capabilities and no-new-privs belong to a thread, and Node has several before our first line runs. So the
// measurer sets them in its main thread and executes itself anew (process.execve): of the old threads only
// this one is left, and what the new ones get is its. Users and groups are the whole process's, by libc.
// What is there in the end is read from /proc/self/task and not believed. capabilities(7).
import { readdirSync, readFileSync } from 'node:fs'
import koffi from 'koffi'
import { AgentError, quote } from './error.ts'

/**
 * All that the measurer may do beyond its user, <linux/capability.h>:
 *   CAP_DAC_READ_SEARCH     open what other users' processes are made of: map_files, fd, environ, pagemap
 *   CAP_SYS_PTRACE          read the state of processes of other users: maps, root, exe, namespaces
 *   CAP_CHECKPOINT_RESTORE  open mapped files through map_files
 */
export const MEASURER_CAPABILITIES: Readonly<Record<string, number>> = {
  CAP_DAC_READ_SEARCH: 2,
  CAP_SYS_PTRACE: 19,
  CAP_CHECKPOINT_RESTORE: 40,
}

/**
 * What it has when it starts as a user of its own, and has no more when it first measures:
 *   CAP_NET_ADMIN  open the process connector
 *   CAP_SETPCAP    take both of these out of the bounding set
 */
export const START_CAPABILITIES: Readonly<Record<string, number>> = {
  CAP_NET_ADMIN: 12,
  CAP_SETPCAP: 8,
}

const setOf = (capabilities: Readonly<Record<string, number>>): bigint =>
  Object.values(capabilities).reduce((set, bit) => set | (1n << BigInt(bit)), 0n)
const KEPT = setOf(MEASURER_CAPABILITIES)
const AT_START = KEPT | setOf(START_CAPABILITIES)

// <linux/prctl.h>, <linux/capability.h>, <fcntl.h>
const [PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT] = [8, 24, 38, 47]
const [PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL] = [2, 4]
const CAPABILITY_VERSION_3 = 0x20080522
const [F_SETFD, FD_CLOEXEC] = [2, 1]

const libc = koffi.load(null)
const prctl = libc.func(
  'int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)',
)
const capset = libc.func('int capset(const uint8_t *, const uint8_t *)')
const fcntl = libc.func('int fcntl(int, int, int)')

/** A user and its own group. */
export interface User {
  readonly uid: number
  readonly gid: number
}

/**
 * The user called `name`, or whose number it is.
 * @throws {AgentError} USER_UNKNOWN
 */
export function findUser(name: string, passwd: string = readFileSync('/etc/passwd', 'utf8')): User {
  const lines = passwd.split('\n').map((line) => line.split(':'))
  const found = lines.find(([login, , uid]) => login === name || uid === name)
  const [, , uid = '', gid = ''] =
    found ?? (/^[1-9]\d{0,9}$/.test(name) ? ['', '', name, name] : [])
  if (/^\d{1,10}$/.test(uid) && /^\d{1,10}$/.test(gid))
    return { uid: Number(uid), gid: Number(gid) }
  throw new AgentError('USER_UNKNOWN', `expected a user ${quote(name)} in /etc/passwd`)
}

/**
 * Front and measurer are two users: of one user, the front could write the measurer's first sights.
 * @throws {AgentError} CONFIG_INVALID
 */
export function assertApart(front: User, measurerUid: number | undefined): void {
  if (front.uid !== measurerUid) return
  throw new AgentError(
    'CONFIG_INVALID',
    `expected another user for the measurer than ${front.uid}, who is the agent's`,
  )
}

/** Becomes `user`, for good: in every thread, with no other group and no capability. */
export function becomeUser({ uid, gid }: User): void {
  call('PR_SET_NO_NEW_PRIVS', prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
  process.setgroups?.([])
  process.setgid?.(gid)
  process.setuid?.(uid) // The kernel takes all capabilities from who was root.
}

/**
 * Executes this program anew with the measurer's capabilities and no others, and no way to more.
 * @param user whom root becomes; null: we are nobody else's already
 * @param args what follows `process.execPath`
 * @param descriptors stay open
 */
export function executeAsMeasurer(
  user: User | null,
  args: readonly string[],
  descriptors: readonly number[],
): never {
  const last = Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8'))
  for (let capability = 0; capability <= last; capability += 1)
    if (((KEPT >> BigInt(capability)) & 1n) === 0n)
      call('PR_CAPBSET_DROP', prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
  if (user !== null) {
    call('PR_SET_KEEPCAPS', prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    process.setgroups?.([])
    process.setgid?.(user.gid)
    process.setuid?.(user.uid)
  }
  setCapabilities()
  // Another user than root gets by exec what is ambient; root, what is inheritable.
  call('PR_CAP_AMBIENT_CLEAR_ALL', prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
  for (const capability of Object.values(MEASURER_CAPABILITIES))
    call('PR_CAP_AMBIENT_RAISE', prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))
  call('PR_SET_NO_NEW_PRIVS', prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
  for (const fd of descriptors) call('F_SETFD', fcntl(fd, F_SETFD, 0))
  const { PATH = '/usr/bin:/bin' } = process.env
  // One arena of the C library for all threads, as they seldom allocate at once: each keeps what it once had.
  const environment = { PATH, MALLOC_ARENA_MAX: '1' }
  process.execve?.(process.execPath, [process.execPath, ...args], environment)
  throw new AgentError('PRIVILEGES', 'expected a Node that can execute itself anew')
}

/** Keeps a descriptor that outlived {@link executeAsMeasurer} from `busctl`. */
export function closeOnExec(fd: number): void {
  call('F_SETFD', fcntl(fd, F_SETFD, FD_CLOEXEC))
}

/** What this thread starts from now on inherits no capability: `busctl` needs none. */
export function dropAmbientCapabilities(): void {
  call('PR_CAP_AMBIENT_CLEAR_ALL', prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
}

/** What one thread may do. */
export interface ThreadPrivileges {
  readonly inheritable: bigint
  readonly permitted: bigint
  readonly effective: bigint
  readonly bounding: bigint
  readonly ambient: bigint
  readonly noNewPrivs: boolean
}

/** What each thread of this process may do, as the kernel says. */
export function readPrivileges(): ThreadPrivileges[] {
  return readdirSync('/proc/self/task').map((tid) => {
    const status = readFileSync(`/proc/self/task/${tid}/status`, 'utf8')
    const field = (name: string): string =>
      new RegExp(`^${name}:\\t([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? 'f'
    const set = (name: string): bigint => BigInt(`0x${field(name)}`)
    return {
      inheritable: set('CapInh'),
      permitted: set('CapPrm'),
      effective: set('CapEff'),
      bounding: set('CapBnd'),
      ambient: set('CapAmb'),
      noNewPrivs: field('NoNewPrivs') === '1',
    }
  })
}

/** True if every thread has exactly what the measurer needs, and can get no more. */
export function hasMeasurerPrivileges(threads: readonly ThreadPrivileges[]): boolean {
  return threads.every(
    ({ inheritable, permitted, effective, bounding, ambient, noNewPrivs }) =>
      permitted === KEPT &&
      effective === KEPT &&
      bounding === KEPT &&
      ((inheritable | ambient) & ~KEPT) === 0n &&
      noNewPrivs,
  )
}

/** True if this process is another user than root and has, to give up, what a measurer starts with. */
export function hasStartPrivileges(threads: readonly ThreadPrivileges[]): boolean {
  return process.geteuid?.() !== 0 && threads.every(({ effective }) => effective === AT_START)
}

/**
 * Checks that no thread may do more than its user.
 * @throws {AgentError} PRIVILEGES
 */
export function assertUnprivileged(): void {
  const held = readPrivileges().reduce(
    (set, { inheritable, permitted, effective, ambient }) =>
      set | inheritable | permitted | effective | ambient,
    0n,
  )
  if (held === 0n && process.geteuid?.() !== 0) return
  throw new AgentError(
    'PRIVILEGES',
    `expected a front without privileges, saw user ${process.geteuid?.()} with capabilities ${held.toString(16)}`,
  )
}

function setCapabilities(): void {
  const header = Buffer.alloc(8)
  header.writeUInt32LE(CAPABILITY_VERSION_3)
  const data = Buffer.alloc(24)
  for (const [word, set] of [KEPT & 0xffff_ffffn, KEPT >> 32n].entries())
    // struct __user_cap_data_struct { __u32 effective, permitted, inheritable; }
    for (const offset of [0, 4, 8]) data.writeUInt32LE(Number(set), word * 12 + offset)
  call('capset', capset(header, data))
}

function call(name: string, result: unknown): void {
  if (Number(result) >= 0) return
  throw new AgentError('PRIVILEGES', `${name} failed: errno ${koffi.errno()}`)
}
