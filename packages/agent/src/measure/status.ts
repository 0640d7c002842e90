// `/proc/PID/status` and `/proc/PID/task/TID/status`: one `Name:\tvalue` a line. The kernel escapes a
// newline in the name, so no line of it is the process's choice. proc_pid_status(5).
import { AgentError, quote } from '../error.ts'

/** Credentials and confinement of one thread. */
export interface Credentials {
  /** Real, effective, saved, file-system. */
  readonly uids: readonly [number, number, number, number]
  readonly gids: readonly [number, number, number, number]
  readonly capabilities: {
    readonly inheritable: string
    readonly permitted: string
    readonly effective: string
    readonly bounding: string
    readonly ambient: string
  }
  readonly noNewPrivs: boolean
  /** 0 none, 1 strict, 2 filter. */
  readonly seccomp: number
  readonly tracerPid: number
}

/** @throws {AgentError} PROC_FORMAT */
export function parseStatus(text: string): Credentials {
  const fields = new Map<string, string>()
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon)
    if (colon > 0 && !fields.has(name)) fields.set(name, line.slice(colon + 1).trim())
  }
  const take = (name: string, grammar: RegExp): string => {
    const value = fields.get(name)
    if (value !== undefined && grammar.test(value)) return value
    throw new AgentError('PROC_FORMAT', `expected ${name} in a status file, saw ${quote(value)}`)
  }
  const ids = (name: string): [number, number, number, number] => {
    const [real, effective, saved, fileSystem] = take(name, /^\d+\t\d+\t\d+\t\d+$/)
      .split('\t')
      .map(Number)
    return [real as number, effective as number, saved as number, fileSystem as number]
  }
  const set = (name: string): string => take(name, /^[0-9a-f]{16}$/)
  return {
    uids: ids('Uid'),
    gids: ids('Gid'),
    capabilities: {
      inheritable: set('CapInh'),
      permitted: set('CapPrm'),
      effective: set('CapEff'),
      bounding: set('CapBnd'),
      ambient: set('CapAmb'),
    },
    noNewPrivs: take('NoNewPrivs', /^[01]$/) === '1',
    // A kernel without seccomp has no such line.
    seccomp: fields.has('Seccomp') ? Number(take('Seccomp', /^[012]$/)) : 0,
    tracerPid: Number(take('TracerPid', /^\d+$/)),
  }
}

/**
 * The pids of a process, in our pid namespace first and then in each below it.
 * @throws {AgentError} PROC_FORMAT
 */
export function parseNsPids(text: string): number[] {
  const pids = /^NSpid:((?:\t\d+)+)$/m.exec(text)?.[1]
  if (pids === undefined)
    throw new AgentError('PROC_FORMAT', `expected NSpid in a status file, saw ${quote(text)}`)
  return pids.slice(1).split('\t').map(Number)
}

/**
 * The credentials of a process whose threads have `threads`: in Linux each thread has its own, and one
 * made by a raw system call may differ from the leader. Different ids are an error, because facts have
 * room for one set only; of the rest the most powerful is told.
 * @throws {AgentError} THREADS_DIFFER
 */
export function combineThreads(pid: number, threads: readonly Credentials[]): Credentials {
  const [first, ...others] = threads
  if (first === undefined) throw new TypeError('a process has at least one thread')
  let combined = first
  for (const thread of others) {
    if (String(thread.uids) !== String(first.uids) || String(thread.gids) !== String(first.gids))
      throw new AgentError(
        'THREADS_DIFFER',
        `expected one uid and gid in all threads of process ${pid}, saw ` +
          quote([first.uids, first.gids, thread.uids, thread.gids]),
      )
    // Each member by name: one that is forgotten would be the leader's alone.
    combined = {
      uids: first.uids,
      gids: first.gids,
      capabilities: {
        inheritable: union(combined.capabilities.inheritable, thread.capabilities.inheritable),
        permitted: union(combined.capabilities.permitted, thread.capabilities.permitted),
        effective: union(combined.capabilities.effective, thread.capabilities.effective),
        bounding: union(combined.capabilities.bounding, thread.capabilities.bounding),
        ambient: union(combined.capabilities.ambient, thread.capabilities.ambient),
      },
      noNewPrivs: combined.noNewPrivs && thread.noNewPrivs,
      seccomp: Math.min(combined.seccomp, thread.seccomp),
      tracerPid: Math.max(combined.tracerPid, thread.tracerPid),
    }
  }
  return combined
}

function union(a: string, b: string): string {
  if (a === b) return a
  return (BigInt(`0x${a}`) | BigInt(`0x${b}`)).toString(16).padStart(16, '0')
}
