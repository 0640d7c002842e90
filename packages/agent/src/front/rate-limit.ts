/** A token bucket per key; keys that are full again are forgotten. */
export class RateLimit {
  readonly #burst: number
  readonly #perSecond: number
  readonly #now: () => number
  readonly #buckets = new Map<string, { left: number; atMs: number }>()

  constructor(burst: number, perSecond: number, now: () => number) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#now = now
  }

  /** True if `key` could do one more now. */
  has(key: string): boolean {
    return this.#level(this.#buckets.get(key), this.#now()) >= 1
  }

  /** True if `key` may do one more now. */
  take(key: string): boolean {
    const atMs = this.#now()
    if (this.#buckets.size > 10_000) this.#forget(atMs)
    const left = this.#level(this.#buckets.get(key), atMs)
    if (left < 1) return false
    this.#buckets.set(key, { left: left - 1, atMs })
    return true
  }

  #level(bucket: { left: number; atMs: number } | undefined, atMs: number): number {
    if (bucket === undefined) return this.#burst
    const gained = (Math.max(atMs - bucket.atMs, 0) / 1000) * this.#perSecond
    return Math.min(bucket.left + gained, this.#burst)
  }

  #forget(atMs: number): void {
    for (const [key, bucket] of this.#buckets) {
      if (this.#level(bucket, atMs) >= this.#burst) this.#buckets.delete(key)
    }
  }
}
