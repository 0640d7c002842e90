// What crosses between the measurer's threads, and from it to the front: plain bounded data.
import type { Evidence } from '@bagcheck/api'
import type { NarHash, StorePath } from '@bagcheck/nix'
import type { AgentErrorCode } from '../error.ts'

/** Facts of one process, as evidence carries them. */
export type ProcessFacts = Evidence['facts']['processes'][number]
/** A file that a process executes or maps executable. */
export type MappedFile = ProcessFacts['executable']
/** The smallest group that the caller belongs to. */
export type UnitFacts = Evidence['facts']['unit']
/** What evidence says of the host. */
export type HostFacts = Evidence['host']
/** The container that the unit is. */
export type ContainerFacts = NonNullable<UnitFacts['container']>
/** Where a systemd service has its settings from. */
export type ServiceFacts = NonNullable<UnitFacts['service']>
/** How the unit was started. */
export type LaunchContract = NonNullable<UnitFacts['contract']>
/**
 * One program in one process: the pid alone is reused, and the start time survives exec. A program that is
 * not position-independent has its text at the same address each time; its stack is elsewhere.
 */
export type ProcessInstance = Evidence['instance'] & { readonly startStack: number }

/** The main process of a systemd service, for comparison with its first sight. */
export interface MainProcess {
  readonly instance: ProcessInstance
  /**
   * True if PID 1 started this very process with the command that it tells; false if it may have read
   * another command since, or got the process from elsewhere.
   */
  readonly witnessed: boolean
}

/** A unit as its launcher tells of it. */
export interface ObservedUnit {
  readonly facts: UnitFacts
  /** Null where there is no contract, and where the launcher recorded the process itself. */
  readonly main: MainProcess | null
}

/** Where the measurer looks. */
export interface MeasurerOptions {
  /** Records of `bagcheck exec`. */
  readonly unitsDir: string
  /** Where container runtimes keep the state of containers; a last part `*` stands for every directory there. */
  readonly ociStateDirs: readonly string[]
  /** `/nix/store`. */
  readonly storeDir: string
  /** `major:minor` of the kernel's own shared memory, where memfds live. */
  readonly sharedMemoryDevice: string
}

/** Asks for the unit of one process, or for the content of a container's own store. */
export interface MeasureRequest {
  readonly id: number
  /** As identified when it connected: another program in that process is an error. */
  readonly instance: ProcessInstance
  /** Of the container whose first process `instance` is. */
  readonly hash?: HashRequest
}

/** The directory that /nix/store is, and where in which file system. */
export interface StoreMount {
  /** Device and inode of the directory. */
  readonly directory: string
  readonly device: string
  /** Device of the mount that holds it, and the directory's path in that file system. */
  readonly place: string
}

/** Which paths of a container's own store to hash. */
export interface HashRequest {
  /** As it was measured: another store is an error. */
  readonly store: StoreMount
  readonly paths: readonly StorePath[]
  /** What was read longer ago is read again. */
  readonly maxAgeMs: number
  /** Who may own it beside root: the root of the container's user namespace. */
  readonly owner: number
}

/** The content of a store path in a container. */
export interface PathHash {
  readonly path: StorePath
  /** Null for one that is not there, or moved. */
  readonly narHash: NarHash | null
  /** When its content was read. */
  readonly hashedAtMs: number
  /** Whether it was read for this request. */
  readonly read: boolean
  /** What about owners and modes is not as in a store, or null. */
  readonly deviation: string | null
}

/** All facts about a unit, taken between two equal snapshots. */
export interface Measurement {
  readonly unit: UnitFacts
  /** See {@link ObservedUnit}. The measurer keeps no first sights: whoever asks it does. */
  readonly main: MainProcess | null
  readonly processes: readonly ProcessFacts[]
  readonly host: Omit<HostFacts, 'unitEvents'>
  /** The store that a container brings itself, if it does. */
  readonly containerStore: StoreMount | null
  /** Wall clock when the second snapshot was taken. */
  readonly measuredAtMs: number
}

/** A measurement whose contract is that of the first sight: what leaves the measurer. */
export type SettledMeasurement = Omit<Measurement, 'main' | 'host'> & {
  readonly host: HostFacts
  /** The first process of a container that brings its own store: through it the content is hashed. */
  readonly init: ProcessInstance | null
}

/** What leaves the measurer of a measurement. */
export function settledOf(
  { main, host, ...measurement }: Measurement,
  unitEvents: HostFacts['unitEvents'],
): SettledMeasurement {
  const init = measurement.containerStore === null ? null : (main?.instance ?? null)
  return { ...measurement, host: { ...host, unitEvents }, init }
}

/** Answer to the request with the same id. */
export type MeasureReply =
  | { readonly id: number; readonly ok: true; readonly measurement: Measurement }
  | { readonly id: number; readonly ok: true; readonly hashes: readonly PathHash[] }
  | {
      readonly id: number
      readonly ok: false
      readonly code: AgentErrorCode
      readonly message: string
      /** Of a mistake of ours, for the log. */
      readonly stack?: string
    }
