// Observation: units that the policy names with `observe: true` are measured on the agent's own schedule, whether
// they call us or not, and the broker logs what it would have decided. Nothing is issued, held or dropped for it:
// what is stated here has a type and a purpose that no exchange takes.
//
// One unit after the other, each round from another start and for another of its audiences, so that all have their
// turn; what the broker refuses for being too much waits for the next round. It takes a measuring thread for a
// moment and no more than one, so that whoever asks is not kept waiting.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Observation, ObservationResponse } from '@bagcheck/api'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { isRunning, sameInstance } from '../measure/instance.ts'
import type { ProcessInstance, UnitFacts } from '../measure/messages.ts'
import { BrokerProblem } from './broker-client.ts'
import type { IssueContext } from './issue.ts'
import { signJws } from './jws.ts'
import type { Measurers } from './measurer-client.ts'
import { counters, labels } from './metrics.ts'
import type { ObservedUnit } from './policy-view.ts'
import { redactText } from './redact.ts'

/** Observations in one round; a broker takes 64 a minute of one node. */
const MAX_PER_ROUND = 60
const MAX_REMEMBERED = 1024
const BETWEEN_MS = 50

/** What was last observed of a process. */
export interface LastObservation {
  readonly instance: ProcessInstance
  readonly launcher: UnitFacts['launcher']
  readonly unit: string
  readonly audience: string
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly said: ObservationResponse
}

/** What observing needs. */
export interface ObserveContext {
  readonly issuing: Pick<
    IssueContext,
    | ('node' | 'key' | 'state' | 'broker' | 'roots' | 'installation' | 'issuer' | 'trustRootPin')
    | ('measure' | 'check' | 'agent' | 'now')
  >
  readonly measurer: Pick<Measurers, 'find'>
  readonly intervalMs: number
  readonly random: () => number
  readonly log: Log
}

/** Observes until it is disposed of. */
export class Observer implements AsyncDisposable {
  readonly #context: ObserveContext
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  // By unit and audience.
  readonly #last = new Map<string, LastObservation>()
  readonly #verdicts = new Map<string, number>()
  #round = 0

  constructor(context: ObserveContext) {
    this.#context = context
    this.#running = context.intervalMs > 0 ? this.#run() : Promise.resolve()
  }

