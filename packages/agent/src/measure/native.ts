// System calls that Node does not have and the measurer needs.
import { getSystemErrorName } from 'node:util'
import koffi from 'koffi'

const libc = koffi.load(null)
const syscall = libc.func('long syscall(long, ...)')
const statx = libc.func('int statx(int, const char *, int, unsigned int, _Out_ uint8_t *)')
const adjtimex = libc.func('int adjtimex(_Inout_ uint8_t *)')

// <asm/unistd_64.h>, <asm-generic/unistd.h>; <linux/kcmp.h>; <linux/timex.h>
const SYS_KCMP: number | undefined = { x64: 312, arm64: 272 }[process.arch as string]
const KCMP = { files: 2, fs: 3 } as const
const TIMEX_BYTES = 208
const STATUS_OFFSET = 40
const STA_UNSYNC = 0x40
const TIME_ERROR = 5

// <linux/fcntl.h>, <linux/stat.h>
const AT_FDCWD = -100
const AT_STATX_DONT_SYNC = 0x4000
/** Basic facts and the mount's id (Linux 5.8). */
const STATX_WANTED = 0x17ff
const STATX_BYTES = 256
const S_IFMT = 0o170000

/** An object as the kernel knows it without asking its file system's server. */
export interface StatedObject {
  /** `major:minor`. */
  readonly device: string
  readonly inode: string
  /** Of a device node. */
  readonly target: string
  readonly kind: 'file' | 'block-device' | 'character-device' | 'other'
  readonly mountId: number
}

/**
 * The object that `path` leads to. What a file system that is a program, or another host, was last heard to say
 * is good enough: who it is does not change, and nobody is waited for. statx(2) with AT_STATX_DONT_SYNC.
 * @throws an error with `code`, like those of node:fs
 */
export function statObject(path: string): StatedObject {
  const stat = Buffer.alloc(STATX_BYTES)
  if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_WANTED, stat) !== 0) {
    const code = getSystemErrorName(-koffi.errno())
    throw Object.assign(new Error(`statx ${path}: ${code}`), { code })
  }
  const number = (at: number): number => stat.readUInt32LE(at)
  return {
    device: `${number(136)}:${number(140)}`,
    inode: String(stat.readBigUInt64LE(32)),
    target: `${number(128)}:${number(132)}`,
    kind: KIND_OF_MODE[stat.readUInt16LE(28) & S_IFMT] ?? 'other',
    mountId: Number(stat.readBigUInt64LE(144)),
  }
}

const KIND_OF_MODE: Readonly<Record<number, StatedObject['kind']>> = {
  0o100000: 'file',
  0o060000: 'block-device',
  0o020000: 'character-device',
}

/**
 * True if two threads share their table of descriptors (`files`), or their root and working directory (`fs`);
 * false if they do not, or if this kernel does not tell. kcmp(2).
 */
export function shares(what: keyof typeof KCMP, one: number, other: number): boolean {
  if (SYS_KCMP === undefined) return false
  const args = ['int', one, 'int', other, 'int', KCMP[what], 'long', 0, 'long', 0]
  return Number(syscall(SYS_KCMP, ...args)) === 0
}

/** Whether the kernel's clock is disciplined by some time service; null if it does not say. adjtimex(2). */
export function isClockSynchronised(): boolean | null {
  const timex = Buffer.alloc(TIMEX_BYTES) // no modes: it is read, which needs no privilege
  const state = Number(adjtimex(timex))
  if (state < 0) return null
  return state !== TIME_ERROR && (timex.readInt32LE(STATUS_OFFSET) & STA_UNSYNC) === 0
}
