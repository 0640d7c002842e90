// Threads that measure, and who is measured next. One unit must not keep the others waiting, however often it
// asks and however long it takes:
//   - at most one measurement of a unit is under way. Whoever asks meanwhile waits for the next one, which all of
//     them share: facts are never older than the question. What does not tell of a process that asked is not for
//     it; it is measured by itself then.
//   - a unit gets half a thread's time, after a first 20 seconds that are free: what it had beyond that it rests.
//   - who has waited for too long is told so, and may ask again. Its front gives the whole measurer up when an answer
//     does not come, and one unit must not bring that about by making others of its cgroup wait.
//   - a thread more is started only when somebody has waited for a moment, and ends when it has had nothing to do for
//     a while, because each keeps some 15 MB. One stays.
//   - a thread that does not answer in time (a read that hangs) is given up and another takes its place. Its unit
//     is not measured again before it ends, nor is any of its user (but root's) while two of that user's hang. With
//     too many given up nothing is measured any more, because a kernel that hangs on reads is no host to vouch for.
//
// The content of a container's own store is hashed alike: by jobs of their own, a few seconds each, on that unit's
// time.
//
// What must be the same whichever thread answers is kept here: the first sights of services.
import { Worker } from 'node:worker_threads'
import { AgentError } from '../error.ts'
import type { FirstSights } from './first-sights.ts'
import { assertInstance } from './instance.ts'
import type {
  HashRequest,
  Measurement,
  MeasureReply,
  MeasureRequest,
  MeasurerOptions,
  PathHash,
  ProcessInstance,
} from './messages.ts'
import { readProcText } from './proc-file.ts'
import { findCgroupMount, unitKeyOf } from './unit-key.ts'

/** Limits of a {@link MeasurerPool}. */
export interface PoolLimits {
  /** At most so many at a time; one stays when nobody asks. */
  readonly threads: number
  /** How long somebody waits before a thread more is started, which takes 50 ms itself. */
  readonly patienceMs: number
  /** How long such a thread has nothing to do before it ends. */
  readonly idleMs: number
  readonly timeoutMs: number
  /** Requests that wait for a measurement, of all units and of each. */
  readonly maxWaiting: number
  readonly maxWaitingOfUnit: number
  /** Longest wait. With `timeoutMs` it must be less than a front waits for an answer. */
  readonly maxWaitMs: number
  /** Threads given up before nothing is measured any more, and nothing of one user. */
  readonly maxLost: number
  readonly maxLostOfUser: number
}

/** Bounds that suit a host with some hundred units. */
export const DEFAULT_POOL_LIMITS: PoolLimits = {
  threads: 2,
  patienceMs: 100,
  idleMs: 20_000,
  timeoutMs: 15_000,
  maxWaiting: 1024,
  maxWaitingOfUnit: 128,
  maxWaitMs: 10_000,
  maxLost: 8,
  maxLostOfUser: 2,
}

/** Thread time that a unit gets at once, and per millisecond. */
const BURST_MS = 20_000
const SHARE = 0.5
/** Longest that a hash waits for its unit to have rested: whoever asks must hear in time. */
const MAX_REST_MS = 10_000

/** A measurement leaves much garbage and keeps little; by itself V8 would take 48 MB before it looks. */
const YOUNG_GENERATION_MB = 3

type Done = MeasureReply & { readonly ok: true }

interface Asker {
  readonly instance: ProcessInstance
  /** Whose process it is. */
  readonly uid: number
  readonly askedMs: number
  /** What is hashed is for this asker alone. */
  readonly hash?: HashRequest
  readonly resolve: (reply: Done) => void
  readonly reject: (error: AgentError) => void
  /** Waits no longer, though it may be under way. */
  overdue: boolean
}

/** What asks together: see unit-key.ts. */
interface Unit {
  readonly waiting: Asker[]
  running: boolean
  /** Thread time that was left to it at some time. */
  leftMs: number
  leftAtMs: number
  /** A thread hangs in it. */
  hangs: boolean
}

