// One process instance and one audience: the state machine that keeps a credential fresh.
//
//            ask                     TTL/2 ± 10 %
//   idle ──────────► issuing ──► holding ──────────► renewing ──► holding …
//                       │           │ ▲                 │
//                       │ denied    │ └── retry until ──┤ transient
//                       ▼           ▼      expiry       ▼ denied
//                    refused ◄──────────────────────────┘
//                       └── back-off 1 s … 60 s, then issuing
//
// A denial drops the token at once. A broker that cannot be reached does not: the token lives out its life
// while the agent retries through its second half. What follows a denial is an issue, never a renewal.
// A denial of the bag for one audience drops the tokens of all: their sessions measure anew at once.
// Without a watcher, and without ever having held a token, a refused session waits to be asked again.
//
// A session of X.509-SVIDs is for its watchers alone, because of the private key: what comes is told to those
// who watch then, wiped, and told to nobody later. The session ends with its last watcher.
import type { Credential, IssuedToken } from './issue.ts'
import { DeniedElsewhere, isTransient, refusalOf, type Refusal } from './problem.ts'

/** What a watcher hears. */
export type SessionEvent<C extends Credential = IssuedToken> =
  | { readonly kind: 'token'; readonly token: Held<C> }
  | { readonly kind: 'denied'; readonly refusal: Refusal }

/** A credential and how it came about. */
export type Held<C extends Credential> = C & {
  /** True if it continues an earlier one without a break. */
  readonly renewed: boolean
}
export type HeldToken = Held<IssuedToken>

interface Watcher<C extends Credential> {
  readonly hear: (event: SessionEvent<C>) => void
  readonly end: () => void
}

/** What a caller asks of its session. */
export interface Ask {
  readonly ttlSeconds: number | null
  /** Null leaves it to the policy. */
  readonly profile: string | null
  readonly workloadKey: string | null
}

/** What a session works with; time and chance come from outside. */
export interface SessionContext<C extends Credential> {
  /** Measures and exchanges; throws what {@link refusalOf} understands. */
  readonly issue: (ask: Ask & { previousDecision: string | null }) => Promise<C>
  /** Wipes what everybody has heard of: the session is for its watchers alone. */
  readonly wipe?: (credential: C) => void
  readonly now: () => number
  /** In [0, 1). */
  readonly random: () => number
  /** Runs `action` later and returns what cancels it. */
  readonly schedule: (action: () => void, delayMs: number) => () => void
}

const FIRST_BACKOFF_MS = 1000
const MAX_BACKOFF_MS = 60_000
const MIN_RETRY_MS = 250
const MAX_RETRY_MS = 10_000

/** The members of a token that a caller sees, in this order. */
export function tokenBody(token: HeldToken): HeldToken {
  const { accessToken, tokenType, expiresAt, audience, decision, logIndex, renewed } = token
  return { accessToken, tokenType, expiresAt, audience, decision, logIndex, renewed }
}

/** Keeps at most one request under way. */
export class Session<C extends Credential = IssuedToken> {
  readonly #context: SessionContext<C>
  readonly #watchers = new Set<Watcher<C>>()
  // What was asked last, what is held, why nothing is.
  #ask: Ask = { ttlSeconds: null, profile: null, workloadKey: null }
  #token: Held<C> | undefined
  #refusal: Refusal | undefined
  #everHeld = false
  // The request under way, the next one, and refusals in a row.
  #running: Promise<Held<C>> | undefined
  #cancelTimer: () => void = () => undefined
  /** When the next one is due. */
  #dueMs = Infinity
  #refusals = 0
  #ended = false
  // A denial elsewhere while a request is under way: what that brings was earned before it.
  #spoilt: Refusal | undefined

  constructor(context: SessionContext<C>) {
    this.#context = context
  }

