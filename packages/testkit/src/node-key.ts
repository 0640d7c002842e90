// Keys as nodes and workloads hold them, and what they sign with them.
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import type { PublicJwk } from '@bagcheck/api'
import { jwkThumbprint } from '@bagcheck/attest'

/** A P-256 key with its public half. */
export interface NodeKey {
  readonly key: KeyObject
  readonly jwk: PublicJwk
  /** RFC 7638, base64url. */
  readonly thumbprint: string
}

/** A new key, or `key` with its public half. */
export function nodeKey(
  key: KeyObject = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
): NodeKey {
  const { x = '', y = '' } = key.export({ format: 'jwk' })
  const jwk: PublicJwk = { kty: 'EC', crv: 'P-256', x, y }
  return { key, jwk, thumbprint: jwkThumbprint(jwk) }
}

/** A compact JWS as an agent makes it; `header` may say anything, `alg` too. */
export function signJws(header: object, payload: unknown, key: KeyObject): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'ES256', ...header })}.${part(payload)}`
  const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' })
  return `${signed}.${signature.toString('base64url')}`
}
