// Which unit a process belongs to: a launch by `bagcheck exec`, a unit of systemd, or none.
import { readCgroupPath } from './cgroup.ts'
import { contractOf } from './exec-record.ts'
import type { ObservedUnit, UnitFacts } from './messages.ts'
import { findStartedUnit } from './starting.ts'
import { readSystemdUnit, systemdRuns } from './systemd.ts'

/**
 * The unit of process `pid`. `none` for the root cgroup, which the world shares, and for a cgroup that no
 * launcher answers for.
 * @throws {AgentError} UNIT_RECORD, UNIT_STARTING, PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE
 */
export function unitOf(
  pid: number,
  options: { unitsDir: string; cgroupMount: string | undefined },
): ObservedUnit {
  const cgroup = readCgroupPath(pid)
  const none: UnitFacts = {
    launcher: 'none',
    name: '',
    cgroup: cgroup.slice(0, 4096),
    contract: null,
  }
  if (cgroup === '/' || options.cgroupMount === undefined) return { facts: none, main: null }
  const record = findStartedUnit(options.unitsDir, options.cgroupMount, cgroup)
  if (record !== undefined) {
    const { name, cgroup: own } = record
    const contract = contractOf(record)
    return { facts: { launcher: 'bagcheck-exec', name, cgroup: own, contract }, main: null }
  }
  const unit = systemdRuns() ? readSystemdUnit(cgroup) : undefined
  return unit ?? { facts: none, main: null }
}
