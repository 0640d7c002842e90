// The trust bundles that workloads verify their peers against: of our own trust domain, and of those that the
// broker's operator federates with. They are public. From the first question on they are followed by long
// poll, so that a new or revoked authority is known here as soon as at the broker; while the broker is away,
// what was known last stays.
//
// A bundle is a JWK set. Keys of unknown type or use are left out, as the standard demands; a bundle is
// never pooled with another, or one trust domain could sign for the next.
import { createPublicKey, X509Certificate, type KeyObject } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentError, quote } from '../../error.ts'
import { describe, type Log } from '../../log.ts'
import type { BrokerClient } from '../broker-client.ts'
import { parseTrustDomain } from './spiffe-id.ts'

const WAIT_SECONDS = 30
const FIRST_WAIT_MS = 8000
const MIN_BACKOFF_MS = 500
const MAX_BACKOFF_MS = 15_000

/** A key that signs JWT-SVIDs. */
export interface JwtKey {
  readonly jwk: Readonly<Record<string, unknown>>
  readonly key: KeyObject
}

/** Of one trust domain. */
export interface TrustBundle {
  readonly x509: readonly X509Certificate[]
  readonly jwt: ReadonlyMap<string, JwtKey>
}

/** Ours, and those of others, by trust domain. */
export interface BundleSet {
  readonly own: string
  readonly bundles: ReadonlyMap<string, TrustBundle>
}

/** What {@link Bundles} works with. */
export interface BundlesContext {
  readonly broker: Pick<BrokerClient, 'follow'>
  /** Our trust domain, as the policy says. */
  readonly trustDomain: () => Promise<string>
  readonly log: Log
}

/** Follows the bundles from the first question on. */
export class Bundles implements Disposable {
  readonly #context: BundlesContext
  readonly #listeners = new Set<(set: BundleSet) => void>()
  readonly #closing = new AbortController()
  // What is known: both documents, and the set that they make.
  #own: { etag: string; sequence: number; domain: string; bundle: TrustBundle } | undefined
  #others: { etag: string; bundles: ReadonlyMap<string, TrustBundle> } | undefined
  #set: BundleSet | undefined
  // Who waits for the first set, and the polls under way.
  #first = Promise.withResolvers<BundleSet>()
  #isFollowing = false

  constructor(context: BundlesContext) {
    this.#context = context
  }

  /** The bundles as far as they are known. */
  get known(): BundleSet | undefined {
    return this.#set
  }

  /**
   * The bundles.
   * @throws {AgentError} BROKER_TIMEOUT – none is known yet, and the broker did not tell
   */
  async get(): Promise<BundleSet> {
    if (this.#set !== undefined) return this.#set
    this.#follow()
    const late = sleep(FIRST_WAIT_MS, undefined, { ref: false }).then(() => {
      throw new AgentError('BROKER_TIMEOUT', 'no trust bundle is known yet')
    })
    return Promise.race([this.#first.promise, late])
  }

  /** Tells `hear` of every set from the next on; returns what ends that. */
  subscribe(hear: (set: BundleSet) => void): () => void {
    this.#listeners.add(hear)
    return () => this.#listeners.delete(hear)
  }

  /** Asks the broker at once, for an authority that is newer than the last answer. */
  async refresh(): Promise<BundleSet> {
    await this.#takeOwn(await this.#context.broker.follow('/bundle', undefined, 0))
    return this.get()
  }

  [Symbol.dispose](): void {
    this.#closing.abort()
    this.#listeners.clear()
  }

  #follow(): void {
    if (this.#isFollowing) return
    this.#isFollowing = true
    const { broker } = this.#context
    void this.#poll(async () =>
      this.#takeOwn(await broker.follow('/bundle', this.#own?.etag, WAIT_SECONDS)),
    )
    void this.#poll(async () =>
      this.#takeOthers(await broker.follow('/bundles', this.#others?.etag, WAIT_SECONDS)),
    )
  }

  async #poll(turn: () => Promise<void>): Promise<void> {
    const { signal } = this.#closing
    for (let delayMs = MIN_BACKOFF_MS; !signal.aborted;) {
      try {
        await turn()
        delayMs = MIN_BACKOFF_MS
      } catch (error) {
        if (signal.aborted) return
        this.#context.log('warn', 'trust bundle not read', describe(error))
        await sleep(delayMs, undefined, { signal, ref: false }).catch(() => undefined) // closing
        delayMs = Math.min(delayMs * 2, MAX_BACKOFF_MS)
      }
    }
  }

