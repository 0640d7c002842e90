// The main thread's side of the worker: one message for all writes of one turn of the event loop, one
// promise per write, a bound on each.
import { Worker } from 'node:worker_threads'
import { BrokerError } from '../error.ts'
import type { ErrorMessage, QueuedWrite, Reply, Request, WorkerOptions } from './worker.ts'
import {
  checkWrite,
  type AttestationInput,
  type AuthorityInput,
  type BanInput,
  type Committed,
  type DecisionInput,
  type EnrolmentInput,
  type PolicyInput,
  type Write,
} from './writes.ts'

/** Writes that may wait at once; the next is refused, so that a stalled disk does not fill memory. */
const MAX_WAITING = 10_000

interface Waiting {
  resolve(committed: Committed): void
  reject(error: BrokerError): void
  readonly timer: NodeJS.Timeout
}

/** Commits to the log. Every method resolves only when its entry is durable and a checkpoint covers it. */
export class LogClient {
  readonly #worker: Worker
  readonly #timeoutMs: number
  readonly #waiting = new Map<number, Waiting>()
  /** Not posted yet: a message costs far more than what one more write adds to it. */
  #outbox: QueuedWrite[] = []
  #nextId = 0
  /** Why no write can succeed any more. */
  #dead: BrokerError | undefined

  private constructor(worker: Worker, timeoutMs: number) {
    this.#worker = worker
    this.#timeoutMs = timeoutMs
  }

  /**
   * Starts the worker and waits until it has verified the log.
   * @param timeoutMs how long a write may wait for its answer
   * @throws {BrokerError} LOG_CORRUPT, STORE_SCHEMA, STORE_UNAVAILABLE, STORE_FULL, STORE_TIMEOUT
   */
  static async start(options: WorkerOptions, timeoutMs: number): Promise<LogClient> {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: options })
    const client = new LogClient(worker, timeoutMs)
    await new Promise<void>((resolve, reject) => {
      worker.on('message', (reply: Reply) => {
        if (reply.type === 'ready') resolve()
        else if (reply.type === 'failed') client.#die(errorOf(reply.error))
        else client.#settle(reply)
        if (client.#dead !== undefined) reject(client.#dead)
      })
      worker.on('error', (cause) => {
        reject(client.#die(unavailable(`the log's worker failed: ${cause.message}`, cause)))
      })
      worker.on('exit', () => reject(client.#die(unavailable("the log's worker has ended"))))
    })
    return client
  }

  /**
   * Commits a decision.
   * @throws {BrokerError} POLICY_CHANGED, AUTHORITY_CHANGED, NODE_BANNED, NODE_EXPIRED – (allowing decisions) what it rests
   * on has changed; NODE_UNKNOWN; NONCE_REUSED, COUNTER_REUSED – a replay; STORE_… – not committed, or
   * after STORE_TIMEOUT and STORE_UNAVAILABLE perhaps committed: never act on it
   */
  commitDecision(decision: DecisionInput): Promise<Committed> {
    return this.#send({ ...decision, kind: 'decision' })
  }

  /** Commits an attestation. The same envelope again resolves to its first entry. @throws {BrokerError} STORE_… */
  commitAttestation(attestation: AttestationInput): Promise<Committed> {
    return this.#send({ ...attestation, kind: 'attestation' })
  }

  /** Installs a policy. @throws {BrokerError} POLICY_VERSION – not the installed version + 1; STORE_… */
  commitPolicy(policy: PolicyInput): Promise<Committed> {
    return this.#send({ ...policy, kind: 'policy' })
  }

  /**
   * Enrols a node and uses up its join token, in one.
   * @throws {BrokerError} JOIN_TOKEN_USED – exactly one use succeeds; STORE_CONFLICT – the node's id is
   * taken; STORE_…
   */
  commitEnrolment(enrolment: EnrolmentInput): Promise<Committed> {
    return this.#send({ ...enrolment, kind: 'enrolment' })
  }

  /** Bans a node. A second ban resolves to the first's entry. @throws {BrokerError} NODE_UNKNOWN; STORE_… */
  banNode(ban: BanInput): Promise<Committed> {
    return this.#send({ ...ban, kind: 'ban' })
  }

  /**
   * Takes a step in the life of an authority. One that was taken already resolves to its entry.
   * @throws {BrokerError} AUTHORITY_UNKNOWN; AUTHORITY_STATE – no such step from where it stands; STORE_…
   */
  commitAuthority(step: AuthorityInput): Promise<Committed> {
    return this.#send({ ...step, kind: 'authority' })
  }

  /** Throws when no write can succeed any more. @throws {BrokerError} STORE_UNAVAILABLE */
  checkAlive(): void {
    if (this.#dead !== undefined) throw this.#dead
  }

  /** Writes that wait for an answer. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Answers what was sent before, then ends the worker. */
  async close(): Promise<void> {
    if (this.#dead !== undefined) return
    const ended = new Promise((resolve) => this.#worker.once('exit', resolve))
    this.#dead = unavailable('the store is closed')
    this.#flush()
    this.#post({ type: 'close' })
    await ended
  }

  async #send(write: Write): Promise<Committed> {
    checkWrite(write)
    if (this.#dead !== undefined) throw this.#dead
    if (this.#waiting.size >= MAX_WAITING)
      throw new BrokerError('STORE_OVERLOADED', `${MAX_WAITING} writes wait already`)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        const message = `expected the store's answer in ${this.#timeoutMs} ms, saw none`
        reject(new BrokerError('STORE_TIMEOUT', message))
      }, this.#timeoutMs)
      this.#waiting.set(id, { resolve, reject, timer })
      if (this.#outbox.length === 0) setImmediate(() => this.#flush())
      this.#outbox.push({ id, write })
    })
  }

  #flush(): void {
    if (this.#outbox.length === 0) return
    this.#post({ type: 'writes', writes: this.#outbox })
    this.#outbox = []
  }

  #post(request: Request): void {
    this.#worker.postMessage(request)
  }

  #settle(reply: Extract<Reply, { type: 'answers' }>): void {
    for (const answer of reply.answers) {
      const waiting = this.#waiting.get(answer.id)
      if (waiting === undefined) continue // answered too late: its caller has given up
      this.#waiting.delete(answer.id)
      clearTimeout(waiting.timer)
      if ('error' in answer) waiting.reject(errorOf(answer.error))
      else waiting.resolve(answer.committed)
    }
  }

  #die(error: BrokerError): BrokerError {
    this.#dead ??= error
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer)
      reject(error)
    }
    this.#waiting.clear()
    this.#outbox = []
    return this.#dead
  }
}

function unavailable(message: string, cause?: unknown): BrokerError {
  return new BrokerError('STORE_UNAVAILABLE', message, { cause })
}

function errorOf({ code, message, detail }: ErrorMessage): BrokerError {
  return new BrokerError(code, message, { detail })
}
