// Compact JWS (RFC 7515 §7.1) as Bagcheck's own parties write it: ES256, three parts of canonical
// base64url, a header with exactly the members that are asked for, and JSON exactly as JSON.stringify
// writes it. That last rule refuses duplicate members and second spellings without a parser of our own.
// What a verifier must not do with a foreign JWS (alg, jwk, jku, crit, x5c) cannot be said in a header
// that may only hold three names.
import { verify, type KeyObject } from 'node:crypto'
import { derSignature } from './ecdsa.ts'
import { BrokerError, quote, type BrokerErrorCode } from './error.ts'

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
 * @throws {BrokerError} with `code` – not three canonical base64url parts, or not JSON as
 * `JSON.stringify` writes it
 */
export function parseJws(text: string, code: BrokerErrorCode): UnverifiedJws {
  const first = text.indexOf('.')
  const last = text.lastIndexOf('.')
  if (first <= 0 || last === first || text.indexOf('.', first + 1) !== last)
    throw new BrokerError(code, 'expected a compact JWS of three parts')
  const payloadBytes = decodePart(text.slice(first + 1, last), code)
  const signature = decodePart(text.slice(last + 1), code)
  const header = parseJson(decodePart(text.slice(0, first), code), code)
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    throw new BrokerError(code, 'expected a JSON object as JWS header')
  if (signature.length !== 64)
    throw new BrokerError(code, `expected a signature of 64 bytes, saw ${signature.length}`)
  return {
    header: header as Record<string, unknown>,
    payload: parseJson(payloadBytes, code),
    payloadText: payloadBytes.toString(),
    signed: Buffer.from(text.slice(0, last), 'latin1'),
    signature,
  }
}

/**
 * Checks that a header holds exactly the given members, `alg` being ES256.
 * @throws {BrokerError} with `code`
 */
export function checkHeader(
  jws: UnverifiedJws,
  typ: string,
  other: 'kid' | 'jwk',
  code: BrokerErrorCode,
): void {
  const { header } = jws
  const names = Object.keys(header).toSorted().join(' ')
  const expected = ['alg', other, 'typ'].join(' ')
  if (names !== expected)
    throw new BrokerError(code, `expected header members ${quote(expected)}, saw ${quote(names)}`)
  if (header['alg'] !== 'ES256' || header['typ'] !== typ)
    throw new BrokerError(
      code,
      `expected alg "ES256" and typ ${quote(typ)}, saw ${quote(header['alg'])} and ${quote(header['typ'])}`,
    )
}

/** Tells whether `key` (P-256) signed the bytes received. */
export function jwsSignatureHolds(jws: UnverifiedJws, key: KeyObject): boolean {
  return verify('sha256', jws.signed, key, derSignature(jws.signature))
}

function decodePart(part: string, code: BrokerErrorCode): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.toString('base64url') !== part)
    throw new BrokerError(code, 'expected base64url without padding in every part of the JWS')
  return bytes
}

function parseJson(bytes: Buffer, code: BrokerErrorCode): unknown {
  const text = bytes.toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The text is a client's and may be long; that it is no JSON is all there is to say.
    throw new BrokerError(code, 'expected JSON in the JWS')
  }
  // Replacement characters, duplicate members, spaces and other spellings all fail here.
  if (!Buffer.from(JSON.stringify(value)).equals(bytes))
    throw new BrokerError(code, 'expected JSON as JSON.stringify writes it, without duplicates')
  return value
}
