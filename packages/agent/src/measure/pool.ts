// Threads that measure. A thread takes one request at a time; one that does not answer in time (a read
// that hangs) is given up, answers nothing more, and another takes its place, until too many are lost:
// then the agent measures nothing, because a kernel that hangs on reads is no host to vouch for.
//
// What must be the same whichever thread answers is kept here: the first sights of services.
import { Worker } from 'node:worker_threads'
import { AgentError } from '../error.ts'
import type { FirstSights } from './first-sights.ts'
import type {
  HashRequest,
  Measurement,
  MeasureReply,
  MeasureRequest,
  MeasurerOptions,
  PathHash,
  ProcessInstance,
} from './messages.ts'

/** Limits of a {@link MeasurerPool}. */
export interface PoolLimits {
  readonly threads: number
  readonly timeoutMs: number
  /** Requests that wait for a thread. */
  readonly maxWaiting: number
  /** Threads given up before nothing is measured any more. */
  readonly maxLost: number
}

/** Bounds that suit a host with some hundred units. */
export const DEFAULT_POOL_LIMITS: PoolLimits = {
  threads: 2,
  timeoutMs: 15_000,
  maxWaiting: 256,
  maxLost: 8,
}

/** A measurement leaves much garbage and keeps little; by itself V8 would take 48 MB before it looks. */
const YOUNG_GENERATION_MB = 3

interface Job {
  readonly request: MeasureRequest
  readonly resolve: (reply: MeasureReply & { readonly ok: true }) => void
  readonly reject: (error: AgentError) => void
}

/** A thread and what it works on. */
interface Thread {
  readonly worker: Worker
  job: Job | undefined
  timer: NodeJS.Timeout | undefined
}

/** Measures units in threads of its own. */
export class MeasurerPool implements AsyncDisposable {
  readonly #options: MeasurerOptions
  readonly #firstSights: FirstSights
  readonly #limits: PoolLimits
  readonly #threads = new Set<Thread>()
  readonly #waiting: Job[] = []
  #lost = 0
  #nextId = 1
  #closed = false

  constructor(
    options: MeasurerOptions,
    firstSights: FirstSights,
    limits: PoolLimits = DEFAULT_POOL_LIMITS,
  ) {
    this.#options = options
    this.#firstSights = firstSights
    this.#limits = limits
  }

  /**
   * Facts about the unit of `instance`.
   * @throws {AgentError} MEASURER_BUSY, MEASUREMENT_TIMEOUT, STATE_INVALID if a first sight cannot be
   *   written down, and what the measurer answers
   */
  async measure(instance: ProcessInstance): Promise<Measurement> {
    const reply = await this.#ask({ instance })
    if ('measurement' in reply) return this.#settle(reply.measurement)
    throw new TypeError('expected a measurement')
  }

  /**
   * Content of paths of the store that the container of `instance`, its first process, brings itself.
   * @throws {AgentError} MEASURER_BUSY, MEASUREMENT_TIMEOUT, and what the measurer answers
   */
  async hash(instance: ProcessInstance, request: HashRequest): Promise<PathHash[]> {
    const hashes: PathHash[] = []
    while (hashes.length < request.paths.length) {
      const paths = request.paths.slice(hashes.length)
      const reply = await this.#ask({ instance, hash: { ...request, paths } })
      if (!('hashes' in reply) || reply.hashes.length === 0) throw new TypeError('expected hashes')
      hashes.push(...reply.hashes)
    }
    return hashes
  }

  #ask(request: Omit<MeasureRequest, 'id'>): Promise<MeasureReply & { readonly ok: true }> {
    return new Promise((resolve, reject) => {
      if (this.#closed || this.#waiting.length >= this.#limits.maxWaiting)
        return reject(new AgentError('MEASURER_BUSY', 'too many measurements are waiting'))
      if (this.#lost >= this.#limits.maxLost)
        return reject(new AgentError('MEASURER_BUSY', `${this.#lost} measurements hang`))
      this.#waiting.push({ request: { id: this.#nextId++, ...request }, resolve, reject })
      this.#next()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    for (const job of this.#waiting.splice(0)) job.reject(stopping())
    await Promise.all(
      [...this.#threads].map(async (thread) => {
        this.#drop(thread, stopping())
        await thread.worker.terminate()
      }),
    )
  }

  /** Gives the next request to a thread, if there is one of each. */
  #next(): void {
    if (this.#closed || this.#waiting.length === 0) return
    const free = [...this.#threads].find((thread) => thread.job === undefined)
    if (free === undefined && this.#threads.size >= this.#limits.threads) return
    const thread = free ?? this.#start()
    const job = this.#waiting.shift() as Job
    thread.job = job
    thread.timer = setTimeout(() => this.#giveUp(thread), this.#limits.timeoutMs)
    thread.worker.ref()
    thread.worker.postMessage(job.request)
  }

  #start(): Thread {
    const worker = new Worker(new URL('./measure-worker.ts', import.meta.url), {
      workerData: this.#options,
      name: 'measurer',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    })
    const thread: Thread = { worker, job: undefined, timer: undefined }
    this.#threads.add(thread)
    worker.on('message', (reply: MeasureReply) => this.#finish(thread, reply))
    const failed = (cause: unknown): void => {
      this.#drop(thread, new AgentError('PROC_UNREADABLE', `the measurer ended: ${cause}`))
      this.#next()
    }
    worker.on('error', failed)
    worker.on('exit', failed)
    return thread
  }

  #finish(thread: Thread, reply: MeasureReply): void {
    const { job } = thread
    if (job?.request.id !== reply.id) return
    clearTimeout(thread.timer)
    thread.job = undefined
    thread.worker.unref()
    if (reply.ok) job.resolve(reply)
    else job.reject(new AgentError(reply.code, reply.message, { cause: reply.stack }))
    this.#next()
  }

  /** The measurement, with the contract of a service as it was at first sight. */
  #settle(measurement: Measurement): Measurement {
    const { main, unit } = measurement
    if (main === null) return measurement
    return { ...measurement, unit: this.#firstSights.settleUnit(unit, main) }
  }

  #giveUp(thread: Thread): void {
    const { timeoutMs } = this.#limits
    this.#lost += 1
    // It ends, at the latest, with the read that it hangs in.
    thread.worker.once('exit', () => (this.#lost -= 1))
    this.#drop(thread, new AgentError('MEASUREMENT_TIMEOUT', `no answer within ${timeoutMs} ms`))
    thread.worker.unref()
    void thread.worker.terminate() // its exit is awaited above
    this.#next()
  }

  /** Takes a thread out of service and fails its job. */
  #drop(thread: Thread, error: AgentError): void {
    clearTimeout(thread.timer)
    this.#threads.delete(thread)
    const { job } = thread
    thread.job = undefined
    job?.reject(error)
  }
}

const stopping = (): AgentError => new AgentError('MEASURER_BUSY', 'the agent is stopping')
