// The measurement, as a protocol (one linear story):
//   1. which unit does the caller belong to, and which processes are in it;
//   2. snapshot S1 of each: program, credentials, namespaces, store, executable mappings;
//   3. hash every file they execute or map, through the mapped object;
//   4. snapshot S2 of the unit; S1 = S2, or all of it again, three times, then MEASUREMENT_UNSTABLE.
// All reads are synchronous: this runs in a thread of its own, and a read that hangs costs that thread.
import { isDeepStrictEqual } from 'node:util'
import { AgentError } from '../error.ts'
import { Budget, HashAllowances } from './budget.ts'
import { listProcesses } from './cgroup.ts'
import { ContainedStores } from './contained-store.ts'
import { worseMemory } from './executable-memory.ts'
import { HashCache } from './hash-cache.ts'
import { readHostFacts } from './host.ts'
import { assertInstance } from './instance.ts'
import type {
  HashRequest,
  Measurement,
  MeasureReply,
  MeasureRequest,
  MeasurerOptions,
  ObservedUnit,
  PathHash,
  ProcessInstance,
} from './messages.ts'
import { findCgroup2 } from './mounts.ts'
import { processesBeside } from './oci.ts'
import {
  factsOf,
  readFiles,
  takeSnapshot,
  type MeasurerContext,
  type ProcessReading,
  type ProcessWeather,
} from './process.ts'
import { assertExecuted } from './runtime-stages.ts'
import { readHost, readSurroundings, type Host, type Surroundings } from './surroundings.ts'
import { unitOf } from './unit-of.ts'

const ATTEMPTS = 4
const PAUSE_MS = [5, 20, 80]

interface UnitReading {
  readonly unit: ObservedUnit
  readonly surroundings: Surroundings
  readonly processes: readonly ProcessReading[]
}

/** Holds what is remembered between measurements: hashes of store files. */
export class Measurer {
  readonly #options: MeasurerOptions
  readonly #cache = new HashCache()
  readonly #contained = new ContainedStores()
  readonly #allowances = new HashAllowances()

  constructor(options: MeasurerOptions) {
    this.#options = options
  }

  /** Answers a request; every failure is a coded answer. */
  answer(request: MeasureRequest): MeasureReply {
    try {
      const { id, instance, hash } = request
      if (hash !== undefined) return { id, ok: true, hashes: this.hash(instance, hash) }
      return { id, ok: true, measurement: this.measure(instance) }
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
   *   the unit did not hold still; PROCESS_HIDDEN, THREADS_DIFFER, FILE_UNREADABLE, MEMORY_UNREADABLE, UNIT_RECORD,
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

  /**
   * Hashes paths of a container's own store: the first of them, at least one.
   * @throws {AgentError} what {@link ContainedStores.hash} throws
   */
  hash(instance: ProcessInstance, request: HashRequest): PathHash[] {
    assertInstance(instance)
    const hashes = this.#contained.hash(request, instance.pid, this.#options.storeDir)
    assertInstance(instance)
    return hashes
  }

  /** One round of the protocol; undefined if something moved. */
  #attempt(instance: ProcessInstance, budget: Budget): Measurement | undefined {
    try {
      const { storeDir, sharedMemoryDevice } = this.#options
      const host = readHost(storeDir)
      const measurer = { storeDir, sharedMemoryDevice, cache: this.#cache, budget }
      const first = this.#read(instance, host, budget)
      const files = this.#readAll(first, host, measurer)
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
        const { surroundings } = second
        return factsOf({ ...reading, weather }, mapped, launched, { host, measurer, surroundings })
      })
      const { facts: unit, main } = second.unit
      const { namespaces, mounts, storeMount } = host
      const hostFacts = readHostFacts({ namespaces, mounts, storeMount })
      const { store, containerRoot } = second.surroundings
      const containerStore = containerRoot === null ? null : store
      return { unit, main, processes, host: hostFacts, containerStore, measuredAtMs: Date.now() }
    } catch (error) {
      // A process or a mapping went away between two reads; if it was the caller, the next check says so.
      if (error instanceof AgentError && error.code === 'PROCESS_GONE') return undefined
      throw error
    }
  }

  /** The files of all processes, hashed as far as the unit may have it. */
  #readAll(
    { unit, processes, surroundings }: UnitReading,
    host: Host,
    measurer: MeasurerContext,
  ): ReturnType<typeof readFiles>[] {
    const { cgroup } = unit.facts
    const { budget } = measurer
    const before = budget.spentBytes
    budget.limitBytes(before + this.#allowances.left(cgroup))
    try {
      return processes.map(({ snapshot, mounts }) =>
        readFiles(snapshot, mounts, { host, measurer, surroundings }),
      )
    } finally {
      this.#allowances.spend(cgroup, budget.spentBytes - before)
    }
  }

  #read(instance: ProcessInstance, host: Host, budget: Budget): UnitReading {
    const { unitsDir, ociStateDirs, storeDir, sharedMemoryDevice } = this.#options
    const cgroupMount = findCgroup2(host.mounts)?.mountPoint
    const observed = unitOf(instance.pid, { unitsDir, ociStateDirs, cgroupMount })
    const { unit, surroundings } = placeUnit(observed, host, storeDir)
    const pids =
      unit.facts.launcher === 'none' || cgroupMount === undefined
        ? [instance.pid]
        : listProcesses(cgroupMount, unit.facts.cgroup)
    if (!pids.includes(instance.pid))
      throw new AgentError('PROCESS_GONE', `process ${instance.pid} left its unit`)
    const { container, contract } = unit.facts
    // Whoever entered a container from the host is in it, though its cgroup is another.
    const others = container === null || contract === null ? [] : processesBeside(contract.pid)
    const processes = [...new Set([...pids, ...others])]
      .toSorted((a, b) => a - b)
      .map((pid) => takeSnapshot(pid, host, { storeDir, sharedMemoryDevice, budget }))
      .filter((reading) => reading !== undefined)
    if (container !== null) for (const { snapshot } of processes) assertExecuted(snapshot)
    return { unit, surroundings, processes }
  }
}

/** What the processes of the unit are compared with, and the unit with whose store it sees. */
function placeUnit(
  unit: ObservedUnit,
  host: Host,
  storeDir: string,
): { unit: ObservedUnit; surroundings: Surroundings } {
  const { facts } = unit
  if (facts.container === null || facts.contract === null)
    return {
      unit,
      surroundings: {
        store: host.store,
        containerRoot: null,
        containerPlace: null,
        container: null,
      },
    }
  const { kind, ...surroundings } = readSurroundings(facts.contract.pid, host, storeDir)
  const container = { ...facts.container, store: kind }
  return { unit: { ...unit, facts: { ...facts, container } }, surroundings }
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
