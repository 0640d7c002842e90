// What one measurement may cost. A unit that is too much to measure is one that nobody has measured: it gets an
// error with a reason, and never keeps the thread that others wait for.
import { AgentError } from '../error.ts'

/** Most bytes hashed for one measurement, beyond what is remembered. */
const MAX_BYTES = 4n * 1024n ** 3n
/** Of all processes of a unit. */
const MAX_MAPPINGS = 200_000
const MAX_DESCRIPTORS = 200_000
/** Less than what the front waits, so that the reason comes from here. */
const MAX_MS = 10_000

/** Goes down as a measurement works. */
export class Budget {
  #bytes: bigint
  #mappings = MAX_MAPPINGS
  #descriptors = MAX_DESCRIPTORS
  readonly #now: () => number
  readonly #deadline: number

  /** @param now milliseconds of a clock that never goes back */
  constructor(now: () => number = () => performance.now(), bytes: bigint = MAX_BYTES) {
    this.#now = now
    this.#bytes = bytes
    this.#deadline = now() + MAX_MS
  }

  /** @throws {AgentError} MEASUREMENT_LIMIT */
  spendBytes(count: bigint): void {
    this.#bytes -= count
    if (this.#bytes < 0n) throw tooMuch(`too much to hash: a file of ${count} bytes`)
    this.checkTime()
  }

  /** @throws {AgentError} MEASUREMENT_LIMIT */
  spendMappings(count: number): void {
    this.#mappings -= count
    if (this.#mappings < 0) throw tooMuch(`expected at most ${MAX_MAPPINGS} mappings in a unit`)
    this.checkTime()
  }

  /** @throws {AgentError} MEASUREMENT_LIMIT */
  spendDescriptors(count: number): void {
    this.#descriptors -= count
    if (this.#descriptors < 0)
      throw tooMuch(`expected at most ${MAX_DESCRIPTORS} descriptors in a unit`)
    this.checkTime()
  }

  /** @throws {AgentError} MEASUREMENT_LIMIT */
  checkTime(): void {
    if (this.#now() > this.#deadline)
      throw tooMuch(`expected a unit that can be measured within ${MAX_MS} ms`)
  }
}

function tooMuch(message: string): AgentError {
  return new AgentError('MEASUREMENT_LIMIT', message)
}
