// What the log says of authorities, in memory: the steps of all brokers of the installation, applied in the
// order of the log. Every replica comes to the same book, and from it to the same trust bundle.
import { createPublicKey, X509Certificate } from 'node:crypto'
import type { AuthorityKind, PublicJwk } from '@bagcheck/api'
import { BrokerError } from '../error.ts'
import { isInBundle, stateAfter, type AuthorityState } from '../store/authority-states.ts'
import { authorityId } from './authority-keys.ts'
import type { LoggedStep } from './authority-step.ts'

/** An authority. Times are seconds since the epoch. */
export interface Authority {
  readonly id: string
  readonly kind: AuthorityKind
  readonly trustDomain: string
  readonly state: AuthorityState
  readonly jwk: PublicJwk
  /** Of an X.509 authority, in DER. */
  readonly certificate: Buffer | null
  readonly preparedAt: number
  readonly expiresAt: number
}

/** All authorities that are not gone. */
export class AuthorityBook {
  readonly #authorities = new Map<string, Authority>()
  #lastEntry = -1

  /** The last log entry that changed anything; -1 before the first. */
  get lastEntry(): number {
    return this.#lastEntry
  }

  /** In the order in which they were prepared. */
  all(): readonly Authority[] {
    return [...this.#authorities.values()]
  }

  get(id: string): Authority | undefined {
    return this.#authorities.get(id)
  }

  /** Takes a step. @throws {BrokerError} LOG_CORRUPT – there is no such step from where the authority stands */
  apply(step: LoggedStep): void {
    const { authority: id, action, entry } = step
    const known = this.#authorities.get(id)
    const state = stateAfter(action, known?.state)
    if (state === undefined || entry <= this.#lastEntry)
      throw new BrokerError(
        'LOG_CORRUPT',
        `log entry ${entry}: expected a step of authority ${id}, which is ${known?.state ?? 'new'}, saw ${action}`,
      )
    for (const other of step.supersedes.map((one) => this.#authorities.get(one)))
      if (other?.state === 'active') this.#authorities.set(other.id, { ...other, state: 'old' })
    const authority = known === undefined ? newAuthority(step) : { ...known, state }
    if (isInBundle(state)) this.#authorities.set(id, authority)
    else this.#authorities.delete(id)
    this.#lastEntry = entry
  }
}

/** The name of an authority is made from its key, and its certificate is of that key. */
function newAuthority(step: LoggedStep): Authority {
  const { authority: id, kind, trustDomain, jwk, at, expiresAt } = step
  const certificate = step.certificate === null ? null : Buffer.from(step.certificate, 'base64')
  const key = jwk && createPublicKey({ key: { ...jwk }, format: 'jwk' })
  const certified = certificate && new X509Certificate(certificate)
  if (
    jwk === null ||
    key === null ||
    authorityId(kind, key) !== id ||
    (kind === 'x509') !== (certified !== null) ||
    (certified !== null && !(certified.ca && certified.publicKey.equals(key)))
  )
    throw new BrokerError('LOG_CORRUPT', `log entry ${step.entry}: expected the key of ${id}`)
  return { id, kind, trustDomain, state: 'prepared', jwk, certificate, preparedAt: at, expiresAt }
}
