// A unit that is just starting: UNITSDIR/NAME.starting holds its cgroup until NAME.json is complete, because
// a quick program may ask before `bagcheck exec` has recorded what it saw. A mark proves nothing and gives
// nothing: it only ever makes a measurement wait, for as long as a start may take.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { UnitRecord } from '@bagcheck/api'
import { isWithin } from './cgroup.ts'
import { findExecRecord, MAX_RECORDS } from './exec-record.ts'

const START_WAIT_MS = 2000
const START_POLL_MS = 10

/**
 * The record of the unit around `cgroup`; that of one which is just starting is waited for. Undefined if
 * there is none, also after `waitMs`.
 * @throws {AgentError} what {@link findExecRecord} throws
 */
export function awaitExecRecord(
  unitsDir: string,
  cgroupMount: string,
  cgroup: string,
  waitMs: number = START_WAIT_MS,
): UnitRecord | undefined {
  for (let waitedMs = 0; ; waitedMs += START_POLL_MS) {
    // In this order, because the record is there before the mark goes.
    const starting = isStarting(unitsDir, cgroup)
    const record = findExecRecord(unitsDir, cgroupMount, cgroup)
    if (record !== undefined || !starting || waitedMs >= waitMs) return record
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, START_POLL_MS)
  }
}

/** Whether `bagcheck exec` says that it is starting a unit around `cgroup`. */
function isStarting(unitsDir: string, cgroup: string): boolean {
  try {
    const names = readdirSync(unitsDir).filter((name) => name.endsWith('.starting'))
    return names
      .slice(0, MAX_RECORDS)
      .some((name) => isWithin(cgroup, readFileSync(join(unitsDir, name), 'utf8').trim()))
  } catch (error) {
    // No directory, or the unit has started between the two reads.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
