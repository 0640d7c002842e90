// Time as the broker may rely on it. A wall clock that is set back would bring expired policies,
// nonces and evidence back to life, so nothing is minted until it has caught up with what was seen.
import { BrokerError } from './error.ts'

/** A step back beyond this is refused; less is ordinary clock discipline. */
export const MAX_STEP_BACK_MS = 5000

/** Milliseconds since the epoch. */
export type WallClock = () => number

/** Remembers the latest time seen. */
export class ClockGuard {
  readonly #wall: WallClock
  #latestMs: number

  /** `latestMs` is the newest time known from before this start, such as that of the last decision. */
  constructor(wall: WallClock, latestMs = 0) {
    this.#wall = wall
    this.#latestMs = latestMs
  }

  /** What the wall clock says, in milliseconds, right or wrong: for display, never for a decision. */
  wallMs(): number {
    return this.#wall()
  }

  /**
   * The present time in milliseconds.
   * @throws {BrokerError} CLOCK_STEPPED_BACK – more than 5 s before the latest time seen
   */
  nowMs(): number {
    const now = this.#wall()
    if (now < this.#latestMs - MAX_STEP_BACK_MS)
      throw new BrokerError(
        'CLOCK_STEPPED_BACK',
        `expected the clock to go forward, saw it ${Math.round((this.#latestMs - now) / 1000)} s before the latest time seen`,
      )
    if (now > this.#latestMs) this.#latestMs = now
    return now
  }
}
