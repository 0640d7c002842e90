// Units of systemd. The cgroup names the unit; PID 1 says what it started there and with which settings from
// which files, over D-Bus through `busctl --json`, whose arrays keep arguments apart (the text of
// `systemctl show` does not). org.freedesktop.systemd1(5).
//
// Only the outermost unit counts: below a delegated one (`user@1000.service`) names are the user's choice.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { readInstance } from './instance.ts'
import type {
  LaunchContract,
  MainProcess,
  ObservedUnit,
  ProcessInstance,
  ServiceFacts,
} from './messages.ts'
import { readProcLink, readProcText } from './proc-file.ts'
import { parseStatus } from './status.ts'
import { readUnitFile } from './unit-files.ts'

const BUSCTL_TIMEOUT_MS = 2000
const MAX_ANSWER_BYTES = 1024 * 1024
const MAX_DROP_INS = 64
/** Most paths of one setting that are told. */
const MAX_TOLD = 128
const MAX_LOADS = 4096

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
  readonly fragmentPath: string
  readonly dropInPaths: readonly string[]
  readonly source: string
  readonly transient: boolean
  readonly needDaemonReload: boolean
  readonly settings: ServiceFacts['settings']
}

/**
 * Reads the answer of `busctl --json=short call … GetAll s ""`: all properties of a service.
 * @throws {AgentError} UNIT_RECORD
 */
export function parseServiceProperties(text: string): SystemdService {
  let properties: Record<string, { data?: unknown } | null>
  try {
    // Integers of 64 bits are more than a number holds. In a JSON string the quotes would be escaped.
    const exact = text.replaceAll(/"data":(\d{16,20})([,}])/g, '"data":"$1"$2')
    properties = (JSON.parse(exact) as { data: [typeof properties] }).data[0]
    if (typeof properties !== 'object' || properties === null) throw new TypeError('no properties')
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', `expected JSON of busctl, saw ${quote(text)}`, { cause })
  }
  const take = <T>(name: string, accepts: (value: unknown) => value is T): T => {
    const value = Object.hasOwn(properties, name) ? properties[name]?.data : undefined
    if (accepts(value)) return value
    throw new AgentError('UNIT_RECORD', `expected ${name} of a service, saw ${quote(value)}`)
  }
  const string = (name: string): string => take(name, isText)
  const strings = (name: string): string[] => take(name, isTexts)
  const boolean = (name: string): boolean => take(name, isBoolean)
  const mask = (name: string): string =>
    BigInt(take(name, isCount)).toString(16).padStart(16, '0').slice(-16)
  const commands = take('ExecStart', isList)
  if (commands.length !== 1)
    throw new AgentError(
      'UNIT_RECORD',
      `expected one ExecStart of a service, saw ${quote(commands)}`,
    )
  // Path, argv, ignore-failure, four times of start and exit, the pid that ran it, how it ended.
  const [executable, argv, , , , , , pid] = isList(commands[0]) ? commands[0] : []
  if (!isText(executable) || !isTexts(argv) || !Number.isSafeInteger(pid))
    throw new AgentError(
      'UNIT_RECORD',
      `expected an ExecStart of a service, saw ${quote(commands)}`,
    )
  const [allowList, calls] = take('SystemCallFilter', isList)
  if (!isBoolean(allowList) || !isTexts(calls))
    throw new AgentError('UNIT_RECORD', `expected a SystemCallFilter, saw ${quote(calls)}`)
  const paths = (name: string): string[] => strings(name).slice(0, MAX_TOLD)
  return {
    controlGroup: string('ControlGroup'),
    mainPid: Number(take('MainPID', isCount)),
    executable,
    arguments: argv.slice(1),
    commandPid: pid as number, // looked at above
    noNewPrivs: boolean('NoNewPrivileges'),
    fragmentPath: string('FragmentPath'),
    dropInPaths: strings('DropInPaths'),
    source: string('SourcePath'),
    transient: boolean('Transient'),
    needDaemonReload: boolean('NeedDaemonReload'),
    settings: {
      user: string('User'),
      group: string('Group'),
      dynamicUser: boolean('DynamicUser'),
      noNewPrivileges: boolean('NoNewPrivileges'),
      capabilityBoundingSet: mask('CapabilityBoundingSet'),
      ambientCapabilities: mask('AmbientCapabilities'),
      systemCallFilter: {
        allowList,
        calls: calls.length,
        sha256: digestOf(calls.toSorted().join('\n')),
      },
      protectSystem: string('ProtectSystem'),
      protectHome: string('ProtectHome'),
      privateTmp: boolean('PrivateTmp'),
      memoryDenyWriteExecute: boolean('MemoryDenyWriteExecute'),
      restrictNamespaces: mask('RestrictNamespaces'),
      readOnlyPaths: paths('ReadOnlyPaths'),
      readWritePaths: paths('ReadWritePaths'),
      inaccessiblePaths: paths('InaccessiblePaths'),
      rootDirectory: string('RootDirectory'),
      rootImage: string('RootImage'),
      delegate: boolean('Delegate'),
    },
  }
}

