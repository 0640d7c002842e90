// The installed policy: one verified version in memory, swapped as a whole. The store decides which
// version is installed (exactly the previous one + 1); this process follows it, also when another
// replica published. Every decision carries the version that it was made under, and commits only while
// that is still the installed one.
import type { PolicyReceipt, PolicyRequest } from '@bagcheck/api'
import { firstSignatureLeaf, parseEnvelope } from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import {
  verifyPolicy,
  verifyPolicyDocument,
  type TrustRoot,
  type VerifiedPolicy,
} from '@bagcheck/policy'
import { Changes } from './changes.ts'
import { BrokerError } from './error.ts'
import type { Store } from './store/store.ts'

/** A policy in force. */
export interface InstalledPolicy {
  readonly version: number
  readonly sha256: Sha256
  readonly verified: VerifiedPolicy
  readonly logIndex: number
  /** Body of `GET /v1/policy`, made once. */
  readonly response: string
}

/** What policy state needs. */
export interface PolicyStateOptions {
  readonly store: Pick<Store, 'installedPolicy' | 'body' | 'commitPolicy'>
  readonly root: TrustRoot
  /** Envelopes of the trust root's versions, as texts. */
  readonly rootChain: readonly string[]
}

/** Follows the installed policy. */
export class PolicyState {
  readonly #options: PolicyStateOptions
  readonly #changes = new Changes()
  #current: InstalledPolicy | null = null
  // Publishing and reloading, one after the other.
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: PolicyStateOptions) {
    this.#options = options
  }

  current(): InstalledPolicy | null {
    return this.#current
  }

  /** @throws {BrokerError} POLICY_MISSING */
  installed(): InstalledPolicy {
    if (this.#current === null)
      throw new BrokerError('POLICY_MISSING', 'expected an installed policy, saw none')
    return this.#current
  }

  /**
   * Takes over what the store has installed. Expiry is not looked at: an expired policy stays in force
   * and denies.
   * @throws {PolicyError} the stored policy does not verify against the trust root; {BrokerError}
   * LOG_CORRUPT – also one older than the policy in force; STORE_*
   */
  reload(): Promise<void> {
    return this.#inTurn(() => this.#reload())
  }

  /**
   * Verifies, logs and installs the next version. The installed version again is no error.
   * @throws {PolicyError} it does not verify; {BrokerError} POLICY_VERSION, STORE_*
   */
  publish(request: PolicyRequest, now: Date): Promise<PolicyReceipt> {
    return this.#inTurn(() => this.#publish(request, now))
  }

  /** Resolves when another policy than `sha256` is installed, after `ms`, or when `signal` aborts. */
  async waitForChange(sha256: string, ms: number, signal: AbortSignal): Promise<void> {
    if (this.#current?.sha256 === sha256) await this.#changes.wait(ms, signal)
  }

  /** Lets every long poll answer now. */
  wakeAll(): void {
    this.#changes.emit()
  }

  async #reload(): Promise<void> {
    const { store, root } = this.#options
    const row = await store.installedPolicy()
    if (row === undefined || row.version === this.#current?.version) return
    // A database that went back (a restored backup, a replica that lags) must not bring back approvals
    // that were revoked since.
    if (row.version < (this.#current?.version ?? 0))
      throw new BrokerError(
        'LOG_CORRUPT',
        `expected policy ${this.#current?.version} or a later one, saw ${row.version} installed`,
      )
    const { entryIndex } = row
    const [json, envelope] = await Promise.all([
      store.body({ entryIndex, part: 'policy', sha256: row.sha256 }),
      store.body({ entryIndex, part: 'envelope', sha256: row.envelopeSha256 }),
    ])
    if (json === undefined || envelope === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected the text of policy ${row.version}, saw none`)
    const texts = {
      policy: Buffer.from(json).toString(),
      envelope: Buffer.from(envelope).toString(),
    }
    const document = { json: texts.policy, envelope: texts.envelope }
    const verified = verifyPolicyDocument(document, root)
    if (verified.version !== row.version)
      throw new BrokerError(
        'LOG_CORRUPT',
        `expected the text of policy ${row.version}, saw that of policy ${verified.version}`,
      )
    this.#install(verified, texts, row.entryIndex)
  }

  async #publish(request: PolicyRequest, now: Date): Promise<PolicyReceipt> {
    const { store, root } = this.#options
    await this.#reload()
    const before = this.#current
    const installed = before && { version: before.version, sha256: before.sha256 }
    const document = { json: request.policy, envelope: request.envelope }
    const verified = verifyPolicy(document, root, { installed, now })
    const { version, sha256 } = verified
    if (before?.version === version)
      return { version, sha256, logIndex: before.logIndex, known: true }
    const { index } = await store.commitPolicy({
      version,
      json: Buffer.from(request.policy),
      installedAt: Math.floor(now.getTime() / 1000),
      leaf: firstSignatureLeaf(
        parseEnvelope(Buffer.from(request.envelope)),
        root.roles.policy.keys,
      ),
      body: Buffer.from(request.envelope),
    })
    this.#install(verified, request, index)
    return { version, sha256, logIndex: index, known: false }
  }

  #install(verified: VerifiedPolicy, texts: PolicyRequest, logIndex: number): void {
    const { version, sha256 } = verified
    const { policy, envelope } = texts
    const { rootChain } = this.#options
    const response = JSON.stringify({ version, sha256, policy, envelope, rootChain, logIndex })
    this.#current = { version, sha256, verified, logIndex, response }
    this.#changes.emit()
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work)
    this.#turn = turn.catch(() => undefined) // whoever asked for that turn sees its error
    return await turn
  }
}