interface Job {
  readonly id: number
  readonly unit: Unit
  readonly startedMs: number
  /** The first is measured. */
  readonly askers: readonly [Asker, ...Asker[]]
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
  readonly #cgroupMount: string | undefined = findCgroupMount()
  readonly #threads = new Set<Thread>()
  // In the order in which they are looked at: who was measured goes to the end.
  readonly #units = new Map<string, Unit>()
  #waiting = 0
  /** Threads that were given up and have not ended, by the user whose process they hang in. */
  readonly #lost = new Map<Thread, number>()
  #nextId = 1
  #wake: NodeJS.Timeout | undefined
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
   * Facts about the unit of `instance`, read after this call.
   * @throws {AgentError} MEASURER_BUSY, MEASUREMENT_TIMEOUT, STATE_INVALID if a first sight cannot be
   *   written down, and what the measurer answers
   */
  async measure(instance: ProcessInstance): Promise<Measurement> {
    const done = await this.#ask(instance)
    if ('measurement' in done) return done.measurement
    throw new TypeError('expected a measurement')
  }

  /**
   * Content of the first of the paths, at least one, of the store that the container of `instance`, its first
   * process, brings itself.
   * @throws {AgentError} MEASURER_BUSY, MEASUREMENT_TIMEOUT, and what the measurer answers
   */
  async hash(instance: ProcessInstance, request: HashRequest): Promise<readonly PathHash[]> {
    const done = await this.#ask(instance, request)
    if ('hashes' in done) return done.hashes
    throw new TypeError('expected hashes')
  }

  #ask(instance: ProcessInstance, hash?: HashRequest): Promise<Done> {
    return new Promise((resolve, reject) => {
      const { maxWaiting, maxWaitingOfUnit, maxWaitMs } = this.#limits
      if (this.#closed || this.#waiting >= maxWaiting)
        throw new AgentError('MEASURER_BUSY', 'too many measurements are waiting')
      const uid = realUserOf(instance.pid)
      this.#assertFewLost(uid)
      const unit = this.#unit(unitKeyOf(instance.pid, this.#cgroupMount))
      if (unit.hangs)
        throw new AgentError('MEASUREMENT_TIMEOUT', 'an earlier measurement of this unit hangs')
      if (unit.waiting.length >= maxWaitingOfUnit)
        throw new AgentError('MEASURER_BUSY', 'too many measurements of this unit are waiting')
      const restMs = -budgetOf(unit, performance.now()) / SHARE
      if (hash !== undefined && restMs > MAX_REST_MS)
        throw new AgentError('MEASURER_BUSY', 'this unit has had more than its share of time')
      const asker: Asker = {
        ...{ instance, uid, askedMs: performance.now() },
        ...(hash === undefined ? {} : { hash }),
        resolve: (done) => {
          clearTimeout(patience)
          resolve(done)
        },
        reject: (error) => {
          clearTimeout(patience)
          reject(error)
        },
        overdue: false,
      }
      const patience = setTimeout(() => this.#tire(unit, asker), maxWaitMs).unref()
      unit.waiting.push(asker)
      this.#waiting += 1
      this.#next()
    })
  }

  /** @throws {AgentError} MEASURER_BUSY */
  #assertFewLost(uid: number): void {
    const { maxLost, maxLostOfUser } = this.#limits
    if (this.#lost.size >= maxLost)
      throw new AgentError('MEASURER_BUSY', `${this.#lost.size} measurements hang`)
    const own = this.#lostOf(uid)
    // Root's services have nothing in common but their user, and root could do worse.
    if (uid !== 0 && own >= maxLostOfUser)
      throw new AgentError('MEASURER_BUSY', `${own} measurements of user ${uid} hang`)
  }

  /** Refuses who still waits; who is being measured may yet get that measurement, and no other. */
  #tire(unit: Unit, asker: Asker): void {
    asker.overdue = true
    const index = unit.waiting.indexOf(asker)
    if (index < 0) return
    unit.waiting.splice(index, 1)
    this.#waiting -= 1
    asker.reject(tired())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#wake)
    for (const unit of this.#units.values()) this.#refuse(unit, stopping())
    await Promise.all(
      [...this.#threads].map(async (thread) => {
        this.#drop(thread, stopping())
        await thread.worker.terminate()
      }),
    )
  }

