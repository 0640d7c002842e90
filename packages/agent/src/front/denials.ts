// Every denial is an entry of the log for ever, and everybody on the host may ask. So denials of one user
// in one unit are let through to the broker a few at a time, then one a minute: as often as a session asks
// again by itself. Renewals are not counted: their process held a token a moment ago.
import { AgentError } from '../error.ts'
import type { UnitFacts } from '../measure/messages.ts'
import { RateLimit } from './rate-limit.ts'

const BURST = 32
const PER_SECOND = 1 / 60

/** Whose denials are counted together. A user without a unit of its own is one, however many processes. */
export function denialKey(unit: UnitFacts, uid: number): string {
  return unit.launcher === 'none' ? `none ${uid}` : `${unit.launcher} ${unit.cgroup} ${uid}`
}

/** Denials lately, by {@link denialKey}. */
export class Denials {
  readonly #limit: RateLimit
  readonly #last = new Map<string, string>()

  constructor(now: () => number) {
    this.#limit = new RateLimit(BURST, PER_SECOND, now)
  }

  /** @throws {AgentError} REQUEST_LIMIT – denied too often lately */
  check(key: string): void {
    if (this.#limit.has(key)) return
    throw new AgentError(
      'REQUEST_LIMIT',
      `denied ${BURST} times lately, last with ${this.#last.get(key) ?? 'a denial'}: ` +
        'mend that, and ask again in a minute',
    )
  }

  /** The broker said no. */
  count(key: string, code: string): void {
    this.#limit.take(key)
    this.#last.delete(key)
    this.#last.set(key, code)
    const oldest = this.#last.keys().next().value
    if (this.#last.size > 10_000 && oldest !== undefined) this.#last.delete(oldest)
  }
}
