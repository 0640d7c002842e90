// Nonces for workload keys: given to one process instance, good once, for a minute.
import { AgentError } from '../error.ts'

const TTL_MS = 60_000
const MAX_NONCES = 16_384
const MAX_PER_OWNER = 16

/** Nonces that were given out and not used yet. */
export class NonceBook {
  readonly #nonces = new Map<string, { owner: string; expiresAtMs: number }>()
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /**
   * Remembers `nonce` as given to `owner`.
   * @throws {AgentError} REQUEST_LIMIT
   */
  give(owner: string, nonce: string): string {
    this.#forget()
    let owned = 0
    for (const entry of this.#nonces.values()) if (entry.owner === owner) owned += 1
    if (owned >= MAX_PER_OWNER || this.#nonces.size >= MAX_NONCES)
      throw new AgentError('REQUEST_LIMIT', 'too many nonces were asked for and not used')
    this.#nonces.set(nonce, { owner, expiresAtMs: this.#now() + TTL_MS })
    return nonce
  }

  /** True if `owner` was given `nonce` within the last minute and did not use it; uses it. */
  consume(owner: string, nonce: string): boolean {
    this.#forget()
    if (this.#nonces.get(nonce)?.owner !== owner) return false
    return this.#nonces.delete(nonce)
  }

  #forget(): void {
    const now = this.#now()
    // Insertion order is order of expiry.
    for (const [nonce, { expiresAtMs }] of this.#nonces) {
      if (expiresAtMs > now) return
      this.#nonces.delete(nonce)
    }
  }
}
