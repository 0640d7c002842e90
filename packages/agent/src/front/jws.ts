// Compact JWS, ES256 only (RFC 7515, RFC 7518 §3.4), and RFC 7638 thumbprints. The JSON is what
// JSON.stringify writes, which is what the broker accepts.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type { PublicJwk } from '@bagcheck/api'
import { AgentError } from '../error.ts'
import { readSecret, writeFile } from '../state-directory.ts'

/** A P-256 key that signs, with its public half. */
export interface SigningKey {
  readonly privateKey: KeyObject
  readonly jwk: PublicJwk
  /** RFC 7638, base64url of sha256. */
  readonly thumbprint: string
}

/** A JWS over `payload`; `header` is written after `alg`. */
export function signJws(
  header: Readonly<Record<string, unknown>>,
  payload: unknown,
  key: SigningKey,
): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'ES256', ...header })}.${part(payload)}`
  const signature = sign('sha256', Buffer.from(signed), {
    key: key.privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  return `${signed}.${signature.toString('base64url')}`
}

/** RFC 7638 §3: members in lexicographic order, no blanks. */
export function thumbprint({ crv, kty, x, y }: PublicJwk): string {
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url')
}

/**
 * The key in `file`, made there (0600) if there is none. It never leaves this host.
 * @throws {AgentError} KEY_FILE_MODE, STATE_INVALID
 */
export function loadNodeKey(file: string): SigningKey {
  let pem = readSecret(file)
  if (pem === undefined) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
    writeFile(file, pem)
  }
  try {
    return signingKey(createPrivateKey(pem))
  } catch (cause) {
    throw new AgentError('STATE_INVALID', `expected a P-256 private key in ${file}`, { cause })
  }
}

/** @throws {TypeError} for anything but a P-256 private key */
export function signingKey(privateKey: KeyObject): SigningKey {
  const { kty, crv, x, y } = createPublicKey(privateKey).export({ format: 'jwk' })
  if (kty !== 'EC' || crv !== 'P-256' || x === undefined || y === undefined)
    throw new TypeError('expected a P-256 key')
  const jwk: PublicJwk = { kty, crv, x, y }
  return { privateKey, jwk, thumbprint: thumbprint(jwk) }
}
