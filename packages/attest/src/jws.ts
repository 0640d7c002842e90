// Compact JWS (RFC 7515 §7.1) as Bagcheck's own parties write it: ES256, three parts of canonical
// base64url, a header with exactly the members that are asked for, and JSON exactly as JSON.stringify
// writes it. That last rule refuses duplicate members and second spellings without a parser of our own.
// What a verifier must not do with a foreign JWS (alg, jwk, jku, crit, x5c) cannot be said in a header
// that may only hold three names. Limit: 4 MiB; what is read from a network is limited before.
import { hash, verify, type KeyObject } from 'node:crypto'
import { derSignature } from './ecdsa.ts'
import { AttestError, quote } from './error.ts'

/** Longest text that is taken apart. */
export const MAX_JWS_BYTES: number = 4 * 1024 * 1024

/** A parsed JWS whose signature has not been checked. */
export interface UnverifiedJws {
  readonly header: Readonly<Record<string, unknown>>
  readonly payload: unknown
  readonly payloadText: string
  /** The bytes that were signed, as received. */
  readonly signed: Uint8Array
  readonly signature: Uint8Array
}

/**
 * Splits and decodes a compact JWS.
 *
 * @throws {AttestError} JWS_FORMAT – too long, not three canonical base64url parts, or not JSON as
 * `JSON.stringify` writes it
 * @see RFC 7515 §7.1
 */
export function parseJws(text: string): UnverifiedJws {
  if (text.length > MAX_JWS_BYTES)
    throw malformed(`expected at most ${MAX_JWS_BYTES} characters, saw ${text.length}`)
  const first = text.indexOf('.')
  const last = text.lastIndexOf('.')
  if (first <= 0 || last === first || text.indexOf('.', first + 1) !== last)
    throw malformed('expected a compact JWS of three parts')
  const payloadBytes = decodePart(text.slice(first + 1, last))
  const signature = decodePart(text.slice(last + 1))
  const header = parseJson(decodePart(text.slice(0, first)))
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    throw malformed('expected a JSON object as JWS header')
  if (signature.length !== 64)
    throw malformed(`expected a signature of 64 bytes, saw ${signature.length}`)
  return {
    header: header as Record<string, unknown>,
    payload: parseJson(payloadBytes),
    payloadText: payloadBytes.toString(),
    signed: Buffer.from(text.slice(0, last), 'latin1'),
    signature,
  }
}

/**
 * Checks that a header holds `alg` (ES256), `typ`, one member that tells the key, and no other.
 *
 * @throws {AttestError} JWS_HEADER
 */
export function checkJwsHeader({ header }: UnverifiedJws, typ: string, key: 'kid' | 'jwk'): void {
  const names = Object.keys(header).toSorted().join(' ')
  const expected = ['alg', key, 'typ'].join(' ')
  if (names !== expected)
    throw new AttestError(
      'JWS_HEADER',
      `expected header members ${quote(expected)}, saw ${quote(names)}`,
    )
  if (header['alg'] !== 'ES256' || header['typ'] !== typ)
    throw new AttestError(
      'JWS_HEADER',
      `expected alg "ES256" and typ ${quote(typ)}, saw ${quote(header['alg'])} and ${quote(header['typ'])}`,
    )
}

/** Tells whether `key` (P-256) signed the bytes received. */
export function jwsSignatureHolds(jws: UnverifiedJws, key: KeyObject): boolean {
  return verify('sha256', jws.signed, key, derSignature(jws.signature))
}

function decodePart(part: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.toString('base64url') !== part)
    throw malformed('expected base64url without padding in every part of the JWS')
  return bytes
}

function parseJson(bytes: Buffer): unknown {
  const text = bytes.toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The text is a stranger's and may be long; that it is no JSON is all there is to say.
    throw malformed('expected JSON in the JWS')
  }
  // Replacement characters, duplicate members, spaces and other spellings all fail here.
  if (!Buffer.from(JSON.stringify(value)).equals(bytes))
    throw malformed('expected JSON as JSON.stringify writes it, without duplicates')
  return value
}

function malformed(message: string): AttestError {
  return new AttestError('JWS_FORMAT', message)
}

/**
 * The RFC 7638 thumbprint of a P-256 key, in base64url: sha256 of these members in this very order.
 *
 * @see RFC 7638 §3
 */
export function jwkThumbprint(jwk: {
  readonly crv: string
  readonly kty: string
  readonly x: string
  readonly y: string
}): string {
  const { crv, kty, x, y } = jwk
  return hash('sha256', JSON.stringify({ crv, kty, x, y }), 'base64url')
}
