// How many observations are let into the log: they wait for nothing and nobody waits for them, so they give way
// to decisions. Each node has its own share, and all together have one; while decisions queue up for the store,
// none is taken.
import { BrokerError } from './error.ts'

/** A node with 64 observed units looks at each once a minute. */
const NODE_BURST = 64
const NODE_PER_SECOND = 64 / 60
/** A tenth of what a broker decides. */
const ALL_BURST = 200
const ALL_PER_SECOND = 100
/** Writes of others that wait for the store. */
const MAX_WAITING = 64
const MAX_NODES = 20_000

interface Bucket {
  readonly left: number
  readonly atMs: number
}

/** Token buckets, by node and for all. */
export class ObservationLimits {
  readonly #nowMs: () => number
  readonly #nodes = new Map<string, Bucket>()
  #all: Bucket

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
    this.#all = { left: ALL_BURST, atMs: nowMs() }
  }

  /** @throws {BrokerError} OBSERVATION_LIMIT – try again later */
  take(node: string, waiting: number): void {
    const atMs = this.#nowMs()
    const all = level(this.#all, atMs, ALL_BURST, ALL_PER_SECOND)
    const own = level(this.#nodes.get(node), atMs, NODE_BURST, NODE_PER_SECOND)
    if (waiting > MAX_WAITING || all < 1 || own < 1)
      throw new BrokerError('OBSERVATION_LIMIT', 'observations give way: try again later')
    this.#all = { left: all - 1, atMs }
    this.#nodes.delete(node)
    this.#nodes.set(node, { left: own - 1, atMs })
    const oldest = this.#nodes.keys().next().value
    if (this.#nodes.size > MAX_NODES && oldest !== undefined) this.#nodes.delete(oldest)
  }
}

function level(bucket: Bucket | undefined, atMs: number, burst: number, perSecond: number): number {
  if (bucket === undefined) return burst
  return Math.min(bucket.left + (Math.max(atMs - bucket.atMs, 0) / 1000) * perSecond, burst)
}
