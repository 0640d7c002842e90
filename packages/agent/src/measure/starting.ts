// A unit that is just starting: UNITSDIR/NAME.starting holds its cgroup until NAME.json is complete, because
// a quick program may ask before `bagcheck exec` has recorded what it saw. A mark proves nothing and gives
// nothing: it only ever makes a measurement say that it is too early. The waiting is for whoever asked
// (front/await-start.ts), because a program can make its own start last, and left-over marks last by
// themselves: a measuring thread that waited would be kept from all other units.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { UnitRecord } from '@bagcheck/api'
import { AgentError, quote } from '../error.ts'
import { isWithin } from './cgroup.ts'
import { findExecRecord, MAX_RECORDS } from './exec-record.ts'

/**
 * The record of the unit around `cgroup`, undefined if there is none; answers at once.
 * @throws {AgentError} UNIT_STARTING if there is none yet; what {@link findExecRecord} throws
 */
export function findStartedUnit(
  unitsDir: string,
  cgroupMount: string,
  cgroup: string,
): UnitRecord | undefined {
  // In this order, because the record is there before the mark goes.
  const mark = findMark(unitsDir, cgroup)
  const record = findExecRecord(unitsDir, cgroupMount, cgroup)
  if (record === undefined && mark !== undefined)
    throw new AgentError('UNIT_STARTING', `expected a started unit, saw ${quote(mark)}`)
  return record
}

/** The file by which `bagcheck exec` says that it is starting a unit around `cgroup`. */
function findMark(unitsDir: string, cgroup: string): string | undefined {
  const names = unlessMissing(() => readdirSync(unitsDir)) ?? []
  return names
    .filter((name) => name.endsWith('.starting'))
    .slice(0, MAX_RECORDS)
    .find((name) => {
      // That of another unit may go while we look.
      const marked = unlessMissing(() => readFileSync(join(unitsDir, name), 'utf8'))?.trim() ?? ''
      // One that was cut off must not hold for every unit of the host.
      return /^\/[^]/.test(marked) && isWithin(cgroup, marked)
    })
}

function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
