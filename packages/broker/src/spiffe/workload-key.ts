// The key that an X.509-SVID is asked for. It is a stranger's: OpenSSL parses it, and only the one encoding
// that OpenSSL itself writes for a named P-256 key passes. Compressed points, explicit curve parameters and
// bytes after the end are refused and not normalised.
import { createPublicKey, type KeyObject } from 'node:crypto'
import { jwkThumbprint } from '@bagcheck/attest'
import { BrokerError } from '../error.ts'
import { publicJwkOf } from '../keys.ts'

/** A P-256 public key. */
export interface WorkloadKey {
  readonly key: KeyObject
  /** RFC 7638, as evidence names it. */
  readonly thumbprint: string
}

/** Bytes of a P-256 SubjectPublicKeyInfo; nothing longer is looked at. */
const SPKI_BYTES = 91

/** Reads base64 of a SubjectPublicKeyInfo. @throws {BrokerError} SVID_KEY */
export function parseWorkloadKey(text: string): WorkloadKey {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.length !== SPKI_BYTES || bytes.toString('base64') !== text) throw unusable()
  try {
    const jwk = publicJwkOf(
      createPublicKey({ key: bytes, format: 'der', type: 'spki' }),
      'publicKey',
    )
    const key = createPublicKey({ key: { ...jwk }, format: 'jwk' })
    if (!key.export({ type: 'spki', format: 'der' }).equals(bytes)) throw unusable()
    return { key, thumbprint: jwkThumbprint(jwk) }
  } catch (cause) {
    throw cause instanceof BrokerError && cause.code === 'SVID_KEY' ? cause : unusable(cause)
  }
}

function unusable(cause?: unknown): BrokerError {
  const message = `expected publicKey to be base64 of a P-256 SubjectPublicKeyInfo of ${SPKI_BYTES} bytes`
  return new BrokerError('SVID_KEY', message, { cause })
}
