// What came of every request for a credential: when each unit last got one, and why it did not. From here the
// metrics are read, `bagcheck explain PID` is answered, and whoever has to act on a denial hears of it.
//
// A denial that is about the bag is one of the whole unit: what was handed out for another audience was earned
// by the same bag. A denial that is about its audience alone (a stronger check, another profile) is not. In
// doubt it is the bag: what is dropped wrongly is measured again at once, and had again.
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { instanceKey, isRunning } from '../measure/instance.ts'
import type { ProcessInstance, UnitFacts } from '../measure/messages.ts'
import { BrokerProblem } from './broker-client.ts'
import { denialKey } from './denials.ts'
import type { IssueRequest } from './issue.ts'
import { offenceOf, type Offence } from './offence.ts'
import { isTransient, refusalOf, type Refusal } from './problem.ts'
import { redactDenial } from './redact.ts'
import type { Evidence } from '@bagcheck/api'

/** Reasons that speak against one audience only. */
const AUDIENCE_CODES: ReadonlySet<string> = new Set([
  ...['AUDIENCE_NOT_ALLOWED', 'ROLE_AMBIGUOUS', 'PROFILE_MISMATCH', 'TOKEN_TYPE_MISMATCH'],
  ...['KEY_REQUIRED', 'TIER_TOO_LOW', 'STRENGTH_TOO_LOW', 'FULL_CHECK_TOO_OLD'],
  ...['EVIDENCE_AUDIENCE', 'EVIDENCE_WORKLOAD_KEY'],
])
/** What says nothing about the unit: the request was wrong, or met a broker with another nonce key. */
const REQUEST_CODES = /^(REQUEST_|DPOP_|NONCE_|PROCESS_(MOVED|GONE)$|PEER_UNKNOWN$)/

const MAX_DENIALS_KEPT = 64
const MAX_SUCCESSES = 1024
const MAX_INSTANCES = 8192
/** Codes come from the broker: so many series and no more. */
const MAX_CODES = 256
const SAVE_DELAY_MS = 1000

/** A unit, as logs and metrics name it. */
export type UnitName = Pick<UnitFacts, 'launcher' | 'name' | 'cgroup'>

/** Why nothing was issued. */
export interface Denial {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly pid: number
  readonly startTicks: number
  /** Null if the process could not be measured. */
  readonly unit: UnitName | null
  readonly audience: string | null
  readonly code: string
  readonly message: string
  /** Of the broker's log; null where the agent could not state the facts. */
  readonly decision: string | null
  readonly reasons: NonNullable<Refusal['problem']['reasons']>
  readonly offence: Offence | null
}

/** When a unit last got a credential for an audience. */
export interface Success {
  readonly unit: UnitName
  readonly audience: string | null
  readonly at: number
  readonly decision: string
  readonly logIndex: number
  readonly instance: ProcessInstance
}

/** A denial that is about the bag: nothing may be handed out to whom it concerns. */
export interface InstanceDenied {
  /** Whose request was denied, as it was made. */
  readonly request: IssueRequest
  readonly refusal: Refusal
  readonly denial: Denial
  /** True for the instance itself, and for others that were last measured in the same unit. */
  readonly concerns: (instance: ProcessInstance) => boolean
}

/** What a request had come to when it ended. */
export interface Stated {
  unit?: UnitFacts
  facts?: Evidence['facts']
}

/** Where denials outlive the agent. */
export interface OutcomesStore {
  /** What was saved last, newest first. */
  readonly denials: readonly Denial[]
  readonly save: (denials: readonly Denial[]) => void
}

/** Outcomes of one agent. */
export class Outcomes implements Disposable {
  readonly #store: OutcomesStore
  readonly #now: () => number
  readonly #log: Log
  readonly #listeners = new Set<(event: InstanceDenied) => void>()
  // Newest first; saved a little later, all at once.
  #denials: readonly Denial[]
  #saving: NodeJS.Timeout | undefined
  // By unit and audience; by instance.
  readonly #successes = new Map<string, Success>()
  readonly #last = new Map<string, { readonly success: Success } | { readonly denial: Denial }>()
  readonly #unitOf = new Map<string, string>()
  readonly #codes = new Map<string, number>()
  #issued = 0

  constructor(store: OutcomesStore, now: () => number, log: Log) {
    this.#store = store
    this.#denials = store.denials
    this.#now = now
    this.#log = log
  }

  /** Credentials had since the start. */
  get issued(): number {
    return this.#issued
  }

  /** Denials and failures since the start, by code. */
  get byCode(): ReadonlyMap<string, number> {
    return this.#codes
  }

  /** The newest denials, newest first. */
  get denials(): readonly Denial[] {
    return this.#denials
  }