  async #takeOwn(answer: Awaited<ReturnType<BrokerClient['follow']>>): Promise<void> {
    if (answer === undefined) return
    const sequence = answer.body['spiffe_sequence']
    if (!Number.isSafeInteger(sequence)) throw malformed('spiffe_sequence', sequence)
    // A replica that is behind tells nothing new; an older bundle could bring a revoked authority back.
    if (this.#own !== undefined && (sequence as number) < this.#own.sequence)
      throw new AgentError(
        'BROKER_RESPONSE',
        `expected bundle ${this.#own.sequence} or later, saw ${String(sequence)}`,
      )
    const bundle = parseBundle(answer.body)
    const domain = await this.#context.trustDomain()
    const isNew = answer.etag !== this.#own?.etag
    this.#own = { etag: answer.etag, sequence: sequence as number, domain, bundle }
    if (isNew) this.#publish()
  }

  #takeOthers(answer: Awaited<ReturnType<BrokerClient['follow']>>): void {
    if (answer === undefined) return
    this.#others = { etag: answer.etag, bundles: parseBundleMap(answer.body) }
    this.#publish()
  }

  #publish(): void {
    const [own, others] = [this.#own, this.#others]
    if (own === undefined || others === undefined || this.#closing.signal.aborted) return
    // Ours last: no map of other trust domains stands in for it.
    const bundles = new Map([...others.bundles, [own.domain, own.bundle]])
    this.#set = { own: own.domain, bundles }
    this.#first.resolve(this.#set)
    for (const hear of this.#listeners) hear(this.#set)
  }
}

/** @throws {AgentError} BROKER_RESPONSE */
export function parseBundleMap(
  body: Readonly<Record<string, unknown>>,
): ReadonlyMap<string, TrustBundle> {
  const domains = body['trust_domains']
  if (typeof domains !== 'object' || domains === null) throw malformed('trust_domains', domains)
  return new Map(
    Object.entries(domains).map(([name, bundle]) => [
      parseTrustDomain(name),
      parseBundle((bundle ?? {}) as Readonly<Record<string, unknown>>),
    ]),
  )
}

/**
 * @see SPIFFE Trust Domain and Bundle §4
 * @throws {AgentError} BROKER_RESPONSE
 */
export function parseBundle({ keys }: Readonly<Record<string, unknown>>): TrustBundle {
  if (!Array.isArray(keys)) throw malformed('keys', keys)
  const x509: X509Certificate[] = []
  const jwt = new Map<string, JwtKey>()
  for (const jwk of keys as (Readonly<Record<string, unknown>> | null)[]) {
    if (typeof jwk !== 'object' || jwk === null) throw malformed('key', jwk)
    if (jwk['kty'] !== 'EC' && jwk['kty'] !== 'RSA') continue
    if (jwk['use'] === 'x509-svid') x509.push(parseAuthority(jwk['x5c']))
    if (jwk['use'] === 'jwt-svid') {
      const { kid } = jwk
      if (typeof kid !== 'string' || kid === '' || jwt.has(kid)) throw malformed('kid', kid)
      jwt.set(kid, { jwk, key: parseKey(jwk) })
    }
  }
  return { x509, jwt }
}

function parseAuthority(x5c: unknown): X509Certificate {
  const [only] = Array.isArray(x5c) && x5c.length === 1 ? (x5c as unknown[]) : []
  if (typeof only !== 'string') throw malformed('x5c', x5c)
  try {
    const certificate = new X509Certificate(Buffer.from(only, 'base64'))
    if (certificate.ca) return certificate
  } catch {
    // as malformed as one that is no authority
  }
  throw malformed('x5c', only)
}

function parseKey(jwk: Readonly<Record<string, unknown>>): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' })
  } catch {
    throw malformed('key', jwk)
  }
}

/** A bundle's JWT keys as the JWK set that the Workload API carries. */
export function jwksOf(bundle: TrustBundle): Buffer {
  return Buffer.from(JSON.stringify({ keys: [...bundle.jwt.values()].map(({ jwk }) => jwk) }))
}

/** A bundle's X.509 authorities in DER, one after the other. */
export function authoritiesOf(bundle: TrustBundle): Buffer {
  return Buffer.concat(bundle.x509.map(({ raw }) => raw))
}

function malformed(what: string, seen: unknown): AgentError {
  return new AgentError('BROKER_RESPONSE', `unexpected ${what} in a trust bundle: ${quote(seen)}`)
}
