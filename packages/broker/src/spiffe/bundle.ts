// The SPIFFE trust bundle: what verifies SVIDs of our trust domain. Made from the log alone, so that all
// replicas serve the same bytes under the same sequence number, also after a restart: the number is that of
// the log entry that changed the bundle last.
import { hash } from 'node:crypto'
import type { AuthorityKind, PublicJwk, TrustBundle } from '@bagcheck/api'
import type { Authority } from './authority-book.ts'

/** A document with the ETag that it is served under. */
export interface Tagged {
  readonly text: string
  readonly tag: string
}

/** Adds the ETag's text: the digest of the document. */
export function tagged(document: unknown): Tagged {
  const text = JSON.stringify(document)
  return { text, tag: hash('sha256', text, 'hex') }
}

/** The bundle of the authorities of one trust domain, which are in the order of the log. */
export function trustBundle(
  authorities: readonly Authority[],
  { sequence, refreshHintSeconds }: { sequence: number; refreshHintSeconds: number },
): TrustBundle {
  const tainted = authorities.filter(({ state }) => state === 'tainted').map(({ id }) => id)
  return {
    keys: authorities.map(({ id, jwk, certificate }) =>
      certificate === null
        ? { use: 'jwt-svid', ...jwk, kid: id }
        : { use: 'x509-svid', ...jwk, x5c: [certificate.toString('base64')] },
    ),
    spiffe_sequence: sequence,
    spiffe_refresh_hint: refreshHintSeconds,
    ...(tainted.length > 0 && { bagcheck_tainted: tainted }),
  }
}

/** Keys that verify JWT-SVIDs, as OpenID Connect relying parties read them. */
export function jwtKeys(
  authorities: readonly Authority[],
): (PublicJwk & { kid: string; alg: string; use: string })[] {
  const kind: AuthorityKind = 'jwt'
  return authorities
    .filter((one) => one.kind === kind)
    .map(({ id, jwk }) => ({ ...jwk, kid: id, alg: 'ES256', use: 'sig' }))
}
