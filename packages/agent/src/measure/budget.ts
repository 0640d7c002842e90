// What one measurement may cost. A unit that is too much to measure is one that nobody has measured: it gets an
// error with a reason, and never keeps the thread that others wait for.
import { AgentError } from '../error.ts'

/** Most bytes hashed for one unit at once, beyond what is remembered, and how fast it may go on. */
const MAX_BYTES = 4n * 1024n ** 3n
const BYTES_PER_MS = 256n * 1024n
/** Of all processes of a unit. */
const MAX_MAPPINGS = 200_000
const MAX_DESCRIPTORS = 100_000
/** Less than what whoever asked waits, so that the reason comes from here. */
const MAX_MS = 10_000

/** Units remembered; those that were not asked about for longest start anew. */
const MAX_UNITS = 4096

/**
 * What may be hashed for each unit, in a while as well as at once: files outside the store are read again at each
 * measurement, and a unit may ask as often as it likes.
 */
export class HashAllowances {
  readonly #units = new Map<string, { left: bigint; at: number }>()
  readonly #now: () => number

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Bytes that may be hashed for `unit` now. */
  left(unit: string): bigint {
    const known = this.#units.get(unit)
    if (known === undefined) return MAX_BYTES
    const regained = BigInt(Math.floor(this.#now() - known.at)) * BYTES_PER_MS
    return known.left + regained < MAX_BYTES ? known.left + regained : MAX_BYTES
  }

  /** Takes what was hashed for `unit` off what it may have next. */
  spend(unit: string, bytes: bigint): void {
    const left = this.left(unit) - bytes
    this.#units.delete(unit)
    if (left < MAX_BYTES) this.#units.set(unit, { left, at: this.#now() })
    const oldest = this.#units.keys().next().value
    if (this.#units.size > MAX_UNITS && oldest !== undefined) this.#units.delete(oldest)
  }
}

/** Goes down as a measurement works. */
export class Budget {
  #bytes = MAX_BYTES
  #spent = 0n
  #mappings = MAX_MAPPINGS
  #descriptors = MAX_DESCRIPTORS
  readonly #now: () => number
  readonly #deadline: number

  /** @param now milliseconds of a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#deadline = now() + MAX_MS
  }

  /** Bytes hashed so far. */
  get spentBytes(): bigint {
    return this.#spent
  }

  /** Lets at most `bytes` be hashed in all. */
  limitBytes(bytes: bigint): void {
    this.#bytes = bytes
  }

  /** @throws {AgentError} MEASUREMENT_LIMIT */
  spendBytes(count: bigint): void {
    if (this.#spent + count > this.#bytes)
      throw tooMuch(`too much to hash: a file of ${count} bytes`)
    this.#spent += count
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
