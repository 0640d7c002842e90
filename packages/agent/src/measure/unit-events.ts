// Brings the next measurement of a unit forward: a thread reads the process connector and says which of the
// watched units changed.
//
// What it sees: exec, change of ids and ptrace by the processes that were measured, and by what they forked. It
// does not see dlopen, mprotect, a write to memory, nor a process that enters the unit's cgroup from outside
// and executes nothing afterwards: for those the interval of renewals is the bound, and evidence says whether
// there were events at all. Events are hints. None is needed for a denial, and none ever gives anything.
import { Worker } from 'node:worker_threads'
import type { ProcessConnector } from './process-connector.ts'
import type { UnitChange } from './watched-units.ts'

/** To the thread. */
export type WatchCommand =
  | { readonly watch: string; readonly pids: readonly number[] }
  | { readonly forget: string }
  | { readonly stop: true }

/** From the thread. */
export interface UnitChanged {
  readonly unit: string
  readonly change: UnitChange
}

/** Tells changes of units. */
export class UnitEvents implements AsyncDisposable {
  readonly #worker: Worker
  #ended = false

  /**
   * @param connector is closed with this object
   * @param changed hears each change; the unit is watched no longer then
   * @param failed hears once that there are no events any more
   */
  constructor(
    connector: ProcessConnector,
    changed: (change: UnitChanged) => void,
    failed: (cause: unknown) => void,
  ) {
    this.#worker = new Worker(new URL('./unit-events-worker.ts', import.meta.url), {
      workerData: connector,
      name: 'unit-events',
      resourceLimits: { maxYoungGenerationSizeMb: 2 },
    })
    this.#worker.unref()
    this.#worker.on('message', changed)
    const end = (cause: unknown): void => {
      if (!this.#ended) failed(cause)
      this.#ended = true
    }
    this.#worker.on('error', end)
    this.#worker.on('exit', end)
  }

  /** False once there are no events any more. */
  get isRunning(): boolean {
    return !this.#ended
  }

  /** Watches a unit from now to its first change. `pids` are those of the measurement. */
  watch(unit: string, pids: readonly number[]): void {
    this.#say({ watch: unit, pids })
  }

  forget(unit: string): void {
    this.#say({ forget: unit })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    this.#worker.ref()
    this.#say({ stop: true })
    await exited
  }

  #say(command: WatchCommand): void {
    this.#worker.postMessage(command)
  }
}
