// The measurement, as a protocol (one linear story):
//   1. which unit does the caller belong to, and which processes are in it;
//   2. snapshot S1 of each: program, credentials, namespaces, store, executable mappings;
//   3. hash every file they execute or map, through the mapped object;
//   4. snapshot S2 of the unit; S1 = S2, or all of it again, three times, then MEASUREMENT_UNSTABLE.
// All reads are synchronous: this runs in a thread of its own, and a read that hangs costs that thread.
import { isDeepStrictEqual } from 'node:util'
import { AgentError } from '../error.ts'
import { Budget } from './budget.ts'
import { listProcesses } from './cgroup.ts'
import { worseMemory } from './executable-memory.ts'
import { HashCache } from './hash-cache.ts'
import { readHostFacts } from './host.ts'
import { assertInstance } from './instance.ts'
import type {
  Measurement,
  MeasureReply,
  MeasureRequest,
  MeasurerOptions,
  ObservedUnit,
  ProcessInstance,
} from './messages.ts'
import { findCgroup2 } from './mounts.ts'
import {
  factsOf,
  readFiles,
  readHost,
  takeSnapshot,
  type Host,
  type ProcessReading,
  type ProcessWeather,
} from './process.ts'
import { unitOf } from './unit-of.ts'

const ATTEMPTS = 4
const PAUSE_MS = [5, 20, 80]

interface UnitReading {
  readonly unit: ObservedUnit
  readonly processes: readonly ProcessReading[]
}

/** Holds what is remembered between measurements: hashes of store files. */
export class Measurer {
  readonly #options: MeasurerOptions
  readonly #cache = new HashCache()

  constructor(options: MeasurerOptions) {
    this.#options = options
  }

  /** Answers a request; every failure is a coded answer. */
  answer(request: MeasureRequest): MeasureReply {
    try {
      return { id: request.id, ok: true, measurement: this.measure(request.instance) }
    } catch (error) {
      if (error instanceof AgentError) {
        const { code, message } = error
        return { id: request.id, ok: false, code, message }
      }
      const { errno, message: reason } = error as NodeJS.ErrnoException
      if (errno !== undefined)
        return { id: request.id, ok: false, code: 'PROC_UNREADABLE', message: reason }
      // The stack is for the agent's own log, never for a caller.
      const stack = error instanceof Error ? (error.stack ?? error.message) : String(error)
      const message = 'the measurer failed: the log of the agent says how'
      return { id: request.id, ok: false, code: 'MEASUREMENT_FAILED', message, stack }
    }
  }

  /**
   * Facts about the unit of `instance`.
   * @throws {AgentError} PROCESS_MOVED if that process runs another program now; MEASUREMENT_UNSTABLE if
   *   the unit did not hold still; PROCESS_HIDDEN, THREADS_DIFFER, FILE_UNREADABLE, UNIT_RECORD,
   *   UNIT_STARTING, MEASUREMENT_LIMIT, PROC_FORMAT, PROC_UNREADABLE
   */
  measure(instance: ProcessInstance): Measurement {
    const budget = new Budget()
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      if (attempt > 0) pause(PAUSE_MS[attempt - 1] ?? 0)
      assertInstance(instance)
      const measurement = this.#attempt(instance, budget)
      assertInstance(instance)
      if (measurement !== undefined) return measurement
    }
    throw new AgentError('MEASUREMENT_UNSTABLE', `the unit did not hold still ${ATTEMPTS} times`)
  }

  /** One round of the protocol; undefined if something moved. */
  #attempt(instance: ProcessInstance, budget: Budget): Measurement | undefined {
    try {
      const { storeDir, sharedMemoryDevice } = this.#options
      const host = readHost(storeDir)
      const context = { storeDir, sharedMemoryDevice, cache: this.#cache, budget }
      const first = this.#read(instance, host, budget)
      const files = first.processes.map(({ snapshot, mounts }) =>
        readFiles(snapshot, mounts, host, context),
      )
      const second = this.#read(instance, host, budget)
      if (!isDeepStrictEqual(stable(first), stable(second))) return undefined
      const { contract } = second.unit.facts
      const launched = second.processes.find(
        ({ snapshot: { pid, stat } }) =>
          pid === contract?.pid && stat.startTicks === contract.startTicks,
      )?.snapshot
      const processes = second.processes.map((reading, index) => {
        // As many as there were at first, or the two would differ.
        const before = first.processes[index] as ProcessReading
        const mapped = files[index] as (typeof files)[number]
        const weather = worse(before.weather, reading.weather)
        return factsOf({ ...reading, weather }, mapped, host, context, launched)
      })
      const { facts: unit, main } = second.unit
      const { namespaces, mounts, storeMount } = host
      const hostFacts = readHostFacts({ namespaces, mounts, storeMount })
      return { unit, main, processes, host: hostFacts, measuredAtMs: Date.now() }
    } catch (error) {
      // A process or a mapping went away between two reads; if it was the caller, the next check says so.
      if (error instanceof AgentError && error.code === 'PROCESS_GONE') return undefined
      throw error
    }
  }

  #read(instance: ProcessInstance, host: Host, budget: Budget): UnitReading {
    const { unitsDir, storeDir, sharedMemoryDevice } = this.#options
    const cgroupMount = findCgroup2(host.mounts)?.mountPoint
    const unit = unitOf(instance.pid, { unitsDir, cgroupMount })
    const pids =
      unit.facts.launcher === 'none' || cgroupMount === undefined
        ? [instance.pid]
        : listProcesses(cgroupMount, unit.facts.cgroup)
    if (!pids.includes(instance.pid))
      throw new AgentError('PROCESS_GONE', `process ${instance.pid} left its unit`)
    const processes = pids
      .map((pid) => takeSnapshot(pid, host, { storeDir, sharedMemoryDevice, budget }))
      .filter((reading) => reading !== undefined)
    return { unit, processes }
  }
}

/** What must not have changed between two readings. */
const stable = ({ unit, processes }: UnitReading): unknown => ({
  unit,
  processes: processes.map(({ snapshot }) => snapshot),
})

const worse = (one: ProcessWeather, other: ProcessWeather): ProcessWeather => ({
  executableMemory: worseMemory(one.executableMemory, other.executableMemory),
})

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}
