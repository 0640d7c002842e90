// Minting SVIDs. As token.ts: what is signed comes out of a logged decision and out of nothing else. The key in
// a certificate is the one whose thumbprint the decision holds, and what signs is the authority that the
// decision names; both are compared once more, because here is the last place to do so.
//
//   serial number of an X.509-SVID = jti of a JWT-SVID = id of the decision, a UUIDv7: 128 bits, 74 of them
//   random. Whoever has a certificate has the decision's id, and so its evidence.
import { X509Certificate } from 'node:crypto'
import type { LoggedDecision } from '../decision.ts'
import { evidenceClaims, registeredClaims, signJwt } from '../token.ts'
import type { JwtSigner, X509Signer } from './authorities.ts'
import { BACKDATE_SECONDS, writeLeaf } from './certificate.ts'
import type { WorkloadKey } from './workload-key.ts'

interface Minted {
  readonly spiffeId: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
  /** The decision's id. */
  readonly id: string
  readonly logIndex: number
}

/** A minted X.509-SVID: DER, the leaf first. */
export interface MintedX509Svid extends Minted {
  readonly certificates: readonly Buffer[]
}

/** A minted JWT-SVID; `text` is a secret. */
export interface MintedJwtSvid extends Minted {
  readonly text: string
}

/**
 * Mints the one X.509-SVID that a logged decision allows.
 * @throws {TypeError} a second use; a decision about another type, key or authority
 * @see https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
 */
export function mintX509Svid(
  logged: LoggedDecision,
  signer: X509Signer,
  workloadKey: WorkloadKey,
): MintedX509Svid {
  const decision = logged.use('x509_svid')
  const { id, sub: spiffeId, issuedAt, expiresAt, logIndex } = decision
  if (decision.authority !== signer.id || decision.keyThumbprint !== workloadKey.thumbprint)
    throw new TypeError('a decision about another authority or key')
  const leaf = writeLeaf(
    {
      publicKey: workloadKey.key,
      spiffeId,
      serial: serialOf(id),
      notBefore: issuedAt - BACKDATE_SECONDS,
      notAfter: expiresAt,
      authority: signer.id,
    },
    signer.sign,
  )
  checkLeaf(leaf, signer, workloadKey, spiffeId)
  return { spiffeId, expiresAt, id, logIndex, certificates: [leaf] }
}

/**
 * Mints the one JWT-SVID that a logged decision allows; one audience, as a list, which every client reads.
 * @throws {TypeError} a second use; a decision about another type or authority
 * @see https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md
 */
export function mintJwtSvid(
  logged: LoggedDecision,
  issuer: string,
  signer: JwtSigner,
): MintedJwtSvid {
  const decision = logged.use('jwt_svid')
  const { id, sub: spiffeId, audience, expiresAt, logIndex } = decision
  if (decision.authority !== signer.id) throw new TypeError('a decision about another authority')
  const claims = {
    ...registeredClaims(decision, issuer),
    aud: [audience],
    ...evidenceClaims(decision),
  }
  return { spiffeId, expiresAt, id, logIndex, text: signJwt('JWT', claims, signer) }
}

/** The serial number of the certificate of a decision: its id, as the number that a UUID is. */
export function serialOf(id: string): Buffer {
  const digits = id.replaceAll('-', '')
  if (!/^[0-7][0-9a-f]{31}$/.test(digits)) throw new TypeError(`no serial number in ${id}`)
  return Buffer.from(digits, 'hex')
}

// We wrote it, OpenSSL reads it: a mistake of ours is to end here and not at a relying party.
function checkLeaf(leaf: Buffer, signer: X509Signer, { key }: WorkloadKey, spiffeId: string): void {
  const certificate = new X509Certificate(leaf)
  const authority = new X509Certificate(signer.certificate)
  if (
    !certificate.checkIssued(authority) ||
    !certificate.verify(authority.publicKey) ||
    !certificate.publicKey.equals(key) ||
    certificate.ca ||
    certificate.subjectAltName !== `URI:${spiffeId}` ||
    certificate.validToDate > authority.validToDate
  )
    throw new TypeError('an X.509-SVID that does not verify')
}
