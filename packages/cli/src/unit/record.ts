// The record of a launch: who started what, in which process, where only root can write. It is complete before the
// program gets far, because the unit is frozen from the moment at which its command line is the program's.
import { readFileSync, statSync } from 'node:fs'
import type { ChildProcess } from 'node:child_process'
import { setImmediate as yieldTurn } from 'node:timers/promises'
import type { UnitRecord } from '@bagcheck/api'
import { CliError } from '../error.ts'
import { writeOutput } from '../files.ts'
import { freeze, thaw, type UnitCgroup } from './cgroup.ts'
import type { Launch } from './launch.ts'

/** Most time between the start and the program's own execution. */
const START_TIMEOUT_MS = 10_000

/**
 * Waits until the program runs, writes the record, and lets the program go on; false if it has ended by then.
 * @param before the command lines that the process has before it is the program
 * @throws {CliError} COMMAND_NOT_STARTED, CGROUP_UNAVAILABLE, FILE_UNWRITABLE
 */
export async function recordLaunch(
  launch: Launch,
  program: string,
  before: readonly (readonly string[])[],
  cgroup: UnitCgroup,
  child: ChildProcess,
  recordFile: string,
): Promise<boolean> {
  const wanted = statSync(program, { bigint: true })
  // Between fork and exec the child still shows our own.
  const ours = readFileSync('/proc/self/cmdline', 'utf8')
  const lines = [ours, ...before.map((stage) => `${stage.join('\0')}\0`)]
  const { pid } = child
  const deadline = Date.now() + START_TIMEOUT_MS
  for (;;) {
    // Over already: nobody is left whom a record could help.
    if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return false
    if (runs(pid, lines)) break
    if (Date.now() > deadline) {
      throw new CliError('COMMAND_NOT_STARTED', `${program} did not start within 10 s`)
    }
    await yieldTurn() // no timer: the program must not get far before it is frozen
  }
  await freeze(cgroup)
  const stat = readStat(pid)
  if (stat === undefined) return false
  const { uid, gid } = launch.account
  const contract: UnitRecord = {
    schema: 'bagcheck.unit/v1',
    name: launch.name,
    cgroup: cgroup.path,
    cgroupInode: cgroup.inode,
    executable: program,
    arguments: launch.arguments,
    uid,
    gid,
    noNewPrivs: true,
    pid,
    ...stat,
    executableDevice: formatDevice(wanted.dev),
    executableInode: wanted.ino.toString(),
  }
  await writeOutput(recordFile, `${JSON.stringify(contract)}\n`, 0o600)
  await thaw(cgroup)
  return true
}

/** `st_dev` as `major:minor`, <sys/sysmacros.h>. */
function formatDevice(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xffff_f000n)
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffff_ff00n)
  return `${major}:${minor}`
}

/**
 * Whether the process has come to the program: its command line is none of those before. The file that it
 * executes would not do: it may be that of a stage, and a program that at once executes another one has
 * passed before we look. Then the record does not fit, and the agent says so (CONTRACT_BROKEN).
 */
function runs(pid: number, stageLines: readonly string[]): boolean {
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    return line !== '' && !stageLines.includes(line)
  } catch {
    return false // gone, which the caller notices
  }
}

/**
 * Fields 22, 26 and 28 of `/proc/PID/stat`, counted after the command's name, which may hold anything;
 * undefined if the process is no more.
 */
function readStat(
  pid: number,
): { startTicks: number; startCode: number; startStack: number } | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const field = (number: number): number => Number(fields[number - 3])
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined
  return { startTicks: field(22), startCode: field(26), startStack: field(28) }
}
