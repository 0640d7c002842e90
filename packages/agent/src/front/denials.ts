// Every denial is an entry of the log for ever, and everybody on the host may ask. So denials of one unit
// are let through to the broker a few at a time, then one a minute: as often as a session asks again by
// itself. Renewals are never held back: their process held a token a moment ago.
import { AgentError } from '../error.ts'
import type { UnitFacts } from '../measure/messages.ts'
import { RateLimit } from './rate-limit.ts'

const BURST = 32
const PER_SECOND = 1 / 60

/**
 * Whose denials are counted together: those of a unit, whose cgroup nobody in it can choose. Without a unit
 * nobody ever gets a token, so all such callers are counted as one; by user they would not be bounded,
 * since subordinate ids give one user 65,536 of them.
 */
export function denialKey({ launcher, cgroup }: UnitFacts): string {
  return launcher === 'none' ? 'none' : `${launcher} ${cgroup}`
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
