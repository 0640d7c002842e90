// The front's end of the connection to the measurer. Nothing is remembered of what the measurer said: while it
// is away, or does not answer, every question is refused, and the connection is made anew with back-off.
import type { Socket } from 'node:net'
import { Channel } from '../channel.ts'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import type { WantedUnit } from '../measure/find-units.ts'
import type {
  HashRequest,
  PathHash,
  ProcessInstance,
  SettledMeasurement,
} from '../measure/messages.ts'
import {
  MAX_ANSWER_BYTES,
  MAX_HASH_PATHS,
  MAX_QUESTIONS,
  parseAnswer,
  parseNotice,
  type Answer,
  type Asked,
  type UnitChangedNotice,
} from '../measure/protocol.ts'

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 2000
const MAX_UNSENT_BYTES = 4 * 1024 * 1024
/** Longer than the measurer lets one measurement take, with others before it. */
export const ANSWER_TIMEOUT_MS = 30_000

/** What the front asks of the measurer. */
export interface Measurers {
  /** @throws {AgentError} PROCESS_GONE, PROC_FORMAT, PROC_UNREADABLE, MEASURER_UNREACHABLE */
  instance(pid: number): Promise<ProcessInstance>
  /** Checks that `instance` is what its process still runs. @throws {AgentError} PROCESS_MOVED, and as above */
  check(instance: ProcessInstance): Promise<void>
  /** The main processes of the units of that name. @throws {AgentError} UNIT_RECORD, and as above */
  find(unit: WantedUnit): Promise<readonly ProcessInstance[]>
  /** Facts about the unit of `instance`. @throws {AgentError} whatever keeps it from being measured */
  measure(instance: ProcessInstance): Promise<SettledMeasurement>
  /**
   * Content of paths of the store that the container of `instance`, its first process, brings itself.
   * @throws {AgentError} whatever keeps it from being read
   */
  hash(instance: ProcessInstance, request: HashRequest): Promise<readonly PathHash[]>
}

interface Waiting {
  readonly resolve: (answer: Answer & { ok: true }) => void
  readonly reject: (error: AgentError) => void
  readonly timer: NodeJS.Timeout
}

/** Asks the measurer at the other end of what `connect` opens. */
export class MeasurerClient implements Measurers, Disposable {
  readonly #connect: () => Promise<Socket>
  readonly #changed: (notice: UnitChangedNotice) => void
  readonly #log: Log
  readonly #timeoutMs: number
  readonly #waiting = new Map<number, Waiting>()
  #channel: Channel | undefined
  #nextId = 1
  #backoffMs = FIRST_BACKOFF_MS
  #retry: NodeJS.Timeout | undefined
  #closed = false

  /**
   * @param connect opens a connection; throws where that is in vain
   * @param changed hears of units that changed since they were measured
   */
  constructor(
    connect: () => Promise<Socket>,
    changed: (notice: UnitChangedNotice) => void,
    log: Log,
    timeoutMs = ANSWER_TIMEOUT_MS,
  ) {
    this.#changed = changed
    this.#connect = connect
    this.#log = log
    this.#timeoutMs = timeoutMs
    void this.#open()
  }

  async instance(pid: number): Promise<ProcessInstance> {
    const answer = await this.#ask({ ask: 'instance', pid })
    if ('instance' in answer && answer.instance.pid === pid) return answer.instance
    throw this.#mistaken()
  }

  async check(instance: ProcessInstance): Promise<void> {
    const answer = await this.#ask({ ask: 'check', instance })
    if (Object.keys(answer).length > 2) throw this.#mistaken() // more than `id` and `ok`
  }

  async find({ launcher, name }: WantedUnit): Promise<readonly ProcessInstance[]> {
    const answer = await this.#ask({ ask: 'find', unit: { launcher, name } })
    if ('instances' in answer) return answer.instances
    throw this.#mistaken()
  }

  /** How it goes. */
  get state(): { readonly up: boolean; readonly waiting: number } {
    return { up: this.#channel !== undefined, waiting: this.#waiting.size }
  }

  async measure(instance: ProcessInstance): Promise<SettledMeasurement> {
    const answer = await this.#ask({ ask: 'measure', instance })
    if ('measurement' in answer) return answer.measurement
    throw this.#mistaken()
  }

  async hash(instance: ProcessInstance, request: HashRequest): Promise<readonly PathHash[]> {
    const hashes: PathHash[] = []
    while (hashes.length < request.paths.length) {
      const paths = request.paths.slice(hashes.length, hashes.length + MAX_HASH_PATHS)
      const answer = await this.#ask({ ask: 'hash', instance, request: { ...request, paths } })
      if (!('hashes' in answer) || answer.hashes.length === 0) throw this.#mistaken()
      if (!answer.hashes.every(({ path }, index) => path === paths[index])) throw this.#mistaken()
      hashes.push(...answer.hashes)
    }
    return hashes
  }

  [Symbol.dispose](): void {
    this.#closed = true
    clearTimeout(this.#retry)
    this.#channel?.end()
  }

  #ask(asked: Asked): Promise<Answer & { ok: true }> {
    return new Promise((resolve, reject) => {
      const channel = this.#channel
      if (channel === undefined)
        return reject(away('the measurer is away; is bagcheck-measurer running?'))
      if (this.#waiting.size >= MAX_QUESTIONS)
        return reject(new AgentError('MEASURER_BUSY', 'too many questions wait for the measurer'))
      const id = this.#nextId++
      const timer = setTimeout(() => {
        // Nobody can tell what it would answer now: what else waits is asked anew, too.
        channel.end(away(`the measurer did not answer within ${this.#timeoutMs} ms`))
      }, this.#timeoutMs)
      this.#waiting.set(id, { resolve, reject, timer })
      channel.send({ id, ...asked })
    })
  }

  async #open(): Promise<void> {
    try {
      const socket = await this.#connect()
      if (this.#closed) return void socket.destroy()
      const limits = { maxFrameBytes: MAX_ANSWER_BYTES, maxUnsentBytes: MAX_UNSENT_BYTES }
      this.#channel = new Channel(socket, limits, {
        frame: (frame) => {
          const notice = parseNotice(frame)
          if (notice === undefined) this.#settle(parseAnswer(frame))
          else this.#changed(notice)
        },
        end: (error) => this.#lose(error),
      })
    } catch (error) {
      this.#lose(error as Error)
    }
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id)
    if (waiting === undefined) throw this.#mistaken()
    this.#waiting.delete(answer.id)
    clearTimeout(waiting.timer)
    this.#backoffMs = FIRST_BACKOFF_MS
    if (answer.ok) waiting.resolve(answer)
    else waiting.reject(new AgentError(answer.code, answer.message))
  }

  /** The connection is gone: who waits is refused, and another is made in a while. */
  #lose(error: Error | undefined): void {
    this.#channel = undefined
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer)
      reject(away('the measurer went away'))
    }
    this.#waiting.clear()
    if (this.#closed) return
    this.#log('error', 'no measurer', error === undefined ? {} : describe(error))
    this.#retry = setTimeout(() => void this.#open(), this.#backoffMs * (0.8 + 0.4 * Math.random()))
    this.#backoffMs = Math.min(this.#backoffMs * 2, MAX_BACKOFF_MS)
  }

  #mistaken(): AgentError {
    return new AgentError('MEASURER_PROTOCOL', 'expected an answer to what was asked')
  }
}

const away = (message: string): AgentError => new AgentError('MEASURER_UNREACHABLE', message)
