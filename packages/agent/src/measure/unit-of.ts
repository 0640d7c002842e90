// Which unit a process belongs to: a launch by `bagcheck exec`, a container, a unit of systemd, or none.
import { readCgroupPath } from './cgroup.ts'
import { contractOf } from './exec-record.ts'
import type { MeasurerOptions, ObservedUnit, UnitFacts } from './messages.ts'
import { readOciUnit } from './oci.ts'
import { findStartedUnit } from './starting.ts'
import { readSystemdUnit, systemdRuns } from './systemd.ts'

/**
 * The unit of process `pid`. `none` for the root cgroup, which the world shares, and for a cgroup that no
 * launcher answers for.
 * @throws {AgentError} UNIT_RECORD, UNIT_STARTING, PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE
 */
export function unitOf(
  pid: number,
  options: Pick<MeasurerOptions, 'unitsDir' | 'ociStateDirs'> & { cgroupMount: string | undefined },
): ObservedUnit {
  const cgroup = readCgroupPath(pid)
  const none: UnitFacts = {
    launcher: 'none',
    name: '',
    cgroup: cgroup.slice(0, 4096),
    contract: null,
    container: null,
    service: null,
  }
  if (cgroup === '/' || options.cgroupMount === undefined) return { facts: none, main: null }
  const record = findStartedUnit(options.unitsDir, options.cgroupMount, cgroup)
  if (record !== undefined) {
    const { name, cgroup: own } = record
    const contract = contractOf(record)
    const facts: UnitFacts = { ...none, launcher: 'bagcheck-exec', name, cgroup: own, contract }
    return { facts, main: null }
  }
  // Before systemd, which makes a scope for some containers and knows nothing of what is in it.
  const container = readOciUnit(options.ociStateDirs, options.cgroupMount, cgroup)
  if (container !== undefined) return container
  const unit = systemdRuns() ? readSystemdUnit(cgroup) : undefined
  return unit ?? { facts: none, main: null }
}