  /** The last successes of units of which a process still runs. */
  successes(): readonly Success[] {
    for (const [key, { instance }] of this.#successes)
      if (!isRunning(instance)) this.#successes.delete(key)
    return [...this.#successes.values()]
  }

  /** What came of the instance's last request. */
  lastOf(instance: ProcessInstance): { success: Success } | { denial: Denial } | undefined {
    return this.#last.get(instanceKey(instance))
  }

  /** What came last of a request out of `unit`, whichever process asked. */
  ofUnit(unit: UnitFacts): { success: Success } | { denial: Denial } | undefined {
    if (unit.launcher === 'none') return undefined
    const key = denialKey(unit)
    return [...this.#last].findLast(([instance]) => this.#unitOf.get(instance) === key)?.[1]
  }

  /** True while nothing was had since `denial` by the unit that it is about. */
  isDenied({ unit, at }: Denial): boolean {
    if (unit === null) return true
    return ![...this.#successes.values()].some(
      (success) =>
        denialKey({ ...success.unit, contract: null, container: null, service: null }) ===
          denialKey({ ...unit, contract: null, container: null, service: null }) && success.at > at,
    )
  }

  /** Calls `listener` at each denial that is about a bag. Returns what ends that. */
  subscribe(listener: (event: InstanceDenied) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A request was found to come out of `unit`: from now on a denial of that unit concerns what is under way, too. */
  measured({ instance }: IssueRequest, unit: UnitFacts): void {
    this.#place(instance, unit)
  }

  /** A credential was had. */
  succeeded(
    { instance, audience }: IssueRequest,
    { unit }: Stated,
    { decision, logIndex }: { decision: string; logIndex: number },
  ): void {
    this.#issued += 1
    if (unit === undefined) return
    this.#place(instance, unit)
    const success: Success = {
      ...{ unit: nameOf(unit), audience, at: this.#now(), decision, logIndex },
      instance,
    }
    keep(this.#successes, `${denialKey(unit)} ${audience}`, success, MAX_SUCCESSES)
    keep(this.#last, instanceKey(instance), { success }, MAX_INSTANCES)
  }

  /** Nothing was had. */
  failed(request: IssueRequest, { unit, facts }: Stated, error: unknown): void {
    const { instance, audience } = request
    const refusal = refusalOf(error)
    const { code, error_description: message, decision = null, reasons = [] } = refusal.problem
    this.#count(code)
    if (unit !== undefined) this.#place(instance, unit)
    if (isTransient(error)) return
    const denial: Denial = {
      ...{ at: this.#now(), pid: instance.pid, startTicks: instance.startTicks },
      unit: unit === undefined ? null : nameOf(unit),
      ...{ audience, code, message, decision, reasons },
      offence:
        error instanceof BrokerProblem && facts !== undefined
          ? offenceOf(error.problem, facts)
          : null,
    }
    this.#denials = [denial, ...this.#denials].slice(0, MAX_DENIALS_KEPT)
    this.#saving ??= setTimeout(() => this.#save(), SAVE_DELAY_MS).unref()
    keep(this.#last, instanceKey(instance), { denial }, MAX_INSTANCES)
    if (isAboutBag(refusal)) this.#tell({ request, refusal, denial, concerns: this.#who(instance) })
  }

  [Symbol.dispose](): void {
    if (this.#saving !== undefined) this.#save()
    this.#listeners.clear()
  }

  #tell(event: InstanceDenied): void {
    const { pid, unit, audience, code, decision, offence } = redactDenial(event.denial)
    this.#log('warn', 'unit denied', {
      ...{ pid, unit: unit?.name ?? null, cgroup: unit?.cgroup ?? null, audience, code, decision },
      offence,
    })
    for (const listener of this.#listeners) listener(event)
  }

  #who(instance: ProcessInstance): (other: ProcessInstance) => boolean {
    const key = instanceKey(instance)
    const unit = this.#unitOf.get(key)
    return (other) => {
      const otherKey = instanceKey(other)
      return otherKey === key || (unit !== undefined && this.#unitOf.get(otherKey) === unit)
    }
  }

  /** Callers without a unit share nothing, though they are counted together. */
  #place(instance: ProcessInstance, unit: UnitFacts): void {
    const key = instanceKey(instance)
    if (unit.launcher === 'none') this.#unitOf.delete(key)
    else keep(this.#unitOf, key, denialKey(unit), MAX_INSTANCES)
  }

  #count(code: string): void {
    const known = this.#codes.has(code) || this.#codes.size < MAX_CODES
    const label = known && /^[A-Z][A-Z0-9_]{0,63}$/.test(code) ? code : 'OTHER'
    this.#codes.set(label, (this.#codes.get(label) ?? 0) + 1)
  }

  #save(): void {
    clearTimeout(this.#saving)
    this.#saving = undefined
    try {
      this.#store.save(this.#denials)
    } catch (error) {
      // The log has each of them; a full disk must not keep tokens from being dropped.
      this.#log('warn', 'denials not written down', describe(error))
    }
  }
}

/** True unless every reason speaks against the audience, or against the request, alone. */
export function isAboutBag({ status, problem }: Refusal): boolean {
  const { code, reasons = [] } = problem
  if (status === 429 || status >= 500 || REQUEST_CODES.test(code)) return false
  const codes = reasons.length === 0 ? [code] : reasons.map((reason) => reason.code)
  return !codes.every((one) => AUDIENCE_CODES.has(one))
}

/** Denials out of the file that they were saved in. @throws {AgentError} STATE_INVALID */
export function parseDenials(text: string | undefined): readonly Denial[] {
  if (text === undefined) return []
  try {
    const { schema, denials } = JSON.parse(text) as { schema?: unknown; denials?: unknown }
    if (schema === DENIALS_SCHEMA && Array.isArray(denials)) return denials as Denial[] // ours, 0600
  } catch (cause) {
    throw new AgentError('STATE_INVALID', 'expected denials as JSON', { cause })
  }
  throw new AgentError('STATE_INVALID', `expected denials of schema ${DENIALS_SCHEMA}`)
}

/** What {@link parseDenials} reads. */
export function formatDenials(denials: readonly Denial[]): string {
  return JSON.stringify({ schema: DENIALS_SCHEMA, denials })
}

const DENIALS_SCHEMA = 'bagcheck.denials/v1'

const nameOf = ({ launcher, name, cgroup }: UnitFacts): UnitName => ({ launcher, name, cgroup })

/** Puts `value` last and forgets the first if there are too many. */
function keep<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key)
  map.set(key, value)
  const oldest = map.keys().next().value
  if (map.size > max && oldest !== undefined) map.delete(oldest)
}
