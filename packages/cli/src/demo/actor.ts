// A process of the demo that says what happens to it in JSON lines on standard output.
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { CliError } from '../error.ts'

/** One line that an actor printed. */
export type ActorEvent = Readonly<Record<string, unknown>>

const KEPT_COMPLAINTS = 4000
const STOP_TIMEOUT_MS = 5000

/** A running process; made by {@link startActor}. */
export class Actor {
  readonly name: string
  readonly #child: ChildProcess
  readonly #signal: AbortSignal
  readonly #events: ActorEvent[] = []
  readonly #ended: Promise<void>
  #waiters: (() => void)[] = []
  #complaints = ''

  constructor(name: string, child: ChildProcess, signal: AbortSignal) {
    this.name = name
    this.#signal = signal
    this.#child = child
    if (child.stdout) {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const event = parseLine(line)
        if (event === undefined) return
        this.#events.push(event)
        this.#wake()
      })
    }
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-KEPT_COMPLAINTS)
    })
    this.#ended = new Promise((resolve) => {
      child.once('close', () => {
        this.#wake()
        resolve()
      })
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** How many events there have been: a place to wait from. */
  get position(): number {
    return this.#events.length
  }

  /** What came since `position`. */
  since(position: number): readonly ActorEvent[] {
    return this.#events.slice(position)
  }

  /**
   * The first event since `position` that fits.
   * @throws {CliError} DEMO_STEP – none came in time, or the process ended without one
   */
  async next(
    fits: (event: ActorEvent) => boolean,
    { from = 0, timeoutMs = 15_000 }: { from?: number; timeoutMs?: number } = {},
  ): Promise<ActorEvent> {
    const deadline = AbortSignal.timeout(timeoutMs)
    const over = AbortSignal.any([deadline, this.#signal])
    for (;;) {
      this.#signal.throwIfAborted()
      const found = this.#events.slice(from).find(fits)
      if (found !== undefined) return found
      if (this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw this.#unexpected('ended')
      if (deadline.aborted) throw this.#unexpected(`said nothing of the kind in ${timeoutMs} ms`)
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve)
        over.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  /** Ends the process, by force if it takes too long, and waits for it. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM')
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS)
      await this.#ended
      clearTimeout(timer)
    }
    await this.#ended
  }

  #wake(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const resolve of waiters) resolve()
  }

  #unexpected(what: string): CliError {
    const last = this.#events.slice(-3).map((event) => JSON.stringify(event))
    return new CliError('DEMO_STEP', `${this.name} ${what}`, {
      detail: { last, complaints: this.#complaints.trim().split('\n').slice(-10) },
    })
  }
}

/** Starts a process as an actor. */
export function startActor(
  name: string,
  [file = '', ...args]: readonly string[],
  signal: AbortSignal,
): Actor {
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.on('error', () => {
    // Seen as an end without events.
  })
  return new Actor(name, child, signal)
}

function parseLine(line: string): ActorEvent | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as ActorEvent) : undefined
  } catch {
    return undefined // not a line for us
  }
}