const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 4096
const isList = (value: unknown): value is unknown[] => Array.isArray(value)
const isTexts = (value: unknown): value is string[] => isList(value) && value.every(isText)
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean'
/** Those with many digits are texts by then. */
const isCount = (value: unknown): value is number | string =>
  typeof value === 'string'
    ? /^\d{16,20}$/.test(value)
    : Number.isSafeInteger(value) && Number(value) >= 0

const digestOf = (text: string): ServiceFacts['settings']['systemCallFilter']['sha256'] =>
  createHash('sha256').update(text).digest('hex') as ReturnType<typeof digestOf>

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
  const { contract = null, main = null, settings = null } = service ?? {}
  const { name } = unit
  return {
    facts: {
      launcher: 'systemd',
      name,
      cgroup: unit.cgroup,
      contract,
      container: null,
      service: settings,
    },
    main,
  }
}

function readService(unit: {
  name: string
  cgroup: string
}): { contract: LaunchContract; main: MainProcess; settings: ServiceFacts } | undefined {
  const service = parseServiceProperties(askAboutUnit(unit.name))
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
  const witnessed = service.commandPid === service.mainPid
  return { contract, main: { instance, witnessed }, settings: settingsOf(service, instance) }
}

/**
 * Where the settings come from. Whether the process was started with them is known here only while PID 1 has
 * read nothing since: then they are what it read last, if no link leads elsewhere since it did.
 */
function settingsOf(service: SystemdService, instance: ProcessInstance): ServiceFacts {
  const { fragmentPath, dropInPaths, source, transient, needDaemonReload, settings } = service
  if (dropInPaths.length > MAX_DROP_INS)
    throw new AgentError('UNIT_RECORD', `expected at most ${MAX_DROP_INS} drop-ins`)
  const fragment = fragmentPath === '' ? undefined : readUnitFile(fragmentPath)
  const dropIns = dropInPaths.map((path) => readUnitFile(path))
  const newest = Math.max(0, ...[fragment, ...dropIns].map((file) => file?.changedMs ?? 0))
  const witnessed = service.commandPid === service.mainPid
  return {
    fragment: fragment?.fact ?? null,
    dropIns: dropIns.map(({ fact }) => fact),
    ...{ source, transient, needDaemonReload, settings },
    asStarted: witnessed && newest <= lastLoadMs(instance),
  }
}

/**
 * When PID 1 last read unit files, by the process that it has started since: it reads none until it forgets
 * who ran the command, so one answer holds for as long as anybody asks.
 */
const loads = new Map<string, number>()

function lastLoadMs(instance: ProcessInstance): number {
  const key = `${instance.pid}/${instance.startTicks}`
  const known = loads.get(key)
  if (known !== undefined) return known
  const text = callPid1('/org/freedesktop/systemd1', [
    ...['get-property', 'org.freedesktop.systemd1', '/org/freedesktop/systemd1'],
    ...['org.freedesktop.systemd1.Manager', 'UnitsLoadTimestamp', 'UnitsLoadFinishTimestamp'],
  ])
  // µs since the epoch; the first is 0 until the first daemon-reload.
  const times = [...text.matchAll(/"data":(\d{1,16})\}/g)].map((match) => Number(match[1]))
  if (times.length !== 2)
    throw new AgentError('UNIT_RECORD', `expected times of PID 1, saw ${quote(text)}`)
  const lastMs = Math.max(...times) / 1000
  const oldest = loads.keys().next().value
  if (loads.size >= MAX_LOADS && oldest !== undefined) loads.delete(oldest)
  loads.set(key, lastMs)
  return lastMs
}

/** All properties of a unit, of all its interfaces. */
function askAboutUnit(name: string): string {
  const path = unitObjectPath(name)
  const properties = 'org.freedesktop.DBus.Properties'
  return callPid1(name, ['call', 'org.freedesktop.systemd1', path, properties, 'GetAll', 's', ''])
}

function callPid1(about: string, args: readonly string[]): string {
  try {
    return execFileSync('busctl', ['--system', '--json=short', '--timeout=2', ...args], {
      encoding: 'utf8',
      timeout: BUSCTL_TIMEOUT_MS,
      maxBuffer: MAX_ANSWER_BYTES,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', `PID 1 did not tell of ${quote(about)}`, { cause })
  }
}