  #unit(key: string): Unit {
    const known = this.#units.get(key)
    if (known !== undefined) return known
    const budget = { leftMs: BURST_MS, leftAtMs: performance.now() }
    const unit: Unit = { waiting: [], running: false, ...budget, hangs: false }
    this.#units.set(key, unit)
    return unit
  }

  /** Gives units whose turn it is to threads that are free. */
  #next(): void {
    clearTimeout(this.#wake)
    if (this.#closed) return
    const now = performance.now()
    let wakeMs = Infinity
    for (const [key, unit] of this.#units) {
      if (unit.running || unit.hangs) continue
      const leftMs = budgetOf(unit, now)
      if (unit.waiting.length === 0) {
        if (leftMs >= BURST_MS) this.#units.delete(key)
        continue
      }
      if (leftMs < 0) {
        wakeMs = Math.min(wakeMs, -leftMs / SHARE)
        continue
      }
      // Who came before the others hung must not lose more threads.
      if (!this.#dropHopeless(unit) || this.#mayLoseMore(unit)) continue
      const patienceMs = this.#limits.patienceMs - (now - (unit.waiting[0]?.askedMs ?? now))
      const thread = this.#freeThread(patienceMs <= 0)
      if (thread === undefined) {
        if (patienceMs > 0) wakeMs = Math.min(wakeMs, patienceMs)
        break
      }
      this.#units.delete(key)
      this.#units.set(key, unit)
      this.#give(thread, unit)
    }
    if (wakeMs < Infinity) this.#wake = setTimeout(() => this.#next(), Math.ceil(wakeMs))
  }

  #lostOf(uid: number): number {
    return [...this.#lost.values()].filter((user) => user === uid).length
  }

  /** Refuses who waits in `unit` and may not be measured any more; true if others are left. */
  #dropHopeless(unit: Unit): boolean {
    for (const asker of unit.waiting.splice(0)) {
      try {
        this.#assertFewLost(asker.uid)
        unit.waiting.push(asker)
      } catch (error) {
        this.#waiting -= 1
        asker.reject(error as AgentError) // nothing else is thrown above
      }
    }
    return unit.waiting.length > 0
  }

  /** True if what runs of its user, should that hang like what did before, is as much as may: its turn comes later. */
  #mayLoseMore({ waiting }: Unit): boolean {
    const uid = waiting[0]?.uid ?? 0
    const lost = this.#lostOf(uid)
    const running = [...this.#threads].filter(({ job }) => job?.askers[0].uid === uid).length
    return uid !== 0 && lost > 0 && lost + running >= this.#limits.maxLostOfUser
  }

  /** One that has nothing to do, the oldest first, so that the others may end; else a new one, if it may start. */
  #freeThread(mayStart: boolean): Thread | undefined {
    const free = [...this.#threads].find((thread) => thread.job === undefined)
    if (free !== undefined) return free
    const { size } = this.#threads
    return size === 0 || (mayStart && size < this.#limits.threads) ? this.#start() : undefined
  }

  /** Ends a thread, but the last, that has nothing to do for a while. */
  #rest(thread: Thread): void {
    thread.timer = setTimeout(() => {
      if (this.#threads.size === 1 || this.#closed) return
      this.#threads.delete(thread)
      void thread.worker.terminate() // nobody waits for it
    }, this.#limits.idleMs).unref()
  }

  #give(thread: Thread, unit: Unit): void {
    const [first] = unit.waiting as [Asker, ...Asker[]] // the caller has looked
    const askers = takeTogether(unit.waiting, first)
    this.#waiting -= askers.length
    unit.running = true
    const job = { id: this.#nextId++, unit, startedMs: performance.now(), askers }
    thread.job = job
    clearTimeout(thread.timer)
    thread.timer = setTimeout(() => this.#giveUp(thread), this.#limits.timeoutMs)
    thread.worker.ref()
    const { instance, hash } = first
    const request: MeasureRequest = {
      id: job.id,
      instance,
      ...(hash === undefined ? {} : { hash }),
    }
    thread.worker.postMessage(request)
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
    if (job?.id !== reply.id) return
    clearTimeout(thread.timer)
    thread.job = undefined
    thread.worker.unref()
    const [first, ...others] = job.askers
    try {
      if (!reply.ok) throw new AgentError(reply.code, reply.message, { cause: reply.stack })
      if ('hashes' in reply) first.resolve(reply)
      else {
        const settled = { ...reply, measurement: this.#settle(reply.measurement) }
        first.resolve(settled)
        const left = others.filter((asker) => !share(asker, settled))
        this.#wait(job.unit, left)
      }
    } catch (error) {
      first.reject(error as AgentError) // nothing else is thrown above
      // It may be about that process alone.
      this.#wait(job.unit, others)
    }
    this.#charge(job)
    this.#rest(thread)
    this.#next()
  }

  /** Puts askers before those who came later. */
  #wait(unit: Unit, askers: readonly Asker[]): void {
    for (const { overdue, reject } of askers) if (overdue) reject(tired())
    const patient = askers.filter(({ overdue }) => !overdue)
    unit.waiting.unshift(...patient)
    this.#waiting += patient.length
  }

  #charge({ unit, startedMs }: Job): void {
    const now = performance.now()
    unit.running = false
    unit.leftMs = budgetOf(unit, now) - (now - startedMs)
    unit.leftAtMs = now
  }

  /** The measurement, with the contract of a service as it was at first sight. */
  #settle(measurement: Measurement): Measurement {
    const { main, unit } = measurement
    if (main === null) return measurement
    return { ...measurement, unit: this.#firstSights.settleUnit(unit, main) }
  }

  #giveUp(thread: Thread): void {
    const { timeoutMs } = this.#limits
    const { unit, askers } = thread.job ?? {}
    const error = new AgentError('MEASUREMENT_TIMEOUT', `no answer within ${timeoutMs} ms`)
    this.#lost.set(thread, askers?.[0].uid ?? 0)
    // It ends, at the latest, with the read that it hangs in.
    thread.worker.once('exit', () => {
      this.#lost.delete(thread)
      if (unit !== undefined) unit.hangs = false
      this.#next()
    })
    this.#drop(thread, error)
    if (unit !== undefined) {
      unit.hangs = true
      this.#refuse(unit, error)
    }
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
    if (job === undefined) return
    this.#charge(job)
    for (const { reject } of job.askers) reject(error)
  }

  #refuse(unit: Unit, error: AgentError): void {
    const askers = unit.waiting.splice(0)
    this.#waiting -= askers.length
    for (const { reject } of askers) reject(error)
  }
}

