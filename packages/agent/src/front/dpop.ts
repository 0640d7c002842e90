// Proof that a workload holds its key: shaped like a DPoP proof (RFC 9449 §4.2), addressed to the agent,
// over a nonce that the agent gave to this very process instance. Checked once; from then on the
// thumbprint is in the evidence, so that no token can be bound to a key that was not measured with the bag.
//   header  {typ: "dpop+jwt", alg: "ES256", jwk: {kty, crv, x, y}}     nothing else
//   payload {jti, htm: "POST", htu: "http://agent/v1/token", iat, nonce}
import { createPublicKey, verify } from 'node:crypto'
import { AgentError } from '../error.ts'
import { thumbprint } from './jws.ts'

/** `htu` of a proof for the agent. */
export const AGENT_TOKEN_URI = 'http://agent/v1/token'
const MAX_PROOF_BYTES = 8 * 1024
const MAX_SKEW_SECONDS = 60
const COORDINATE = /^[A-Za-z0-9_-]{43}$/

/**
 * Thumbprint of the key that made `proof`.
 * @param consumeNonce tells whether a nonce was given to the caller and not used yet, and uses it
 * @throws {AgentError} DPOP_INVALID
 */
export function verifyProof(
  proof: string,
  context: { nowSeconds: number; consumeNonce: (nonce: string) => boolean },
): string {
  if (proof.length > MAX_PROOF_BYTES) throw invalid('the proof is too long')
  const parts = proof.split('.')
  const [header, payload, signature] = parts.map(decodePart)
  if (
    parts.length !== 3 ||
    header === undefined ||
    payload === undefined ||
    signature === undefined
  )
    throw invalid('expected a compact JWS')
  const { alg, typ, jwk } = members(header, ['alg', 'jwk', 'typ'])
  if (alg !== 'ES256' || typ !== 'dpop+jwt') throw invalid('expected alg ES256 and typ dpop+jwt')
  const key = readKey(jwk)
  // The nonce goes first: whatever else is wrong, a proof is tried once.
  const claims = members(payload, ['htm', 'htu', 'iat', 'jti', 'nonce'])
  if (typeof claims['nonce'] !== 'string' || !context.consumeNonce(claims['nonce']))
    throw invalid('expected a nonce that the agent gave to this process, unused')
  if (claims['htm'] !== 'POST' || claims['htu'] !== AGENT_TOKEN_URI)
    throw invalid(`expected htm "POST" and htu "${AGENT_TOKEN_URI}"`)
  if (typeof claims['jti'] !== 'string' || claims['jti'] === '') throw invalid('expected a jti')
  const { iat } = claims
  if (
    !Number.isSafeInteger(iat) ||
    Math.abs((iat as number) - context.nowSeconds) > MAX_SKEW_SECONDS
  )
    throw invalid(`expected iat of now, ± ${MAX_SKEW_SECONDS} s`)
  const signed = Buffer.from(proof.slice(0, proof.lastIndexOf('.')))
  const good =
    signature.length === 64 &&
    verify('sha256', signed, { key: key.publicKey, dsaEncoding: 'ieee-p1363' }, signature)
  if (!good) throw invalid('the signature is not by the key in the header')
  return key.thumbprint
}

function readKey(value: unknown): {
  publicKey: ReturnType<typeof createPublicKey>
  thumbprint: string
} {
  const { kty, crv, x, y } = members(value, ['crv', 'kty', 'x', 'y'])
  if (kty !== 'EC' || crv !== 'P-256' || typeof x !== 'string' || typeof y !== 'string')
    throw invalid('expected a P-256 public key as jwk')
  if (!COORDINATE.test(x) || !COORDINATE.test(y)) throw invalid('expected 32-byte coordinates')
  // 43 characters hold 258 bits: one spelling of a coordinate, or one key would have many thumbprints.
  if ([x, y].some((text) => Buffer.from(text, 'base64url').toString('base64url') !== text))
    throw invalid('expected canonical base64url')
  const jwk = { kty, crv, x, y } as const
  try {
    return { publicKey: createPublicKey({ key: jwk, format: 'jwk' }), thumbprint: thumbprint(jwk) }
  } catch {
    throw invalid('expected a point on P-256 as jwk')
  }
}

function decodePart(part: string): Buffer | undefined {
  const bytes = Buffer.from(part, 'base64url')
  return part !== '' && bytes.toString('base64url') === part ? bytes : undefined
}

/** The members of a JSON object that has exactly `names`. */
function members(value: unknown, names: readonly string[]): Record<string, unknown> {
  let object = value
  if (Buffer.isBuffer(value)) {
    try {
      object = JSON.parse(value.toString('utf8'))
    } catch {
      throw invalid('expected JSON')
    }
  }
  if (typeof object !== 'object' || object === null || Array.isArray(object))
    throw invalid('expected a JSON object')
  if (String(Object.keys(object).toSorted()) !== String(names))
    throw invalid(`expected exactly the members ${names.join(', ')}`)
  return object as Record<string, unknown>
}

function invalid(message: string): AgentError {
  return new AgentError('DPOP_INVALID', message)
}
