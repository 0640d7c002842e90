// Our own parties' JWS, refused with the codes of this broker's routes.
import { AttestError, checkJwsHeader, parseJws, type UnverifiedJws } from '@bagcheck/attest'
import { BrokerError, type BrokerErrorCode } from './error.ts'

/** What a JWS must be, and what to say where it is not. */
export interface JwsKind {
  readonly typ: string
  /** The header's member that tells the key. */
  readonly key: 'kid' | 'jwk'
  readonly malformed: BrokerErrorCode
  readonly badHeader: BrokerErrorCode
}

/**
 * Reads a JWS whose signature is yet to be checked.
 * @throws {BrokerError} with the codes of `kind`
 */
export function readJws(text: string, kind: JwsKind): UnverifiedJws {
  try {
    const jws = parseJws(text)
    checkJwsHeader(jws, kind.typ, kind.key)
    return jws
  } catch (error) {
    if (!(error instanceof AttestError)) throw error
    const code = error.code === 'JWS_HEADER' ? kind.badHeader : kind.malformed
    throw new BrokerError(code, error.message)
  }
}
