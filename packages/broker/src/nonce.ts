// Nonces without a table: whoever holds the nonce key can tell what it issued, to which node, for which
// purpose and until when.
//
//   nonce = expiry[4, unix seconds, big endian] ‖ random[12] ‖ mac[16]        43 characters of base64url
//   mac   = HMAC-SHA256(nonceKey, "bagcheck-nonce/v1" ‖ node ‖ 00 ‖ purpose ‖ 00 ‖ expiry ‖ random)[:16]
//
// A nonce is consumed before any signature is checked, so that of two requests that race one nonce only
// one is looked at. The set in memory forgets at expiry; the UNIQUE column of the committing transaction
// covers restarts and replicas.
import { createHmac, timingSafeEqual, type KeyObject } from 'node:crypto'
import { BrokerError } from './error.ts'

/** Lifetime of a nonce. */
export const NONCE_TTL_SECONDS = 60
/** Consumed nonces remembered at once; above this, requests are refused instead of forgotten. */
export const MAX_CONSUMED_NONCES = 1_000_000

/** What a nonce is good for. */
export interface NonceUse {
  readonly node: string
  readonly purpose: 'issue' | 'renew' | 'observe'
}

/** Issues a nonce. `key` is a secret of 32 bytes, `random` is 12 fresh random bytes. */
export function issueNonce(
  key: KeyObject,
  use: NonceUse,
  nowSeconds: number,
  random: Uint8Array,
): string {
  if (random.length !== 12) throw new TypeError('a nonce needs 12 random bytes')
  const head = Buffer.alloc(16)
  head.writeUInt32BE(nowSeconds + NONCE_TTL_SECONDS)
  head.set(random, 4)
  return Buffer.concat([head, macOf(key, use, head)]).toString('base64url')
}

/** The nonces that were used and have not expired, and the key that tells our own. */
export class NonceBook {
  readonly #key: KeyObject
  // By expiry second, so that forgetting is dropping whole sets.
  readonly #consumed = new Map<number, Set<string>>()
  #count = 0

  constructor(key: KeyObject) {
    this.#key = key
  }

  /** A new nonce; see {@link issueNonce}. */
  issue(use: NonceUse, nowSeconds: number, random: Uint8Array): string {
    return issueNonce(this.#key, use, nowSeconds, random)
  }

  /**
   * Checks a nonce and uses it up.
   * @throws {BrokerError} NONCE_INVALID – not issued by us to this node for this purpose;
   * NONCE_EXPIRED; NONCE_REUSED; OVERLOADED
   */
  consume(nonce: string, use: NonceUse, nowSeconds: number): void {
    const bytes = Buffer.from(nonce, 'base64url')
    // 43 characters hold 258 bits: the text must be the one spelling of its 256.
    if (bytes.length !== 32 || bytes.toString('base64url') !== nonce)
      throw new BrokerError('NONCE_INVALID', 'expected 32 bytes in base64url as nonce')
    const head = bytes.subarray(0, 16)
    if (!timingSafeEqual(macOf(this.#key, use, head), bytes.subarray(16)))
      throw new BrokerError(
        'NONCE_INVALID',
        'expected a nonce issued here to this node for this purpose, saw another',
      )
    const expiry = head.readUInt32BE(0)
    this.#forget(nowSeconds)
    if (nowSeconds >= expiry)
      throw new BrokerError('NONCE_EXPIRED', `the nonce expired ${nowSeconds - expiry} s ago`)
    const bucket = this.#consumed.get(expiry) ?? new Set()
    if (bucket.has(nonce)) throw new BrokerError('NONCE_REUSED', 'the nonce was used before')
    if (this.#count >= MAX_CONSUMED_NONCES)
      throw new BrokerError('OVERLOADED', 'too many nonces were used within one minute')
    this.#consumed.set(expiry, bucket.add(nonce))
    this.#count++
  }

  #forget(nowSeconds: number): void {
    for (const [expiry, bucket] of this.#consumed) {
      // A clock that steps back a little must not revive a nonce that was forgotten.
      if (expiry + NONCE_TTL_SECONDS > nowSeconds) continue
      this.#count -= bucket.size
      this.#consumed.delete(expiry)
    }
  }
}

function macOf(key: KeyObject, use: NonceUse, head: Uint8Array): Buffer {
  return createHmac('sha256', key)
    .update(`bagcheck-nonce/v1${use.node}\0${use.purpose}\0`)
    .update(head)
    .digest()
    .subarray(0, 16)
}