  /** The token, unless it has expired. */
  get token(): Held<C> | undefined {
    if (this.#token !== undefined && this.#token.expiresAt * 1000 <= this.#context.now())
      this.#token = undefined
    return this.#token
  }

  /** True if nobody would miss it: no token, no watcher, nothing under way. */
  get isIdle(): boolean {
    const busy = this.#running !== undefined || this.#watchers.size > 0
    return !busy && this.token === undefined && !this.#everHeld
  }

  /** True once nothing comes any more. */
  get hasEnded(): boolean {
    return this.#ended
  }

  /** Thumbprint of the key that tokens are bound to. */
  get workloadKey(): string | null {
    return this.#ask.workloadKey
  }

  /**
   * A new token for this caller. Requests that ask the same at the same time share one.
   * @throws what kept the token from being issued
   */
  async request(ask: Ask): Promise<Held<C>> {
    // Another key or profile is another session: what the old one got is not passed on.
    const suits = ask.workloadKey === this.#ask.workloadKey && ask.profile === this.#ask.profile
    if (!suits) this.#token = undefined
    const same = suits && ask.ttlSeconds === this.#ask.ttlSeconds
    if (this.#running !== undefined) {
      if (same) return this.#running
      await this.#running.catch(() => undefined) // its own caller hears of it
      return this.request(ask)
    }
    this.#ask = ask
    return this.#attempt(null)
  }

  /**
   * Tells `hear` what is held or why nothing is, and what follows, and `end` when the instance is gone.
   * A session for its watchers alone tells only what follows. Returns what ends that.
   */
  watch(hear: (event: SessionEvent<C>) => void, end: () => void = () => undefined): () => void {
    const watcher = { hear, end }
    this.#watchers.add(watcher)
    if (this.#context.wipe !== undefined)
      return () => {
        this.#watchers.delete(watcher)
        if (this.#watchers.size === 0) this.end()
      }
    const { token } = this
    if (token !== undefined) hear({ kind: 'token', token })
    else if (this.#refusal !== undefined) {
      hear({ kind: 'denied', refusal: this.#refusal })
      if (this.#running === undefined && !this.#everHeld) this.#scheduleIssue()
    }
    return () => this.#watchers.delete(watcher)
  }

  /**
   * The bag was denied for another audience: drops what is held, also what is just being had, and measures
   * anew at once. A session that holds nothing is left alone, or two that are denied would drive each other.
   */
  deny(refusal: Refusal): void {
    if (this.#ended) return
    if (this.#running !== undefined) this.#spoilt = refusal
    const held = this.token !== undefined
    if (!held) return
    this.#token = undefined
    this.#refusal = refusal
    this.#emit({ kind: 'denied', refusal })
    if (!this.#ended && this.#running === undefined) void this.#attempt(null).catch(() => undefined) // #fail has seen to it
  }

  /** The instance is gone: drops everything. */
  end(): void {
    this.#ended = true
    this.#cancelTimer()
    this.#token = undefined
    const watchers = [...this.#watchers]
    this.#watchers.clear()
    for (const { end } of watchers) end()
  }

  /** Renews what is held within `delayMs` after `atLeastMs`, whatever its age. */
  renewWithin(delayMs: number, atLeastMs = 0): void {
    if (this.token === undefined || this.#running !== undefined) return
    // Only ever sooner: a unit that changes all the time must not put its renewal off.
    if (this.#dueMs <= this.#context.now() + atLeastMs + delayMs) return
    this.#later(() => this.#renew(), atLeastMs + delayMs * this.#context.random())
  }

  #attempt(previous: Held<C> | null): Promise<Held<C>> {
    this.#cancelTimer()
    const ask = this.#ask
    const running = this.#context
      .issue({ ...ask, previousDecision: previous?.decision ?? null })
      .then((issued) => {
        try {
          if (this.#spoilt !== undefined) throw new DeniedElsewhere(this.#spoilt)
          const token = { ...issued, renewed: previous !== null }
          this.#hold(token)
          return token
        } finally {
          this.#context.wipe?.(issued) // handed over or not
        }
      })
      .catch((error: unknown) => {
        this.#fail(error)
        throw error
      })
      .finally(() => (this.#running = this.#spoilt = undefined))
    this.#running = running
    return running
  }

  #hold(token: Held<C>): void {
    if (this.#ended) return
    this.#token = token
    this.#refusal = undefined
    this.#refusals = 0
    this.#everHeld = true
    this.#emit({ kind: 'token', token })
    const lifeMs = token.expiresAt * 1000 - this.#context.now()
    this.#later(() => this.#renew(), (lifeMs / 2) * (0.9 + 0.2 * this.#context.random()))
  }

  #renew(): void {
    void this.#attempt(this.token ?? null).catch(() => undefined) // #fail has seen to it
  }

  #fail(error: unknown): void {
    if (this.#ended) return
    const { token } = this
    const refusal = refusalOf(error)
    if (isTransient(error) && token !== undefined) {
      const leftMs = token.expiresAt * 1000 - this.#context.now()
      const delayMs = Math.min(Math.max(leftMs / 6, MIN_RETRY_MS), MAX_RETRY_MS)
      return this.#later(() => this.#renew(), this.#jitter(delayMs))
    }
    this.#token = undefined
    this.#refusal = refusal
    this.#refusals += 1
    this.#emit({ kind: 'denied', refusal })
    if (this.#everHeld || this.#watchers.size > 0) this.#scheduleIssue()
  }

  #scheduleIssue(): void {
    const exponent = Math.min(Math.max(this.#refusals - 1, 0), 10)
    const delayMs = Math.min(FIRST_BACKOFF_MS * 2 ** exponent, MAX_BACKOFF_MS)
    this.#later(() => void this.#attempt(null).catch(() => undefined), this.#jitter(delayMs))
  }

  /** ± 20 %, so that what failed together does not come back together. */
  #jitter(delayMs: number): number {
    return delayMs * (0.8 + 0.4 * this.#context.random())
  }

  #later(action: () => void, delayMs: number): void {
    this.#cancelTimer()
    this.#dueMs = this.#context.now() + delayMs
    this.#cancelTimer = this.#context.schedule(() => {
      if (!this.#ended && this.#running === undefined) action()
    }, delayMs)
  }

  #emit(event: SessionEvent<C>): void {
    for (const { hear } of this.#watchers) hear(event)
  }
}
