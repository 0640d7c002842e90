// Which changes of processes are changes of a unit that was measured. Pure: events go in, names of units come
// out.
//
// A unit is watched from one measurement to the next. Its processes are those that were measured and what they
// have forked since, so nothing is read for the many processes of the host that are of no concern. A fork alone
// changes nothing: the child runs what its parent runs. The first real change ends the watch, because
// everything is looked at again anyway; so a unit that executes all the time costs one event a measurement.
import type { ProcessEvent } from './process-event.ts'

const MAX_UNITS = 4096
/** More processes than this are not followed; the unit's interval holds for them. */
const MAX_PROCESSES = 65_536

/** Why a unit is to be measured again. `lost`: the kernel told more than was read. */
export const UNIT_CHANGES = ['exec', 'credentials', 'ptrace', 'lost'] as const
export type UnitChange = (typeof UNIT_CHANGES)[number]

/** The units that are watched, by any key. */
export class WatchedUnits {
  readonly #unitOf = new Map<number, string>()
  readonly #processesOf = new Map<string, Set<number>>()

  /**
   * Watches `unit` from now on; a process belongs to the unit that named it last.
   * @param since events since the unit was measured, in order: what already came
   * @returns the change that is among them, with which the watch has ended
   */
  watch(
    unit: string,
    pids: readonly number[],
    since: readonly ProcessEvent[] = [],
  ): UnitChange | undefined {
    this.forget(unit)
    if (this.#processesOf.size >= MAX_UNITS) {
      const [oldest] = this.#processesOf.keys()
      if (oldest !== undefined) this.forget(oldest)
    }
    this.#processesOf.set(unit, new Set())
    for (const pid of pids) this.#add(unit, pid)
    for (const event of since) {
      const pid = event.kind === 'fork' ? event.parent : event.pid
      if (this.#unitOf.get(pid) !== unit) continue
      const changed = this.take(event)
      if (changed !== undefined) return changed.change
    }
    return undefined
  }

  /** Ends the watch of a unit. */
  forget(unit: string): void {
    for (const pid of this.#processesOf.get(unit) ?? [])
      if (this.#unitOf.get(pid) === unit) this.#unitOf.delete(pid)
    this.#processesOf.delete(unit)
  }

  /** The unit that `event` changes, whose watch ends with it; undefined if it changes none. */
  take(event: ProcessEvent): { readonly unit: string; readonly change: UnitChange } | undefined {
    if (event.kind === 'fork') {
      const parent = this.#unitOf.get(event.parent)
      // A pid that is used again is no longer the process it was.
      this.#remove(event.child)
      if (parent !== undefined) this.#add(parent, event.child)
      return undefined
    }
    const unit = this.#unitOf.get(event.pid)
    if (unit === undefined) return undefined
    this.forget(unit)
    return { unit, change: event.kind }
  }

  /** Every unit that is watched: what happened meanwhile is not known of any. */
  takeAll(): string[] {
    const units = [...this.#processesOf.keys()]
    this.#unitOf.clear()
    this.#processesOf.clear()
    return units
  }

  #add(unit: string, pid: number): void {
    if (this.#unitOf.size >= MAX_PROCESSES) return
    this.#unitOf.set(pid, unit)
    this.#processesOf.get(unit)?.add(pid)
  }

  #remove(pid: number): void {
    const unit = this.#unitOf.get(pid)
    if (unit === undefined) return
    this.#unitOf.delete(pid)
    this.#processesOf.get(unit)?.delete(pid)
  }
}
