// `/proc/PID/stat`: `pid (comm) state ppid …`. The comm is the process's own choice and may hold spaces,
// parentheses and newlines, so the fields start after the LAST `)`. proc_pid_stat(5).
import { AgentError, quote } from '../error.ts'

/** Kernel thread, <linux/sched.h>. */
const PF_KTHREAD = 0x00200000

/** The fields that identify a process and the program in it. */
export interface ProcessStat {
  readonly pid: number
  readonly comm: string
  /** `R`, `S`, … `Z` zombie, `X` dead. */
  readonly state: string
  readonly kernelThread: boolean
  readonly threads: number
  /** Field 22, clock ticks since boot; survives exec. */
  readonly startTicks: number
  /** Field 26, where the text begins; changes at exec. */
  readonly startCode: number
  /** Field 28, bottom of the stack; changes at exec. */
  readonly startStack: number
  /** Fields 48 to 51: where arguments and environment are, from and to; 0 for who may not know. */
  readonly argumentsAt: readonly [from: number, to: number]
  readonly environmentAt: readonly [from: number, to: number]
}

/** @throws {AgentError} PROC_FORMAT */
export function parseStat(text: string): ProcessStat {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open < 2 || close < open || !text.endsWith('\n')) throw malformed(text)
  const pid = decimal(text.slice(0, open - 1), text)
  const fields = text.slice(close + 2, -1).split(' ')
  // Field 3 (state) is fields[0].
  const field = (number: number): number => decimal(fields[number - 3] ?? '', text)
  const state = fields[0] ?? ''
  if (!/^[A-Za-z]$/.test(state) || fields.length < 50) throw malformed(text)
  return {
    pid,
    comm: text.slice(open + 1, close),
    state,
    kernelThread: (field(9) & PF_KTHREAD) !== 0,
    threads: field(20),
    startTicks: field(22),
    startCode: field(26),
    startStack: field(28),
    argumentsAt: [field(48), field(49)],
    environmentAt: [field(50), field(51)],
  }
}

function decimal(field: string, text: string): number {
  const value = Number(field)
  if (!/^(0|[1-9][0-9]*)$/.test(field) || !Number.isSafeInteger(value)) throw malformed(text)
  return value
}

function malformed(text: string): AgentError {
  return new AgentError('PROC_FORMAT', `expected a /proc/PID/stat line, saw ${quote(text)}`)
}
