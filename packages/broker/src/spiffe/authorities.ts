// The authorities that sign SVIDs: following what all brokers log about them, and taking the steps of ours.
//
//   prepare    key on disk, synced ► step logged ► in every bundle
//   activate   step logged, the one before becomes old in the same transaction ► signs
//   taint      step logged ► signs nothing any more, in any broker: the decision's transaction looks
//   revoke     step logged ► out of every bundle
//
// Crash points: after the key's file (no entry names it: removed at the next start), after `prepare` (it is
// found prepared, with its key), after `activate` (it is found active). There is no other state than the
// log's. A step whose answer was lost is found by reading on; asked for again, it is no second entry.
//
// One step at a time in this process; of two processes the store lets one win and tells the other.
import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import { AUTHORITY_KINDS, type AuthorityKind, type AuthorityStep } from '@bagcheck/api'
import { joseSignature, type SigningKey } from '@bagcheck/attest'
import { trustDomainId, type Policy } from '@bagcheck/policy'
import { Changes } from '../changes.ts'
import type { AuthorityCrashPoint } from '../crash-point.ts'
import { BrokerError, quote } from '../error.ts'
import { publicJwkOf, type TokenKey } from '../keys.ts'
import type { RecordTrust } from '../logged-records.ts'
import type { Store } from '../store/store.ts'
import { AuthorityBook, type Authority } from './authority-book.ts'
import type { AuthorityKeys } from './authority-keys.ts'
import { readStep, signStep, type LoggedStep } from './authority-step.ts'
import { jwtKeys, tagged, trustBundle, type Tagged } from './bundle.ts'
import { BACKDATE_SECONDS, writeAuthority, type SignDer } from './certificate.ts'
import { isPast, ofKind, preparedAmong, refreshHint, signerAmong, whatIsDue } from './rotation.ts'

/** What signs X.509-SVIDs, at this moment. */
export interface X509Signer {
  readonly id: string
  readonly expiresAt: number
  readonly certificate: Buffer
  readonly sign: SignDer
}

/** What signs JWT-SVIDs, at this moment. */
export interface JwtSigner extends TokenKey {
  readonly id: string
  readonly expiresAt: number
}

/** An authority, and whether this broker has its key. */
export interface ListedAuthority extends Authority {
  readonly local: boolean
}

/** What the policy of now wants signed: without SVIDs in it there are no authorities. */
export interface Wanted {
  readonly trustDomain: string
  readonly kinds: readonly AuthorityKind[]
}

/** What a policy wants signed. */
export function wantedBy({ trustDomain, profiles }: Policy): Wanted {
  const types = new Set([...profiles.values()].map(({ type }) => type))
  return { trustDomain, kinds: AUTHORITY_KINDS.filter((kind) => types.has(`${kind}_svid`)) }
}

/** What authorities are opened with. */
export interface AuthoritiesOptions {
  readonly store: Pick<Store, 'authorities' | 'entriesFrom' | 'commitAuthority'>
  readonly keys: AuthorityKeys
  /** Signs the steps. */
  readonly decisionKey: SigningKey
  readonly trust: RecordTrust
  /** Life of an authority. */
  readonly ttlSeconds: number
  /** The steps in the log so far, verified. */
  readonly steps: readonly LoggedStep[]
  readonly crashAt: (point: AuthorityCrashPoint) => void
}

/** The authorities of the installation, as this broker sees them. */
export class Authorities {
  readonly #options: AuthoritiesOptions
  readonly #book = new AuthorityBook()
  readonly #changes = new Changes()
  readonly #bundles = new Map<string, Tagged>()
  /** Keys that no entry names yet: a store that fails again and again is not to fill the disk with keys. */
  readonly #begun = new Map<AuthorityKind, { readonly id: string; readonly key: KeyObject }>()
  // Steps, one after the other.
  #turn: Promise<unknown> = Promise.resolve()

