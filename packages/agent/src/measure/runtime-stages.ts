// The moments of a container runtime inside a container. `runc init` and crun's own child join the container's
// cgroup and namespaces before they execute what was asked for; so does each `runc exec`. For that moment the
// container holds a foreign program, of the host or in a memfd (both runtimes copy themselves, CVE-2019-5736).
//
// Nothing is granted to a program for its name: while such a process is young the measurement is one that
// comes too early (UNIT_STARTING), and is made again. One that stays is measured as all others, and foreign.
import { readFileSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { readProcLink } from './proc-file.ts'
import type { ProcessSnapshot } from './process.ts'

/** Clock ticks in a second, in all user-space interfaces of Linux. */
const USER_HZ = 100
/** Longest that such a moment is believed to last. */
const MAX_STAGE_SECONDS = 5
/** By the names that the runtimes give their copies, and by where distributions install them. */
const RUNTIME = /^(\/memfd:(runc_cloned|crun)\b.*|\/.*\/(runc|crun))( \(deleted\))?$/

/** @throws {AgentError} UNIT_STARTING for a process that is about to become one of the container's */
export function assertExecuted({ pid, stat }: ProcessSnapshot): void {
  const program = readProcLink(`/proc/${pid}/exe`)
  if (!RUNTIME.test(program)) return
  const uptimeSeconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8'))
  if (uptimeSeconds - stat.startTicks / USER_HZ > MAX_STAGE_SECONDS) return
  throw new AgentError('UNIT_STARTING', `expected a started container, saw ${quote(program)} in it`)
}
