// Starts a unit with a recorded launch contract. What the record is for: an interpreter is only as good
// as the script that it was told to run, and a process can rewrite its own argv; so the one who starts it
// writes down what it started, where only root can write, and enough of the process (start time, start of
// code and stack) to notice that it has since executed something else.
//
//   sh (root) joins the cgroup → setpriv becomes the user → env clears the environment → CMD
//
// all in one process id. Once its command line is CMD's the cgroup is frozen, so that the record is complete
// before CMD gets far, and thawed when the record is on disk. A program that is quicker than the freeze is
// not lost: NAME.starting, which holds the cgroup, tells the agent that it is too early.
// `--env` may hold LD_PRELOAD and the like; it is set only after root's privileges are gone.
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, readdirSync, readFileSync } from 'node:fs'
import { access, chmod, constants as modes, mkdir, open, realpath, rm } from 'node:fs/promises'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { CliError } from '../error.ts'
import { writeOutput } from '../files.ts'
import type { Account } from './account.ts'
import { makeCgroup, removeCgroup, type UnitCgroup } from './cgroup.ts'
import { recordLaunch } from './record.ts'

/** What is started. */
export interface Launch {
  readonly name: string
  /** Tells units of one name apart; empty for the only one. */
  readonly instance: string
  readonly account: Account
  /** Absolute path of the program. */
  readonly program: string
  readonly arguments: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly unitsDirectory: string
  readonly cgroupParent: string | undefined
}

/** What the shell says when it cannot execute a program. */
const NOT_EXECUTABLE = 126
const NOT_FOUND = 127

/** `O_CLOEXEC` as `/proc/PID/fdinfo` shows it, the same on every architecture that Node runs on here. */
const O_CLOEXEC = 0o2000000

/** Where root's own programs are; the last is where NixOS has them. */
const SYSTEM_PATH = '/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin'

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const

/**
 * Starts the unit, waits for its main process to end, ends what is left of the unit, and resolves to the
 * exit code of that process (128 + N where signal N ended it). Once `signal` has fired nothing is started;
 * later signals of the process are the unit's.
 * @throws {CliError} COMMAND_NOT_STARTED, CGROUP_UNAVAILABLE, UNIT_RUNNING, TOOL_MISSING; the reason of `signal`
 */
export async function launchUnit(launch: Launch, signal: AbortSignal): Promise<number> {
  const program = await resolveProgram(launch.program)
  const setpriv = await findSetpriv()
  const unit = launch.instance === '' ? launch.name : `${launch.name}@${launch.instance}`
  const cgroup = await makeCgroup(launch.cgroupParent, unit)
  const recordFile = join(launch.unitsDirectory, `${unit}.json`)
  const startingFile = join(launch.unitsDirectory, `${unit}.starting`)
  try {
    await makeUnitsDirectory(launch.unitsDirectory)
    await writeOutput(startingFile, `${cgroup.path}\n`, 0o600)
    const before = stages(launch, program, cgroup, setpriv)
    signal.throwIfAborted()
    closeInheritedFiles()
    const child = start(before)
    const forward = (name: NodeJS.Signals): void => passOn(name, child)
    for (const signal of FORWARDED) process.on(signal, forward)
    try {
      const ended = new Promise<number>((resolve, reject) => {
        child.once('error', reject)
        child.once('exit', (code, name) =>
          resolve(name === null ? (code ?? 0) : 128 + constants.signals[name]),
        )
      })
      const recorded = await recordLaunch(launch, program, before, cgroup, child, recordFile)
      await rm(startingFile, { force: true })
      const code = await ended
      if (!recorded && (code === NOT_EXECUTABLE || code === NOT_FOUND))
        throw new CliError(
          'COMMAND_NOT_STARTED',
          `${program} could not be executed, or returned ${code} before it was seen to run`,
        )
      return code
    } finally {
      for (const signal of FORWARDED) process.off(signal, forward)
      child.kill('SIGKILL') // in case it never came to join the cgroup; a no-op once it has ended
    }
  } finally {
    await rm(recordFile, { force: true })
    await rm(startingFile, { force: true })
    await removeCgroup(cgroup)
  }
}