  /** @throws {BrokerError} LOG_CORRUPT – the steps do not follow from each other */
  constructor(options: AuthoritiesOptions) {
    this.#options = options
    for (const step of options.steps) this.#book.apply(step)
    options.keys.keepOnly(new Set(this.#book.all().map(({ id }) => id)))
  }

  /** All that are in bundles, in the order in which they were prepared. */
  list(): readonly ListedAuthority[] {
    return this.#book.all().map((one) => ({ ...one, local: this.#keyOf(one) !== undefined }))
  }

  /** The trust bundle of a trust domain, as text. */
  bundle(trustDomain: string): Tagged {
    const known = this.#bundles.get(trustDomain)
    if (known !== undefined) return known
    const bundle = trustBundle(this.#ofDomain(trustDomain), {
      sequence: this.#book.lastEntry + 1,
      refreshHintSeconds: refreshHint(this.#options.ttlSeconds),
    })
    const made = tagged(bundle)
    this.#bundles.set(trustDomain, made)
    return made
  }

  /** Keys that verify JWT-SVIDs of a trust domain. */
  jwtKeys(trustDomain: string): ReturnType<typeof jwtKeys> {
    return jwtKeys(this.#ofDomain(trustDomain))
  }

  /** What signs X.509-SVIDs now. @throws {BrokerError} AUTHORITY_MISSING */
  x509Signer(trustDomain: string, nowSeconds: number): X509Signer {
    const { authority, key } = this.#signer('x509', trustDomain, nowSeconds)
    const { id, expiresAt, certificate } = authority
    if (certificate === null) throw new TypeError('an X.509 authority has a certificate')
    return { id, expiresAt, certificate, sign: signerBy(key) }
  }

  /** What signs JWT-SVIDs now. @throws {BrokerError} AUTHORITY_MISSING */
  jwtSigner(trustDomain: string, nowSeconds: number): JwtSigner {
    const { authority, key } = this.#signer('jwt', trustDomain, nowSeconds)
    const { id, expiresAt, jwk } = authority
    const signDer = signerBy(key)
    return { id, kid: id, jwk, expiresAt, sign: (data) => joseSignature(signDer(data)) }
  }

  /** Resolves when anything changed, after `ms`, or when `signal` aborts. */
  waitForChange(ms: number, signal: AbortSignal): Promise<void> {
    return this.#changes.wait(ms, signal)
  }

  /** Takes over what any broker has logged. @throws {BrokerError} LOG_CORRUPT, STORE_* */
  reload(): Promise<void> {
    return this.#inTurn(() => this.#reload())
  }

  /**
   * Makes sure that something can sign, and does nothing if it can.
   * @throws {BrokerError} STORE_*
   */
  async ready(wanted: Wanted, nowSeconds: number): Promise<void> {
    const { trustDomain, kinds } = wanted
    const able = (kind: AuthorityKind): boolean =>
      signerAmong(ofKind(this.#ours(trustDomain), kind, trustDomain), nowSeconds) !== undefined
    if (!kinds.every(able)) await this.tend(wanted, nowSeconds)
  }

  /**
   * Takes every step that is due: prepares, activates, and retires what is long past.
   * @throws {BrokerError} STORE_*
   */
  tend({ trustDomain, kinds }: Wanted, nowSeconds: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#reload()
      for (const kind of kinds) await this.#tendKind(kind, trustDomain, nowSeconds)
      for (const past of this.#book.all().filter((one) => isPast(one, nowSeconds)))
        await this.#step(past, 'retire', nowSeconds)
    })
  }

  /**
   * Makes the next authority of a kind.
   * @throws {BrokerError} AUTHORITY_STATE – one is prepared already; KEY_FILE_*, STORE_*
   */
  prepare(kind: AuthorityKind, trustDomain: string, nowSeconds: number): Promise<Authority> {
    return this.#inTurn(async () => {
      await this.#reload()
      const known = preparedAmong(ofKind(this.#ours(trustDomain), kind, trustDomain), nowSeconds)
      if (known !== undefined)
        throw new BrokerError('AUTHORITY_STATE', `authority ${known.id} is prepared already`)
      return this.#prepare(kind, trustDomain, nowSeconds)
    })
  }

  /**
   * Lets a prepared authority of this broker sign, and the one before sign no longer.
   * @throws {BrokerError} AUTHORITY_UNKNOWN; AUTHORITY_STATE – not prepared, or its key is elsewhere; STORE_*
   */
  activate(id: string, nowSeconds: number): Promise<number> {
    return this.#inTurn(async () => {
      const authority = await this.#find(id)
      if (this.#keyOf(authority) === undefined)
        throw new BrokerError('AUTHORITY_STATE', `the key of authority ${id} is another broker's`)
      return this.#step(authority, 'activate', nowSeconds)
    })
  }

  /**
   * Says that SVIDs by this authority are to be renewed at once; it signs no more. Any broker's.
   * @throws {BrokerError} AUTHORITY_UNKNOWN, AUTHORITY_STATE, STORE_*
   */
  taint(id: string, reason: string, nowSeconds: number): Promise<number> {
    return this.#inTurn(async () => this.#step(await this.#find(id), 'taint', nowSeconds, reason))
  }

  /**
   * Takes a tainted authority out of the bundle: what it signed verifies nowhere any more. Any broker's.
   * @throws {BrokerError} AUTHORITY_UNKNOWN; AUTHORITY_STATE – not tainted; STORE_*
   */
  revoke(id: string, reason: string, nowSeconds: number): Promise<number> {
    return this.#inTurn(async () => this.#step(await this.#find(id), 'revoke', nowSeconds, reason))
  }

  async #tendKind(kind: AuthorityKind, trustDomain: string, nowSeconds: number): Promise<void> {
    const ours = (): Authority[] => ofKind(this.#ours(trustDomain), kind, trustDomain)
    if (whatIsDue(ours(), nowSeconds) === 'prepare')
      await this.#prepare(kind, trustDomain, nowSeconds)
    const prepared = preparedAmong(ours(), nowSeconds)
    if (prepared !== undefined && whatIsDue(ours(), nowSeconds) === 'activate')
      await this.#step(prepared, 'activate', nowSeconds)
  }

  async #prepare(kind: AuthorityKind, trustDomain: string, at: number): Promise<Authority> {
    const { keys, ttlSeconds, decisionKey, store, trust, crashAt } = this.#options
    const { id, key } = this.#begun.get(kind) ?? keys.create(kind)
    this.#begun.set(kind, { id, key })
    crashAt('after-authority-key')
    const publicKey = createPublicKey(key)
    const expiresAt = at + ttlSeconds
    const content = {
      publicKey,
      spiffeId: trustDomainId(trustDomain),
      notBefore: at - BACKDATE_SECONDS,
      notAfter: expiresAt,
    }
    const step: Omit<AuthorityStep, 'schema'> = {
      ...{ installation: trust.installation, trustDomain, kind, authority: id },
      ...{ action: 'prepare', at, expiresAt, supersedes: [], reason: null },
      jwk: publicJwkOf(publicKey, 'authority'),
      certificate:
        kind === 'x509' ? writeAuthority(content, signerBy(key)).toString('base64') : null,
    }
    await store.commitAuthority(signStep(step, decisionKey))
    crashAt('after-authority-prepare')
    await this.#reload()
    return await this.#find(id)
  }

  async #step(
    authority: Authority,
    action: 'activate' | 'taint' | 'revoke' | 'retire',
    at: number,
    reason: string | null = null,
  ): Promise<number> {
    const { store, decisionKey, trust, crashAt } = this.#options
    const { id, kind, trustDomain, expiresAt } = authority
    const active = ofKind(this.#ours(trustDomain), kind, trustDomain).filter(
      (one) => one.state === 'active',
    )
    const step: Omit<AuthorityStep, 'schema'> = {
      ...{ installation: trust.installation, trustDomain, kind, authority: id },
      ...{ action, at, expiresAt, jwk: null, certificate: null, reason },
      supersedes: action === 'activate' ? active.map((one) => one.id) : [],
    }
    const { index } = await store.commitAuthority(signStep(step, decisionKey))
    if (action === 'activate') crashAt('after-authority-activate')
    await this.#reload()
    return index
  }

  async #reload(): Promise<void> {
    const { store, trust, keys } = this.#options
    const { lastEntry } = this.#book
    const rows = await store.authorities(lastEntry)
    const entries = rows
      .flatMap(({ entries: of }) => [of.prepared, of.activated, of.tainted, of.removed])
      .filter((entry): entry is number => entry !== null && entry > lastEntry)
      .toSorted((a, b) => a - b)
    if (entries.length === 0) return
    for (const index of entries) {
      const [entry] = await store.entriesFrom(index, 1)
      if (entry?.index !== index)
        throw new BrokerError('LOG_CORRUPT', `expected log entry ${index}, saw none`)
      const step = readStep(entry, trust)
      this.#book.apply(step)
      if (this.#begun.get(step.kind)?.id === step.authority) this.#begun.delete(step.kind)
      // What was revoked or has retired signs never again.
      if (this.#book.get(step.authority) === undefined) keys.remove(step.authority)
    }
    this.#bundles.clear()
    this.#changes.emit()
  }

  async #find(id: string): Promise<Authority> {
    await this.#reload()
    const known = this.#book.get(id)
    if (known !== undefined) return known
    throw new BrokerError('AUTHORITY_UNKNOWN', `no authority ${quote(id)} is in the bundle`)
  }

  #signer(
    kind: AuthorityKind,
    trustDomain: string,
    nowSeconds: number,
  ): { authority: Authority; key: KeyObject } {
    const authority = signerAmong(ofKind(this.#ours(trustDomain), kind, trustDomain), nowSeconds)
    const key = authority && this.#keyOf(authority)
    if (authority && key) return { authority, key }
    throw new BrokerError('AUTHORITY_MISSING', `expected an active ${kind} authority, saw none`)
  }

  /** Those whose keys are here. */
  #ours(trustDomain: string): Authority[] {
    return this.#ofDomain(trustDomain).filter((one) => this.#keyOf(one) !== undefined)
  }

  #ofDomain(trustDomain: string): Authority[] {
    return this.#book.all().filter((one) => one.trustDomain === trustDomain)
  }

  #keyOf({ id }: Authority): KeyObject | undefined {
    return this.#options.keys.get(id)
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work)
    this.#turn = turn.catch(() => undefined) // whoever asked for that turn sees its error
    return await turn
  }
}

function signerBy(key: KeyObject): SignDer {
  return (data) => sign('sha256', data, key)
}
