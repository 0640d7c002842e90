// The packed executables as processes: started on one core, observed from outside through /proc.
import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

/** Where `npm run build` puts them. */
export const DIST: string = resolve(import.meta.dirname, '../dist')

/** A running executable that has said that it is ready. */
export interface Running extends AsyncDisposable {
  readonly pid: number
  /** From before it was started until its ready line. */
  readonly readyMs: number
  /** The ready line. */
  readonly ready: Readonly<Record<string, string>>
  /** Itself, and the children that it has now: an agent started as root has a measurer. */
  usage(): readonly [Usage, ...Usage[]]
  /** Resident set, now; its children's too. */
  rssBytes(): number
  /** Processor time of all its threads so far, and of its children. */
  cpuSeconds(): number
}

/** What a process took so far and holds now. */
export interface Usage {
  readonly cpuSeconds: number
  /** How often threads that still run gave the processor up and were woken. */
  readonly wakeups: number
  readonly rss: number
  /** Pages that it shares with others count in parts. */
  readonly pss: number
  /** Pages of no file: heap and stacks. */
  readonly own: number
}

/** The command line of an executable, on one core if `core` is given and there are several. */
export function packedCommand(
  name: 'bagcheck' | 'bagcheck-broker' | 'bagcheck-agent',
  core?: number,
): [string, ...string[]] {
  const command: [string, string] = [process.execPath, join(DIST, `${name}.mjs`)]
  return core === undefined || cpus().length < 2
    ? command
    : ['taskset', '--cpu-list', `${core}`, ...command]
}

/** Starts a command and waits for the JSON line that says that it is ready. */
export async function startPacked(command: readonly string[]): Promise<Running> {
  const [file = '', ...args] = command
  const start = performance.now()
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4000)
  })
  const gone = new Promise<string>((left) => {
    child.once('close', (code, signal) => left(`${code ?? signal}`))
  })
  const first = new Promise<string>((told) => {
    createInterface({ input: child.stdout }).once('line', told)
  })
  const line = await Promise.race([first, gone])
  const readyMs = performance.now() - start
  if (!line.startsWith('{')) throw new Error(`${args.join(' ')} ended (${line}): ${complaint}`)
  return observe(child, readyMs, JSON.parse(line) as Record<string, string>, gone)
}

function observe(
  child: ChildProcess,
  readyMs: number,
  ready: Record<string, string>,
  gone: Promise<string>,
): Running {
  const pid = child.pid
  if (pid === undefined) throw new TypeError('a ready process has a pid')
  return {
    pid,
    readyMs,
    ready,
    usage: () => [usageOf(pid), ...childrenOf(pid).map(usageOf)],
    rssBytes: () => sum([pid, ...childrenOf(pid)].map(rssBytes)),
    cpuSeconds: () => sum([pid, ...childrenOf(pid)].map(cpuSeconds)),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await gone
    },
  }
}

function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return children === '' ? [] : children.split(' ').map(Number)
}

function usageOf(pid: number): Usage {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1]) * 1024
  const switches = readdirSync(`/proc/${pid}/task`).map((tid) => {
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')
    return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1])
  })
  const [rss, pss, own] = [bytes('Rss'), bytes('Pss'), bytes('Anonymous')]
  return { cpuSeconds: cpuSeconds(pid), wakeups: sum(switches), rss, pss, own }
}

function rssBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024
}

function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms.
  return (Number(fields[11]) + Number(fields[12])) / 100
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
