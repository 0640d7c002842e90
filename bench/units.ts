// Units as `bagcheck exec` starts and records them, but without a launcher that stays: a hundred of those
// would need more memory than what they launch.
import { spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { UnitRecord } from '@bagcheck/api'
import { CGROUP_PARENT_VARIABLE } from '@bagcheck/cli'
import type { ProcessInstance } from '../packages/agent/src/measure/messages.ts'
import { formatDevice, readInstance, readStat } from '../packages/agent/src/measure/instance.ts'
import { findCgroup2, parseMountinfo } from '../packages/agent/src/measure/mounts.ts'

/** What is started. */
export interface UnitOptions {
  readonly name: string
  /** Tells units of one name apart. */
  readonly instance: string
  readonly unitsDirectory: string
  readonly uid: number
  /** Links resolved. */
  readonly command: readonly [string, ...string[]]
  readonly environment?: Readonly<Record<string, string>>
}

/** A running unit; what its first process starts ends with it. */
export interface Unit extends AsyncDisposable {
  readonly pid: number
  readonly instance: ProcessInstance
  /** The next line on standard output that nobody has had; throws if there is none and will be none. */
  line(): Promise<string>
  /** Writes a line to standard input. */
  say(text: string): void
}

/** True where units can be started: in a private root, as root. Elsewhere prints why not. */
export function canStartUnits(): boolean {
  if (process.env[CGROUP_PARENT_VARIABLE] !== undefined) return true
  console.log('units cannot be started here (npm run bench does, as root): left out')
  return false
}

/** Starts a unit; its program gets an empty line when the record is complete. */
export async function startUnit(options: UnitOptions): Promise<Unit> {
  const { name, instance, unitsDirectory, uid, command, environment = {} } = options
  const directory = join(process.env[CGROUP_PARENT_VARIABLE] ?? '', `${name}@${instance}`)
  mkdirSync(directory, { recursive: true })
  mkdirSync(unitsDirectory, { recursive: true, mode: 0o700 })
  const [program, ...args] = command
  const script = 'echo 0 > "$1/cgroup.procs"; shift; exec setpriv "$@"'
  const privileges = [
    ...[`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--no-new-privs'],
    ...['--inh-caps=-all', '--bounding-set=-all', '--pdeathsig', 'KILL'],
  ]
  const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}`)
  const child = spawn(
    '/bin/sh',
    ['-c', script, 'sh', directory, ...privileges, 'env', '-i', ...variables, ...command],
    { stdio: 'pipe', cwd: '/' }, // a file of ours would be a foreign descriptor of theirs
  )
  child.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk))
  child.stdin.on('error', () => undefined) // that it ended is seen on its output
  const { pid } = child
  if (pid === undefined) throw new Error('the shell did not start')
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  while (child.exitCode === null && readlinkSync(`/proc/${pid}/exe`) !== program) await sleep(2)
  // The kernel names the new program before it has laid out its memory; a frozen process has done both.
  const events = join(directory, 'cgroup.events')
  writeFileSync(join(directory, 'cgroup.freeze'), '1')
  while (child.exitCode === null && !readFileSync(events, 'utf8').includes('frozen 1'))
    await sleep(2)
  const recordFile = join(unitsDirectory, `${name}@${instance}.json`)
  writeFileSync(
    recordFile,
    JSON.stringify({ ...contract(pid, directory), name, uid, gid: uid, arguments: args }),
    { mode: 0o600 },
  )
  const measured = readInstance(pid)
  writeFileSync(join(directory, 'cgroup.freeze'), '0')
  child.stdin.write('\n')
  return {
    pid,
    instance: measured,
    line: async () => {
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`${name}@${instance} ended`)
      return value
    },
    say: (text) => void child.stdin.write(`${text}\n`),
    [Symbol.asyncDispose]: async () => {
      if (!existsSync(directory)) return // it has ended before its fleet
      writeFileSync(join(directory, 'cgroup.kill'), '1')
      await ended
      while (!readFileSync(events, 'utf8').includes('populated 0')) await sleep(2)
      rmSync(recordFile, { force: true })
      rmdirSync(directory)
    },
  }
}

/** What the record says of the process itself. */
function contract(
  pid: number,
  directory: string,
): Omit<UnitRecord, 'name' | 'arguments' | 'uid' | 'gid'> {
  const mount = findCgroup2(parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8')))
  const executable = statSync(`/proc/${pid}/exe`, { bigint: true })
  const { startTicks, startCode, startStack } = readStat(pid)
  return {
    schema: 'bagcheck.unit/v1',
    cgroup: directory.slice(mount?.mountPoint.length ?? 0),
    cgroupInode: statSync(directory, { bigint: true }).ino.toString(),
    executable: readlinkSync(`/proc/${pid}/exe`),
    noNewPrivs: true,
    pid,
    ...{ startTicks, startCode, startStack },
    executableDevice: formatDevice(executable.dev),
    executableInode: executable.ino.toString(),
  }
}
