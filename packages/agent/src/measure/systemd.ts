// Units of systemd. The cgroup names the unit; PID 1 says what it started there, over D-Bus through
// `busctl --json`, whose arrays keep arguments apart (the text of `systemctl show` does not).
// org.freedesktop.systemd1(5).
//
// Only the outermost unit counts: below a delegated one (`user@1000.service`) names are the user's choice.
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { readInstance } from './instance.ts'
import type { LaunchContract, MainProcess, ObservedUnit, ProcessInstance } from './messages.ts'
import { readProcLink, readProcText } from './proc-file.ts'
import { parseStatus } from './status.ts'

const BUSCTL_TIMEOUT_MS = 2000
const MAX_ANSWER_BYTES = 1024 * 1024

/** True where systemd is the service manager, sd_booted(3). */
export function systemdRuns(): boolean {
  return existsSync('/run/systemd/system')
}

/** The outermost service or scope on the way to `cgroup`, with its own cgroup. */
export function systemdUnitOf(cgroup: string): { name: string; cgroup: string } | undefined {
  const parts = cgroup.split('/')
  const index = parts.findIndex((part) => /^[A-Za-z0-9:_.\\@-]{1,248}\.(service|scope)$/.test(part))
  const name = parts[index]
  return name === undefined ? undefined : { name, cgroup: parts.slice(0, index + 1).join('/') }
}

/** What PID 1 says of a service. */
export interface SystemdService {
  readonly controlGroup: string
  readonly mainPid: number
  readonly executable: string
  /** Without `argv[0]`. */
  readonly arguments: readonly string[]
  /** Process that ran the command last; 0 if PID 1 has read its unit files since, and forgotten it. */
  readonly commandPid: number
  readonly noNewPrivs: boolean
}

/**
 * Reads the answers of `busctl --json=short get-property`, one a line: ControlGroup, MainPID, ExecStart,
 * NoNewPrivileges.
 * @throws {AgentError} UNIT_RECORD
 */
export function parseServiceProperties(text: string): SystemdService {
  let lines: { type?: unknown; data?: unknown }[]
  try {
    lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { type?: unknown; data?: unknown })
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', `expected JSON of busctl, saw ${quote(text)}`, { cause })
  }
  const [controlGroup, mainPid, execStart, noNewPrivs] = lines.map((line) => line?.data)
  const commands = execStart as unknown[]
  const command = Array.isArray(commands) && commands.length === 1 ? commands[0] : undefined
  // Path, argv, ignore-failure, four times of start and exit, the pid that ran it, how it ended.
  const [executable, argv, , , , , , pid] = Array.isArray(command) ? (command as unknown[]) : []
  if (
    lines.length !== 4 ||
    typeof controlGroup !== 'string' ||
    !Number.isSafeInteger(mainPid) ||
    typeof noNewPrivs !== 'boolean' ||
    typeof executable !== 'string' ||
    !Array.isArray(argv) ||
    !argv.every((argument) => typeof argument === 'string') ||
    !Number.isSafeInteger(pid)
  )
    throw new AgentError('UNIT_RECORD', `expected one ExecStart of a service, saw ${quote(text)}`)
  return {
    controlGroup,
    mainPid: mainPid as number,
    executable,
    arguments: (argv as string[]).slice(1),
    commandPid: pid as number,
    noNewPrivs,
  }
}

/** Object path of a unit, sd_bus_path_encode(3). */
export function unitObjectPath(name: string): string {
  const escaped = [...Buffer.from(name, 'utf8')].map((byte, index) => {
    const char = String.fromCharCode(byte)
    const plain = index === 0 ? /[A-Za-z]/ : /[A-Za-z0-9]/
    return plain.test(char) ? char : `_${byte.toString(16).padStart(2, '0')}`
  })
  return `/org/freedesktop/systemd1/unit/${escaped.join('')}`
}

/**
 * The systemd unit around `cgroup`, or undefined if there is none. A unit that PID 1 does not confirm (a
 * scope, another control group, no main process) has no contract.
 * @throws {AgentError} UNIT_RECORD, PROC_UNREADABLE
 */
export function readSystemdUnit(cgroup: string): ObservedUnit | undefined {
  const unit = systemdUnitOf(cgroup)
  if (unit === undefined) return undefined
  const service = unit.name.endsWith('.service') ? readService(unit) : undefined
  const { contract = null, main = null } = service ?? {}
  return { facts: { launcher: 'systemd', name: unit.name, cgroup: unit.cgroup, contract }, main }
}

function readService(unit: {
  name: string
  cgroup: string
}): { contract: LaunchContract; main: MainProcess } | undefined {
  const service = parseServiceProperties(askPid1(unit.name))
  // A cgroup of the same name elsewhere is somebody else's.
  if (service.mainPid <= 0 || unit.cgroup !== service.controlGroup) return undefined
  let instance: ProcessInstance
  try {
    instance = readInstance(service.mainPid)
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PROCESS_GONE') return undefined
    throw error
  }
  const program = readProcLink(`/proc/${service.mainPid}/exe`)
  const owner = parseStatus(readProcText(`/proc/${service.mainPid}/status`, 64 * 1024))
  const contract: LaunchContract = {
    executable: service.executable,
    arguments: [...service.arguments],
    uid: owner.uids[0],
    gid: owner.gids[0],
    noNewPrivs: service.noNewPrivs,
    pid: service.mainPid,
    startTicks: instance.startTicks,
    // PID 1 does not tell where the text began: an exec of the same program shows against the first sight
    // (first-sights.ts), and before that only in the arguments that the process itself reports.
    intact: program === service.executable,
  }
  // A main process that the service named itself (sd_notify) or forked was not started with the command.
  return { contract, main: { instance, witnessed: service.commandPid === service.mainPid } }
}

function askPid1(name: string): string {
  const path = unitObjectPath(name)
  const ask = (iface: string, ...properties: string[]): string =>
    execFileSync(
      'busctl',
      [
        ...['--system', '--json=short', '--timeout=2', 'get-property'],
        ...['org.freedesktop.systemd1', path, `org.freedesktop.systemd1.${iface}`, ...properties],
      ],
      {
        encoding: 'utf8',
        timeout: BUSCTL_TIMEOUT_MS,
        maxBuffer: MAX_ANSWER_BYTES,
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    )
  try {
    return ask('Service', 'ControlGroup', 'MainPID', 'ExecStart', 'NoNewPrivileges')
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', `PID 1 did not tell of unit ${quote(name)}`, { cause })
  }
}