/**
 * The records are root's alone. The directory above them also holds the agent's socket, which everybody may
 * reach: made first by us, it must be one that the agent would have made.
 */
async function makeUnitsDirectory(directory: string): Promise<void> {
  const parent = dirname(directory)
  const made = await mkdir(parent, { recursive: true, mode: 0o755 })
  if (made !== undefined) await chmod(parent, 0o755) // whatever the umask
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
}

/** The file itself, links resolved: the kernel reports that one as the process's executable. */
async function resolveProgram(file: string): Promise<string> {
  const fail = (why: string): CliError => new CliError('COMMAND_NOT_STARTED', `${file} ${why}`)
  const program = await realpath(file).catch(() => undefined)
  if (program === undefined) throw fail('is not there')
  const handle = await open(program, 'r').catch(() => undefined)
  if (handle === undefined) throw fail('cannot be read')
  try {
    const stat = await handle.stat()
    if (!stat.isFile() || (stat.mode & 0o111) === 0) throw fail('is not an executable file')
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0)
    if (bytesRead === 2 && buffer.toString('latin1') === '#!') {
      throw fail('is a script; start its interpreter, with the script as an argument')
    }
  } finally {
    await handle.close()
  }
  return program
}

/** `setpriv` of util-linux, by its path: it is what takes root's privileges away. */
async function findSetpriv(): Promise<string> {
  for (const directory of SYSTEM_PATH.split(':')) {
    const file = join(directory, 'setpriv')
    if (
      await access(file, modes.X_OK).then(
        () => true,
        () => false,
      )
    )
      return file
  }
  throw new CliError('TOOL_MISSING', `setpriv, of util-linux, is not in ${SYSTEM_PATH}`)
}

/**
 * Closes what our caller left open beside standard input and outputs: the unit is not to hold what root opened.
 * Node opens everything with close-on-exec, and sets that on the first inherited descriptors only.
 */
function closeInheritedFiles(): void {
  for (const name of readdirSync('/proc/self/fdinfo')) {
    let info: string
    try {
      info = readFileSync(`/proc/self/fdinfo/${name}`, 'utf8')
    } catch {
      continue // the directory's own, closed by now
    }
    const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '', 8)
    if (Number(name) > 2 && (flags & O_CLOEXEC) === 0) closeSync(Number(name))
  }
}

/** The command lines that the process has one after the other before it is the program. */
function stages(
  launch: Launch,
  program: string,
  cgroup: UnitCgroup,
  setpriv: string,
): readonly (readonly string[])[] {
  const { uid, gid } = launch.account
  const privileges = [
    ...[`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--no-new-privs'],
    ...['--inh-caps=-all', '--pdeathsig', 'KILL'],
    ...(uid === 0 ? [] : ['--bounding-set=-all']),
  ]
  const environment = Object.entries(launch.environment).map(([name, value]) => `${name}=${value}`)
  // The last shell, because env takes a program whose path holds "=" for a variable.
  const last = ['/bin/sh', '-c', 'exec "$@"', 'sh', program, ...launch.arguments]
  const clear = ['env', '-i', ...environment, ...last]
  const drop = [setpriv, ...privileges, ...clear]
  const enter = 'echo 0 > "$1/cgroup.procs" || exit 126; shift; exec "$@"'
  return [['/bin/sh', '-c', enter, 'sh', cgroup.directory, ...drop], drop, clear, last]
}

function start([first]: readonly (readonly string[])[]): ChildProcess {
  const [shell = '', ...args] = first ?? []
  return spawn(shell, args, {
    cwd: '/',
    detached: true, // its own session: the terminal's signals reach it through us, once
    stdio: 'inherit',
    env: { PATH: SYSTEM_PATH },
  })
}

/**
 * What a terminal sends goes to all that run in its foreground, and shells count on that: to the program's process
 * group, which is of its session alone. The rest is for the program.
 */
function passOn(name: NodeJS.Signals, child: ChildProcess): void {
  const { pid, exitCode, signalCode } = child
  if (pid === undefined || exitCode !== null || signalCode !== null) return
  if (name !== 'SIGINT' && name !== 'SIGQUIT') return void child.kill(name)
  try {
    process.kill(-pid, name)
  } catch {
    // Nobody is left in the group: it has ended, and we are about to hear of it.
  }
}
