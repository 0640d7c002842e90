// Which namespaces a process is in, by the numbers that the kernel shows: equal numbers, same namespace.
// namespaces(7).
import { readdirSync } from 'node:fs'
import type { Evidence } from '@bagcheck/api'
import { AgentError, quote } from '../error.ts'
import { readProcLink } from './proc-file.ts'

/** Numbers of the namespaces of a process; `0` for a kind that this kernel does not have. */
export type Namespaces = Evidence['host']['namespaces']

let known: ReadonlySet<string> | undefined

/**
 * Namespaces by `/proc/PID` or `/proc/PID/task/TID`.
 * @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE
 */
export function readNamespaces(directory: string): Namespaces {
  const kinds = (known ??= new Set(readdirSync('/proc/self/ns')))
  const number = (kind: string): string => {
    if (!kinds.has(kind)) return '0'
    const link = readProcLink(`${directory}/ns/${kind}`)
    const found = /^\w+:\[(\d{1,20})\]$/.exec(link)?.[1]
    if (found !== undefined && link.startsWith(`${kind}:`)) return found
    throw new AgentError('PROC_FORMAT', `expected a ${kind} namespace, saw ${quote(link)}`)
  }
  return {
    mnt: number('mnt'),
    pid: number('pid'),
    net: number('net'),
    ipc: number('ipc'),
    uts: number('uts'),
    cgroup: number('cgroup'),
    time: number('time'),
  }
}
