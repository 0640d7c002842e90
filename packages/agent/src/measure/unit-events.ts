// Brings the next measurement of a unit forward: a thread reads the process connector and says which of the
// units that were measured changed since.
//
// What it sees: exec, change of ids and ptrace by the processes that were measured, and by what they forked. It
// does not see dlopen, mprotect, a write to memory, nor a process that enters the unit's cgroup from outside
// and executes nothing afterwards: for those the interval of renewals is the bound, and evidence says whether
// there were events at all. Events are hints. None is needed for a denial, and none ever gives anything.
import { Worker } from 'node:worker_threads'
import type { SettledMeasurement } from './messages.ts'
import type { ProcessConnector } from './process-connector.ts'
import type { UnitChangedNotice } from './protocol.ts'
import type { UnitChange } from './watched-units.ts'

/** Tells changes of units that were measured. */
export interface UnitChanges {
  /** True while changes are told. */
  readonly isRunning: boolean
  /** Watches a unit from its measurement to its first change. */
  watch(measurement: Pick<SettledMeasurement, 'unit' | 'processes' | 'measuredAtMs'>): void
  /** Returns what ends it. */
  subscribe(hear: (notice: UnitChangedNotice) => void): () => void
}

/** Where the kernel tells nothing. */
export const NO_UNIT_CHANGES: UnitChanges = {
  isRunning: false,
  watch: () => undefined,
  subscribe: () => () => undefined,
}

/** To the thread. */
export type WatchCommand =
  | { readonly watch: string; readonly pids: readonly number[]; readonly sinceMs: number }
  | { readonly stop: true }

/** From the thread. */
export interface WatchedUnitChanged {
  readonly unit: string
  readonly change: UnitChange
}

const MAX_UNITS = 4096

/** Changes as the process connector tells them. */
export class UnitEvents implements UnitChanges, AsyncDisposable {
  readonly #worker: Worker
  readonly #listeners = new Set<(notice: UnitChangedNotice) => void>()
  /** What was measured of each unit that is watched, by cgroup. */
  readonly #pids = new Map<string, readonly number[]>()
  #ended = false

  /**
   * @param connector is closed with this object
   * @param failed hears once that there are no events any more
   */
  constructor(connector: ProcessConnector, failed: (cause: unknown) => void) {
    this.#worker = new Worker(new URL('./unit-events-worker.ts', import.meta.url), {
      workerData: connector,
      name: 'unit-events',
      resourceLimits: { maxYoungGenerationSizeMb: 2 },
    })
    this.#worker.unref()
    this.#worker.on('message', (changed: WatchedUnitChanged) => this.#tell(changed))
    const end = (cause: unknown): void => {
      if (!this.#ended) failed(cause)
      this.#ended = true
    }
    this.#worker.on('error', end)
    this.#worker.on('exit', end)
  }

  get isRunning(): boolean {
    return !this.#ended
  }

  /** A caller without a unit is watched alone. */
  watch({ unit, processes, measuredAtMs }: Parameters<UnitChanges['watch']>[0]): void {
    if (this.#ended) return
    const pids = processes.map(({ pid }) => pid)
    const key = unit.launcher === 'none' ? `${unit.cgroup}\0${pids.join()}` : unit.cgroup
    const [oldest] = this.#pids.keys()
    if (this.#pids.size >= MAX_UNITS && oldest !== undefined) this.#pids.delete(oldest)
    this.#pids.delete(key)
    this.#pids.set(key, pids)
    this.#say({ watch: key, pids, sinceMs: measuredAtMs })
  }

  subscribe(hear: (notice: UnitChangedNotice) => void): () => void {
    this.#listeners.add(hear)
    return () => this.#listeners.delete(hear)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    this.#worker.ref()
    this.#say({ stop: true })
    await exited
  }

  #tell({ unit, change }: WatchedUnitChanged): void {
    const pids = this.#pids.get(unit)
    this.#pids.delete(unit)
    if (pids === undefined) return
    const cgroup = unit.split('\0', 1)[0] ?? ''
    for (const hear of this.#listeners) hear({ cgroup, pids, change })
  }

  #say(command: WatchCommand): void {
    this.#worker.postMessage(command)
  }
}
