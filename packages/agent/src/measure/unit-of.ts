// Which unit a process belongs to: a launch by `bagcheck exec`, a unit of systemd, or none.
import { readCgroupPath } from './cgroup.ts'
import { contractOf, findExecRecord, isStarting, type ExecRecord } from './exec-record.ts'
import type { UnitFacts } from './messages.ts'
import { readSystemdUnit, systemdRuns, type FirstSeen } from './systemd.ts'

const START_WAIT_MS = 2000
const START_POLL_MS = 10

/**
 * The unit of process `pid`. `none` for the root cgroup, which the world shares, and for a cgroup that no
 * launcher answers for.
 * @throws {AgentError} UNIT_RECORD, PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE
 */
export function unitOf(
  pid: number,
  options: { unitsDir: string; cgroupMount: string | undefined; firstSeen: FirstSeen },
): UnitFacts {
  const cgroup = readCgroupPath(pid)
  const none: UnitFacts = { kind: 'none', name: '', cgroup: cgroup.slice(0, 4096), contract: null }
  if (cgroup === '/' || options.cgroupMount === undefined) return none
  const record = awaitExecRecord(options.unitsDir, options.cgroupMount, cgroup)
  if (record !== undefined)
    return {
      kind: 'bagcheck-exec',
      name: record.name,
      cgroup: record.cgroup,
      contract: contractOf(record),
    }
  return (systemdRuns() ? readSystemdUnit(cgroup, options.firstSeen) : undefined) ?? none
}

/** The record of a unit that runs, or of one that is just starting, which is waited for. */
function awaitExecRecord(
  unitsDir: string,
  cgroupMount: string,
  cgroup: string,
): ExecRecord | undefined {
  for (let waitedMs = 0; ; waitedMs += START_POLL_MS) {
    // In this order, because the record is there before the mark goes.
    const starting = isStarting(unitsDir, cgroup)
    const record = findExecRecord(unitsDir, cgroupMount, cgroup)
    if (record !== undefined || !starting || waitedMs >= START_WAIT_MS) return record
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, START_POLL_MS)
  }
}
