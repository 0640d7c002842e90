// What the kernel's process connector says of a process that changes (linux/cn_proc.h), one datagram an event:
//
//   nlmsghdr (16)  u32 length, u16 type, u16 flags, u32 sequence, u32 sender
//   cn_msg (20)    u32 idx = 1, u32 val = 1, u32 sequence, u32 ack, u16 length, u16 flags
//   proc_event     u32 what, u32 cpu, u64 time, then by `what`:
//                    fork         parent pid, parent tgid, child pid, child tgid
//                    exec         pid, tgid
//                    uid, gid     pid, tgid, …
//                    ptrace       pid, tgid, tracer pid, tracer tgid (0 when it detaches)
//
// Integers are in the byte order of the machine. Pids are those of the initial pid namespace. Threads are told
// too, with a pid of their own; the process is the tgid. Nothing is said of dlopen, mprotect or a write to
// /proc/PID/mem.
import { endianness } from 'node:os'

/** `NETLINK_CONNECTOR` messages of the process connector begin like this. */
export const CN_IDX_PROC = 1
export const CN_VAL_PROC = 1
/** Where `what` is in a datagram, in bytes. */
export const WHAT_OFFSET = 36
const DATA_OFFSET = 52

/** `what` of the events that change what a unit is, linux/cn_proc.h. */
export const PROCESS_EVENTS = {
  fork: 0x1,
  exec: 0x2,
  uid: 0x4,
  gid: 0x40,
  ptrace: 0x100,
} as const

/** How a process changed. */
export type ProcessChange = 'exec' | 'credentials' | 'ptrace'

/** One event about processes, as thread group ids in the initial pid namespace. */
export type ProcessEvent =
  | { readonly kind: 'fork'; readonly parent: number; readonly child: number }
  | { readonly kind: ProcessChange; readonly pid: number }

const isLittle = endianness() === 'LE'

/** The event in a datagram of `length` bytes; undefined for whatever else the connector says. */
export function parseProcessEvent(datagram: DataView, length: number): ProcessEvent | undefined {
  const u32 = (offset: number): number | undefined =>
    offset + 4 <= length && length <= datagram.byteLength
      ? datagram.getUint32(offset, isLittle)
      : undefined
  if (u32(16) !== CN_IDX_PROC || u32(20) !== CN_VAL_PROC) return undefined
  const [what, process, child] = [u32(WHAT_OFFSET), u32(DATA_OFFSET + 4), u32(DATA_OFFSET + 12)]
  if (what === undefined || process === undefined) return undefined
  switch (what) {
    case PROCESS_EVENTS.fork:
      // A new thread is of the process that it comes from.
      if (child === undefined || child === process) return undefined
      return { kind: 'fork', parent: process, child }
    case PROCESS_EVENTS.exec:
      return { kind: 'exec', pid: process }
    case PROCESS_EVENTS.uid:
    case PROCESS_EVENTS.gid:
      return { kind: 'credentials', pid: process }
    case PROCESS_EVENTS.ptrace:
      return { kind: 'ptrace', pid: process }
    default:
      return undefined
  }
}
