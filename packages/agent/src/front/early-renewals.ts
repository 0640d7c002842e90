// What the measurer says unasked: a unit changed since it was measured. Its processes' credentials are renewed at
// once and not at half of their lives, so that what the change made of the bag is judged now. A unit that
// executes all the time gets this a few times a minute; its interval holds as ever.
import type { UnitChangedNotice } from '../measure/protocol.ts'

/** Least time between two early renewals of one unit. */
const MIN_INTERVAL_MS = 5000
const MAX_UNITS = 4096

/** What can be renewed early: the sessions of some processes. */
export interface EarlyRenewable {
  of(
    pids: ReadonlySet<number>,
  ): Iterable<{ renewWithin(delayMs: number, atLeastMs?: number): void }>
}

/** Renews what processes of changed units hold. */
export class EarlyRenewals {
  readonly #now: () => number
  readonly #renewables = new Set<EarlyRenewable>()
  readonly #last = new Map<string, number>()

  constructor(now: () => number) {
    this.#now = now
  }

  /** Adds sessions to what is renewed. */
  add(renewable: EarlyRenewable): void {
    this.#renewables.add(renewable)
  }

  hear({ cgroup, pids }: UnitChangedNotice): void {
    const now = this.#now()
    const last = this.#last.get(cgroup) ?? -Infinity
    // While one is still to come, what it finds includes this change; at most five seconds, never more.
    const delayMs = last > now ? last - now : Math.max(0, last + MIN_INTERVAL_MS - now)
    this.#last.delete(cgroup)
    this.#last.set(cgroup, now + delayMs)
    const [oldest] = this.#last.keys()
    if (this.#last.size > MAX_UNITS && oldest !== undefined) this.#last.delete(oldest)
    const wanted = new Set(pids)
    for (const sessions of this.#renewables)
      for (const session of sessions.of(wanted)) session.renewWithin(0, delayMs)
  }
}
