// The body of a Rekor v2 entry: `hashedrekord` 0.0.2 over the SHA-256 of a DSSE PAE, in canonical
// JSON. Its bytes are the Merkle leaf. Stock verifiers compute the same bytes from a bundle.
import { hash } from 'node:crypto'
import { encodeBase64 } from './base64.ts'
import { canonicalize } from './canonical-json.ts'
import { pae, verifyEnvelope, type Envelope } from './dsse.ts'
import type { VerifyingKey } from './keys.ts'

/**
 * Returns the leaf bytes for one signature of an envelope.
 *
 * The signature is not checked here: a caller that did not make it has verified it before.
 *
 * @param key the key that made `envelope.signatures[signatureIndex]`
 * @see https://github.com/sigstore/rekor-tiles/blob/main/CLIENTS.md
 */
export function hashedRekordLeaf(
  envelope: Envelope,
  signatureIndex: number,
  key: VerifyingKey,
): Uint8Array {
  const signature = envelope.signatures[signatureIndex]
  if (signature === undefined)
    throw new TypeError(
      `expected one of ${envelope.signatures.length} signatures, saw index ${signatureIndex}`,
    )
  const entry = {
    apiVersion: '0.0.2',
    kind: 'hashedrekord',
    spec: {
      hashedRekordV002: {
        data: {
          algorithm: 'SHA2_256',
          digest: hash('sha256', pae(envelope.payloadType, envelope.payload), 'base64'),
        },
        signature: {
          content: encodeBase64(signature.sig),
          verifier: {
            keyDetails: 'PKIX_ECDSA_P256_SHA_256',
            publicKey: { rawBytes: encodeBase64(key.spki) },
          },
        },
      },
    },
  }
  return new Uint8Array(Buffer.from(canonicalize(entry)))
}

/**
 * Returns the leaf under which the log holds an envelope: that of its first signature, which must be by
 * one of `keys`.
 *
 * @throws {AttestError} SIGNATURE_INVALID, DSSE_PAYLOAD_TYPE
 */
export function firstSignatureLeaf(envelope: Envelope, keys: readonly VerifyingKey[]): Uint8Array {
  const first = { ...envelope, signatures: envelope.signatures.slice(0, 1) }
  const [signer] = verifyEnvelope(first, keys, 1).signers
  if (signer === undefined) throw new TypeError('a verified envelope has a signer')
  return hashedRekordLeaf(first, 0, signer)
}