function budgetOf({ leftMs, leftAtMs }: Unit, nowMs: number): number {
  return Math.min(leftMs + (nowMs - leftAtMs) * SHARE, BURST_MS)
}

/** Takes `first` out of those who wait, and who can share what comes of it: all who want a measurement. */
function takeTogether(waiting: Asker[], first: Asker): [Asker, ...Asker[]] {
  const all = waiting.splice(0)
  const shares = (asker: Asker): boolean => first.hash === undefined && asker.hash === undefined
  waiting.push(...all.filter((asker) => asker !== first && !shares(asker)))
  return [first, ...all.filter((asker) => asker !== first && shares(asker))]
}

/** Gives a measurement to who asked before it began, if it tells of that process; true if that is so. */
function share(
  { instance, resolve, reject }: Asker,
  settled: Done & { readonly measurement: Measurement },
): boolean {
  const told = settled.measurement.processes.some(
    ({ pid, startTicks }) => pid === instance.pid && startTicks === instance.startTicks,
  )
  if (!told) return false
  try {
    // An instance that is the same now as when it connected was the same in between.
    assertInstance(instance)
    resolve(settled)
  } catch (error) {
    reject(error as AgentError) // it is gone, moved or unreadable
  }
  return true
}

/** The user that started a process; what it may have become since is no other's business. @throws {AgentError} PROCESS_GONE */
function realUserOf(pid: number): number {
  const uid = /^Uid:\t(\d+)\t/m.exec(readProcText(`/proc/${pid}/status`, MAX_STATUS_BYTES))?.[1]
  if (uid === undefined) throw new AgentError('PROC_FORMAT', `expected a user of process ${pid}`)
  return Number(uid)
}
const MAX_STATUS_BYTES = 64 * 1024

const tired = (): AgentError =>
  new AgentError('MEASURER_BUSY', 'others of this unit are measured first, and that takes long')
const stopping = (): AgentError => new AgentError('MEASURER_BUSY', 'the agent is stopping')
