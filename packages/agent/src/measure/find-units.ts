// Where the main process of a unit is, for what the agent does by itself: token files and observation. This only
// finds; that the process belongs to the unit, and what runs in it, is what the measurement says of it.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { AgentError } from '../error.ts'
import { readCgroupPath } from './cgroup.ts'
import { contractOf, readExecRecords } from './exec-record.ts'
import { readInstance } from './instance.ts'
import type { ProcessInstance } from './messages.ts'
import { findOciStates } from './oci-state.ts'
import { systemdRuns, unitObjectPath } from './systemd.ts'
import { findCgroupMount } from './unit-key.ts'

const BUSCTL_TIMEOUT_MS = 5000

/** A unit by the name that its launcher gives it; of containers, by ids in which `*` stands for anything. */
export interface WantedUnit {
  readonly launcher: 'bagcheck-exec' | 'systemd' | 'oci'
  readonly name: string
}

/** Where launchers keep what they started. */
export interface UnitPlaces {
  readonly unitsDir: string
  readonly ociStateDirs: readonly string[]
}

/** A unit of systemd has its kind in its name. */
export function wantedUnit(name: string): WantedUnit {
  return { launcher: name.endsWith('.service') ? 'systemd' : 'bagcheck-exec', name }
}

/**
 * The main processes of the units with this name that run: of `bagcheck exec` there can be several, and containers.
 * @throws {AgentError} UNIT_RECORD, MEASUREMENT_LIMIT, PROC_FORMAT, PROC_UNREADABLE
 */
export async function findMainProcesses(
  { launcher, name }: WantedUnit,
  { unitsDir, ociStateDirs }: UnitPlaces,
): Promise<ProcessInstance[]> {
  if (launcher === 'systemd') return systemdRuns() ? askPid1(name) : []
  if (launcher === 'oci') {
    const mount = findCgroupMount()
    if (mount === undefined) return []
    return findOciStates(ociStateDirs, mount, name).flatMap(
      ({ initPid, initStartTicks }) =>
        unlessGone(() => [readInstance(initPid)])?.filter(
          ({ startTicks }) => startTicks === initStartTicks,
        ) ?? [],
    )
  }
  return readExecRecords(unitsDir)
    .filter((record) => record.name === name && contractOf(record).intact)
    .flatMap(({ pid }) => unlessGone(() => [readInstance(pid)]) ?? [])
}

async function askPid1(name: string): Promise<ProcessInstance[]> {
  const service = 'org.freedesktop.systemd1.Service'
  const { stdout } = await promisify(execFile)(
    'busctl',
    [
      ...['--system', '--json=short', '--timeout=2', 'get-property', 'org.freedesktop.systemd1'],
      ...[unitObjectPath(name), service, 'ControlGroup', 'MainPID'],
    ],
    { encoding: 'utf8', timeout: BUSCTL_TIMEOUT_MS },
  ).catch((cause: unknown) => {
    throw new AgentError('UNIT_RECORD', `PID 1 did not tell of unit ${JSON.stringify(name)}`, {
      cause,
    })
  })
  const [cgroup, pid] = stdout
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { data?: unknown }).data)
  if (!Number.isSafeInteger(pid) || (pid as number) <= 0) return []
  return (
    unlessGone(() => {
      const instance = readInstance(pid as number)
      return readCgroupPath(instance.pid) === cgroup ? [instance] : []
    }) ?? []
  )
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PROCESS_GONE') return undefined
    throw error
  }
}
