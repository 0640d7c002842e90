// What an operator watches, in the Prometheus text format 0.0.4. That renewals stop is to be seen here and not
// only in what they kept alive: `last_success` is per unit and audience, and goes on growing old.
//
// Series are bounded by what is approved, not by what is asked for: a unit and an audience become one only once
// the broker issued for them, codes are counted in outcomes.ts. Units of which no process runs are left out.
import { describe } from '../log.ts'
import type { ProcessInstance, SettledMeasurement } from '../measure/messages.ts'
import type { Outcomes } from './outcomes.ts'

const BUCKETS_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const PREFIX = 'bagcheck_agent'

/** Counts measurements and how long they take. */
export class MeasureMetrics {
  readonly #buckets = BUCKETS_SECONDS.map(() => 0)
  readonly #failures = new Map<string, number>()
  #sumSeconds = 0
  #count = 0

  /** `measure`, counted. */
  timed(
    measure: (instance: ProcessInstance) => Promise<SettledMeasurement>,
  ): (instance: ProcessInstance) => Promise<SettledMeasurement> {
    return async (instance) => {
      const start = performance.now()
      try {
        return await measure(instance)
      } catch (error) {
        const { code } = describe(error) // from our own closed union
        this.#failures.set(code, (this.#failures.get(code) ?? 0) + 1)
        throw error
      } finally {
        this.#observe((performance.now() - start) / 1000)
      }
    }
  }

  lines(): string[] {
    const name = `${PREFIX}_measure_seconds`
    return [
      ...head(name, 'histogram', 'How long a measurement takes, waiting for a thread included'),
      ...BUCKETS_SECONDS.map((bound, n) => `${name}_bucket{le="${bound}"} ${this.#buckets[n]}`),
      `${name}_bucket{le="+Inf"} ${this.#count}`,
      `${name}_sum ${this.#sumSeconds}`,
      `${name}_count ${this.#count}`,
      ...counters('measure_failures_total', 'Measurements that failed', this.#failures),
    ]
  }

  #observe(seconds: number): void {
    this.#sumSeconds += seconds
    this.#count += 1
    BUCKETS_SECONDS.forEach((bound, n) => {
      if (seconds <= bound) this.#buckets[n]! += 1 // as many as there are bounds
    })
  }
}

/** Where the numbers come from. */
export interface MetricsContext {
  readonly outcomes: Pick<Outcomes, 'successes' | 'byCode' | 'issued'>
  readonly measurements: MeasureMetrics
  readonly measurer: () => { readonly up: boolean; readonly waiting: number }
  readonly sessions: () => { readonly size: number; readonly held: number }
  readonly policyVersion: () => number
  /** Seconds since the epoch. */
  readonly enrolmentExpiresAt: number
  /** Further lines, of parts that are not always there. */
  readonly more: () => readonly string[]
  readonly now: () => number
}

/** The whole exposition. */
export function metricsText(context: MetricsContext): string {
  const { outcomes, measurements, now } = context
  const { size, held } = context.sessions()
  const { up, waiting } = context.measurer()
  const successes = outcomes.successes().map(({ unit, audience, at }) => ({
    labels: labels({ launcher: unit.launcher, unit: unit.name, audience: audience ?? 'x509-svid' }),
    at: at / 1000,
  }))
  const last = `${PREFIX}_last_success_seconds`
  const age = `${PREFIX}_last_success_age_seconds`
  const lines = [
    ...head(last, 'gauge', 'When a unit that runs last got a credential for an audience'),
    ...successes.map(({ labels: of, at }) => `${last}${of} ${at}`),
    ...head(age, 'gauge', 'The same as an age'),
    ...successes.map(({ labels: of, at }) => `${age}${of} ${Math.max(now() / 1000 - at, 0)}`),
    ...head(`${PREFIX}_issued_total`, 'counter', 'Credentials had'),
    `${PREFIX}_issued_total ${outcomes.issued}`,
    ...counters('denied_total', 'Requests that came to nothing, by code', outcomes.byCode),
    ...measurements.lines(),
    ...gauge('tokens_held', 'Tokens that are held', held),
    ...gauge('instances', 'Process instances with sessions', size),
    ...gauge('measurer_up', '1 while the measurer can be asked', up ? 1 : 0),
    ...gauge('measurer_waiting', 'Questions that wait for the measurer', waiting),
    ...gauge('policy_version', 'Policy version last read', context.policyVersion()),
    ...gauge(
      'enrolment_expires_seconds',
      "Seconds until the node's enrolment expires",
      Math.round(context.enrolmentExpiresAt - now() / 1000),
    ),
    ...context.more(),
  ]
  return `${lines.join('\n')}\n`
}

/** A counter with label `code`. */
export function counters(
  name: string,
  help: string,
  values: ReadonlyMap<string, number>,
): string[] {
  const full = `${PREFIX}_${name}`
  const sorted = [...values].toSorted(([a], [b]) => (a < b ? -1 : 1))
  return [
    ...head(full, 'counter', help),
    ...sorted.map(([code, value]) => `${full}${labels({ code })} ${value}`),
  ]
}

/** A gauge without labels. */
export function gauge(name: string, help: string, value: number): string[] {
  const full = `${PREFIX}_${name}`
  return [...head(full, 'gauge', help), `${full} ${value}`]
}

/** The label part of a series. */
export function labels(values: Readonly<Record<string, string>>): string {
  const escape = (text: string): string =>
    text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
  return `{${Object.entries(values)
    .map(([name, value]) => `${name}="${escape(value)}"`)
    .join(',')}}`
}

function head(name: string, type: string, help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}