  /** What was last observed of `instance`, for whatever audience. */
  lastOf(instance: ProcessInstance): LastObservation | undefined {
    return [...this.#last.values()].findLast((one) => sameInstance(one.instance, instance))
  }

  /** Lines of the metrics. */
  lines(): string[] {
    for (const [key, { instance }] of this.#last) if (!isRunning(instance)) this.#last.delete(key)
    const name = 'bagcheck_agent_observed_would_allow'
    const series = [...this.#last.values()].map(
      ({ launcher, unit, audience, said }) =>
        `${name}${labels({ launcher, unit, audience })} ${said.would_allow ? 1 : 0}`,
    )
    return [
      `# HELP ${name} 1 if an observed unit would have got a token, when last looked at`,
      `# TYPE ${name} gauge`,
      ...series,
      ...counters('observations_total', 'Observations by what came of them', this.#verdicts),
    ]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { intervalMs, random, log } = this.#context
    const { signal } = this.#stopping
    // Hosts that started together do not observe together.
    const pause = (milliseconds: number): Promise<unknown> =>
      sleep(milliseconds, undefined, { signal, ref: false }).catch(() => undefined)
    for (
      let delayMs = intervalMs * random() * 0.2;
      ;
      delayMs = intervalMs * (0.8 + 0.4 * random())
    ) {
      await pause(delayMs)
      if (signal.aborted) return
      try {
        await this.#observeAll(pause)
      } catch (error) {
        log('info', 'nothing observed', describe(error))
      }
    }
  }

  async #observeAll(pause: (milliseconds: number) => Promise<unknown>): Promise<void> {
    const { issuing, measurer, log } = this.#context
    // The nonce is left to expire: what was wanted is the version of the policy.
    const { policyVersion } = await issuing.broker.challenge(issuing.node.node, 'observe')
    await issuing.roots.refreshPolicy(policyVersion)
    const units = issuing.roots.observed
    const start = units.length === 0 ? 0 : this.#round % units.length
    this.#round += 1
    let left = MAX_PER_ROUND
    for (const unit of [...units.slice(start), ...units.slice(0, start)]) {
      const failed = (error: unknown): void => {
        const { code, ...said } = describe(error)
        this.#count(code)
        log('info', 'not observed', { unit: unit.name, code, ...said })
        if (error instanceof BrokerProblem && error.status === 429) left = 0
      }
      const instances = await measurer.find(unit).catch((error: unknown) => (failed(error), []))
      if (left <= 0) return
      // Of containers many have one name, and what is wrong with one says nothing of the others.
      for (const instance of instances) {
        if (left-- <= 0 || this.#stopping.signal.aborted) return
        await this.#observe(unit, instance).catch(failed)
        await pause(BETWEEN_MS)
      }
    }
  }

  async #observe(unit: ObservedUnit, instance: ProcessInstance): Promise<void> {
    const { issuing, log } = this.#context
    const audience = unit.audiences[this.#round % unit.audiences.length]
    if (audience === undefined) return
    const { name, observation } = await state(issuing, instance, audience)
    const said = await issuing.broker.observe(observation)
    const { launcher } = unit
    const key = `${launcher} ${name} ${audience}`
    this.#last.delete(key)
    this.#last.set(key, {
      ...{ instance, launcher, unit: name, audience, said },
      at: issuing.now(),
    })
    const oldest = this.#last.keys().next().value
    if (this.#last.size > MAX_REMEMBERED && oldest !== undefined) this.#last.delete(oldest)
    const [first] = said.reasons
    this.#count(said.would_allow ? 'WOULD_ALLOW' : (first?.code ?? 'OTHER'))
    log(said.would_allow ? 'info' : 'warn', 'observed', {
      ...{ unit: name, pid: instance.pid, audience, wouldAllow: said.would_allow },
      ...{
        code: first?.code ?? null,
        error: first ? redactText(first.message) : null,
        observation: said.id,
      },
    })
  }

  #count(verdict: string): void {
    const label = this.#verdicts.has(verdict) || this.#verdicts.size < 256 ? verdict : 'OTHER'
    this.#verdicts.set(label, (this.#verdicts.get(label) ?? 0) + 1)
  }
}

/** What runs, signed, with the unit's name, and no wish. The order is that of issue.ts: the facts are fresher than the nonce. */
async function state(
  context: ObserveContext['issuing'],
  instance: ProcessInstance,
  audience: string,
): Promise<{ readonly name: string; readonly observation: string }> {
  const { broker, roots, node, key, now } = context
  const challenge = await broker.challenge(node.node, 'observe')
  const measurement = await context.measure(instance)
  if (measurement.unit.launcher === 'none')
    throw new AgentError('PROCESS_MOVED', `process ${instance.pid} left its unit`)
  const fitting = await roots.fitting(measurement, audience)
  await context.check(instance)
  const { startStack: _ours, ...stated } = instance
  const observation: Observation = {
    schema: 'bagcheck.observation/v1',
    iss: node.node,
    aud: context.issuer,
    installation: context.installation,
    trustRoot: context.trustRootPin as Observation['trustRoot'],
    iat: Math.floor(now() / 1000),
    nonce: challenge.nonce,
    counter: context.state.nextCounter(),
    instance: stated,
    facts: {
      audience,
      ttlSeconds: null,
      purpose: 'observe',
      callerPid: instance.pid,
      unit: measurement.unit,
      processes: [...measurement.processes],
      roots: fitting,
    },
    host: measurement.host,
    agent: await context.agent(),
  }
  const header = { typ: 'bagcheck-observation+jwt', kid: key.thumbprint }
  return { name: measurement.unit.name, observation: signJws(header, observation, key) }
}
