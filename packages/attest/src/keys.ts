// Signing keys: ECDSA on P-256 with SHA-256, the one algorithm that DSSE, Sigstore bundles, Rekor v2
// entries and every stock verifier have in common.
//
// A key's identity is the SHA-256 of its SubjectPublicKeyInfo, so each key must have exactly one such
// encoding: PEM of one block, named curve, uncompressed point. Other encodings of the same point
// would count as another key against a threshold, and are refused.
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto'
import { sha256Hex } from '@bagcheck/nix'
import { decodeBase64, encodeBase64 } from './base64.ts'
import { AttestError, quote } from './error.ts'

/** A public key that may verify signatures. */
export interface VerifyingKey {
  /** SHA-256 of {@link VerifyingKey.spki}, lower-case hex. */
  readonly keyId: string
  /** DER SubjectPublicKeyInfo, 91 bytes. */
  readonly spki: Uint8Array
  /** The public key. */
  readonly key: KeyObject
}

/** A private key and its public half. The private part is not reachable from outside. */
export interface SigningKey extends VerifyingKey {
  /** Signs SHA-256 of `data`; returns a DER ECDSA signature. */
  sign(data: Uint8Array): Uint8Array
}

const MAX_PEM_LENGTH = 4096
const SPKI_LENGTH = 91
// ecPublicKey, prime256v1, and a bit string that starts with an uncompressed point.
const SPKI_HEAD: Buffer = Buffer.from(
  '3059301306072a8648ce3d020106082a8648ce3d03010703420004',
  'hex',
)
// A sequence of two integers of at most 33 bytes each.
const MAX_SIGNATURE_LENGTH = 72

/** Makes a new key; `pem` is its PKCS#8 form, to be kept secret. */
export function generateSigningKey(): { signing: SigningKey; pem: string } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { signing: signingKeyOf(privateKey), pem }
}

/**
 * Reads a PKCS#8 private key (`-----BEGIN PRIVATE KEY-----`). Messages never quote the key.
 *
 * @throws {AttestError} KEY_PEM, KEY_ENCODING, KEY_ALGORITHM
 */
export function parseSigningKey(pem: string): SigningKey {
  const der = decodePem(pem, 'PRIVATE KEY', 'convert with: openssl pkcs8 -topk8 -nocrypt')
  let key: KeyObject
  try {
    key = createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
  } catch {
    // No cause: what OpenSSL says about a private key stays out of logs.
    throw new AttestError('KEY_ENCODING', 'expected a PKCS#8 private key, saw other bytes')
  }
  checkAlgorithm(key)
  return signingKeyOf(key)
}

/**
 * Reads a public key (`-----BEGIN PUBLIC KEY-----`).
 *
 * @throws {AttestError} KEY_PEM, KEY_ENCODING, KEY_ALGORITHM
 */
export function parseVerifyingKey(pem: string): VerifyingKey {
  const hint = 'make one with: openssl pkey -pubout'
  return verifyingKeyFromSpki(decodePem(pem, 'PUBLIC KEY', hint))
}

/**
 * Reads a public key from its DER SubjectPublicKeyInfo, as bytes or in base64.
 *
 * @throws {AttestError} KEY_ENCODING, KEY_ALGORITHM
 */
export function verifyingKeyFromSpki(spki: Uint8Array | string): VerifyingKey {
  const der = typeof spki === 'string' ? decodeBase64(spki) : new Uint8Array(spki)
  if (der === undefined)
    throw new AttestError('KEY_ENCODING', `expected a public key in base64, saw ${quote(spki)}`)
  if (der.length > MAX_PEM_LENGTH)
    throw new AttestError('KEY_ENCODING', `expected ${SPKI_LENGTH} bytes, saw ${der.length}`)
  let key: KeyObject
  try {
    key = createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
  } catch (cause) {
    throw new AttestError('KEY_ENCODING', 'expected a SubjectPublicKeyInfo, saw other bytes', {
      cause,
    })
  }
  checkAlgorithm(key)
  const verifying = verifyingKeyOf(key)
  if (Buffer.compare(verifying.spki, der) !== 0) throw notCanonical(der)
  return verifying
}

/** Writes a public key as PEM; the inverse of {@link parseVerifyingKey}. */
export function formatVerifyingKey(key: VerifyingKey): string {
  const lines = encodeBase64(key.spki).match(/.{1,64}/g) ?? []
  return `-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----\n`
}

/** Tells whether `signature` (DER) is the key's ECDSA signature over SHA-256 of `data`. */
export function verifySignature(
  key: VerifyingKey,
  data: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (signature.length === 0 || signature.length > MAX_SIGNATURE_LENGTH) return false
  // DER is what Node speaks unless told; an options object would cost a third of the verification.
  return verify('sha256', data, key.key, signature)
}

function signingKeyOf(privateKey: KeyObject): SigningKey {
  return {
    ...verifyingKeyOf(createPublicKey(privateKey)),
    // Without an options object, which would cost as much again as the signature.
    sign: (data) => new Uint8Array(sign('sha256', data, privateKey)),
  }
}

// OpenSSL writes a key in the form it was read in, so exporting it again does not make it canonical.
function verifyingKeyOf(key: KeyObject): VerifyingKey {
  const spki = new Uint8Array(key.export({ type: 'spki', format: 'der' }))
  if (
    spki.length !== SPKI_LENGTH ||
    !Buffer.from(spki).subarray(0, SPKI_HEAD.length).equals(SPKI_HEAD)
  )
    throw notCanonical(spki)
  return { keyId: sha256Hex(spki), spki, key }
}

function notCanonical(der: Uint8Array): AttestError {
  return new AttestError(
    'KEY_ENCODING',
    `expected the canonical encoding of a P-256 key (named curve, uncompressed point, ` +
      `${SPKI_LENGTH} bytes), saw another one of ${der.length} bytes`,
  )
}

function checkAlgorithm(key: KeyObject): void {
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (key.asymmetricKeyType === 'ec' && curve === 'prime256v1') return
  const seen = [key.asymmetricKeyType, curve].filter((part) => part !== undefined).join(' ')
  throw new AttestError('KEY_ALGORITHM', `expected an ECDSA key on P-256, saw ${quote(seen)}`)
}

const PEM = /^\s*-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----\s*$/

function decodePem(pem: string, label: string, hint: string): Uint8Array {
  const match = pem.length <= MAX_PEM_LENGTH ? PEM.exec(pem) : null
  if (match === null)
    throw new AttestError('KEY_PEM', `expected one PEM block "BEGIN ${label}", saw something else`)
  if (match[1] !== label)
    throw new AttestError(
      'KEY_PEM',
      `expected PEM "BEGIN ${label}", saw ${quote(`BEGIN ${match[1]}`)} (${hint})`,
    )
  const der = decodeBase64((match[2] ?? '').replace(/\r?\n/g, ''))
  if (der === undefined || der.length === 0)
    throw new AttestError('KEY_PEM', `expected base64 inside "BEGIN ${label}", saw something else`)
  return der
}
