// What an agent states about one live unit and its host for one request. Facts only: nothing here is
// a judgement, and no field lets the agent name its own tier, role or verdict. The wire form with its
// limits is `evidenceSchema` in @bagcheck/api; this is what evaluation reads, so that a decision can be
// made again offline from the same facts.
import type { Sha256, StorePath, Strength } from '@bagcheck/nix'

/** A file that a process executes or maps executable, hashed through the object, never by its path. */
export interface MappedFile {
  /** Path as the kernel reports it; a name for people, never a proof. */
  readonly path: string
  readonly sha256: Sha256
  /** `major:minor` and inode of the object that was hashed. */
  readonly device: string
  readonly inode: string
  /** True if this very object (device, inode) is the store file at `path` on the store mount that the agent verified. */
  readonly isStoreFile: boolean
  /** True if the object has no name any more (deleted, memfd). */
  readonly unlinked: boolean
}

/** One process of the unit. */
export interface ProcessFacts {
  readonly pid: number
  /** `/proc/PID/stat` field 22, clock ticks since boot. */
  readonly startTicks: number
  /** Real, effective, saved, file-system. */
  readonly uids: readonly [number, number, number, number]
  readonly gids: readonly [number, number, number, number]
  /**
   * True of the main process that the contract names and of its forks that have executed nothing since: the
   * same object as program, and code and stack at the same addresses, which every exec draws anew.
   */
  readonly isMainImage: boolean
  readonly executable: MappedFile
  /** Every other file with an executable mapping, each object once. */
  readonly files: readonly MappedFile[]
  /** Executable memory that no file on disk backs; `[vdso]` and `[vsyscall]` are the kernel's and not counted. */
  readonly executableMemory: readonly ExecutableMemory[]
  /** Bytes of file-backed executable mappings that were changed in memory. */
  readonly modifiedTextBytes: number
  /** 16 lower-case hex digits each. */
  readonly capabilities: {
    readonly inheritable: string
    readonly permitted: string
    readonly effective: string
    readonly bounding: string
    readonly ambient: string
  }
  readonly noNewPrivs: boolean
  /** 0 none, 1 strict, 2 filter. */
  readonly seccomp: number
  /** 0: nobody traces it. */
  readonly tracerPid: number
  /** True if it is the user namespace that the agent runs in. */
  readonly hostUserNamespace: boolean
  /** True if its root directory is the one that the agent runs in. */
  readonly hostRoot: boolean
  /** True if its store root is the very mount that the agent verified. */
  readonly verifiedStoreMount: boolean
  /** Mount points below its store directory. */
  readonly mountsBelowStore: readonly string[]
  /** Names (never values) of loader and interpreter variables that were found: a hint, because a process can wipe them. */
  readonly environmentHints: readonly string[]
  /** Where an interpreter was told to take code from: store paths, and how many directories are in none. A hint as well. */
  readonly searchPaths: readonly SearchPath[]
  /** The process's own word, shown to people and compared with the contract only to deny. */
  readonly argv: readonly string[]
  readonly namespaces: Namespaces
  /** What it holds open that is more than everyday, by kind and name. */
  readonly descriptors: readonly Descriptor[]
  /** Regular files that it has open for reading only, or mapped without execution; `count` of all, told or not. */
  readonly dataFiles: { readonly count: number; readonly files: readonly DataFile[] }
  /** Where it stands in the unit's container; null in a unit that is none. */
  readonly inContainer: {
    /** As it is called in its own pid namespace: a name for people. */
    readonly pid: number
    /** Namespaces that it has in common with the container's first process. */
    readonly sharedNamespaces: readonly string[]
    readonly sharedRoot: boolean
  } | null
}

/** One variable, such as `PYTHONPATH`. */
export interface SearchPath {
  readonly variable: string
  readonly storePaths: readonly StorePath[]
  readonly elsewhere: number
}

/** Executable memory of one kind and name; names are the process's own choice. */
export interface ExecutableMemory {
  readonly kind: 'anonymous' | 'memfd' | 'shared'
  /** Empty for memory without a name; `[anon:…]`, the name of a memfd. */
  readonly name: string
  readonly regions: number
  readonly bytes: number
}

/** Numbers of namespaces: equal numbers, same namespace. Of the user namespace, see `hostUserNamespace`. */
export interface Namespaces {
  readonly mnt: string
  readonly pid: string
  readonly net: string
  readonly ipc: string
  readonly uts: string
  readonly cgroup: string
  readonly time: string
}

/** Kinds of descriptors that a role may allow. */
export const DESCRIPTOR_KINDS = [
  'memfd',
  'userfaultfd',
  'io-uring',
  'io-uring-files',
  'bpf',
  'perf-event',
  'fanotify',
  'fuse',
  'block-device',
  'unknown',
] as const

/** Descriptors of one kind and name. */
export interface Descriptor {
  readonly kind:
    | (typeof DESCRIPTOR_KINDS)[number]
    | 'kernel-memory'
    | 'process-memory'
    | 'store-writable'
  readonly name: string
  readonly count: number
}

/** A file by name and object. */
export interface DataFile {
  readonly path: string
  readonly device: string
  readonly inode: string
  readonly isStoreFile: boolean
}

/** The host; null is what the agent could not read. */
export interface HostFacts {
  readonly cmdlineSha256: Sha256 | null
  readonly currentSystem: string | null
  readonly bootedSystem: string | null
  /** Those of the agent. */
  readonly namespaces: Namespaces
  readonly store: { readonly device: string; readonly fsType: string; readonly readOnly: boolean }
  /** As the kernel prints them. */
  readonly sysctls: Readonly<
    Record<
      | 'ptraceScope'
      | 'corePattern'
      | 'modulesDisabled'
      | 'kexecLoadDisabled'
      | 'ioUringDisabled'
      | 'memfdNoexec'
      | 'unprivilegedUserfaultfd'
      | 'unprivilegedBpfDisabled'
      | 'perfEventParanoid'
      | 'randomizeVaSpace',
      string | null
    >
  >
  readonly binfmtMisc: readonly string[] | null
  readonly modules: { readonly count: number; readonly sha256: Sha256 } | null
  readonly lockdown: 'none' | 'integrity' | 'confidentiality' | null
  readonly clockSynchronised: boolean | null
  readonly preloads: readonly string[]
}

/** How the unit was started, as recorded by its launcher (PID 1, a container runtime, `bagcheck exec`), never the process itself. */
export interface LaunchContract {
  /** Absolute path of the program. */
  readonly executable: string
  /** All arguments after the program's name. */
  readonly arguments: readonly string[]
  readonly uid: number
  readonly gid: number
  readonly noNewPrivs: boolean
  /** The process that the launcher started. */
  readonly pid: number
  readonly startTicks: number
  /** False if that process has executed another program since it was launched. */
  readonly intact: boolean
}

/** First id inside, first outside, how many. */
interface IdRange {
  readonly inside: number
  readonly outside: number
  readonly count: number
}

/** A container as its runtime's state and configuration tell of it, which are root's alone. */
export interface ContainerFacts {
  readonly id: string
  readonly runtime: 'runc' | 'crun'
  readonly stateDir: string
  readonly bundle: string
  readonly annotations: Readonly<Record<string, string>>
  /** The bundle's `config.json`; `unchanged` since the container was made. */
  readonly config: { readonly path: string; readonly sha256: Sha256; readonly unchanged: boolean }
  readonly capabilities: readonly string[]
  readonly seccomp: boolean
  readonly readonlyRoot: boolean
  readonly mounts: readonly {
    readonly destination: string
    readonly type: string
    readonly source: string
    readonly readonly: boolean
  }[]
  /** Kinds of namespaces that its first process has for itself, by the kernel. */
  readonly namespaces: readonly string[]
  /** Mapping of ids, by the kernel; null in the agent's user namespace. */
  readonly userMaps: { readonly uids: readonly IdRange[]; readonly gids: readonly IdRange[] } | null
  /** Whose store it sees: the host's that was verified, one in its own layers that was, or none that was. */
  readonly store: 'host' | 'container' | 'other'
}

/** A unit file: where PID 1 found it, the file that this is, and its content. */
export interface UnitFile {
  readonly path: string
  readonly file: string
  readonly sha256: Sha256
  readonly isStoreFile: boolean
}

/** Where a systemd service has its settings from, and what they are, by PID 1. */
export interface ServiceFacts {
  readonly fragment: UnitFile | null
  readonly dropIns: readonly UnitFile[]
  /** What a generator made the unit from; empty where it is a unit file. */
  readonly source: string
  readonly transient: boolean
  readonly needDaemonReload: boolean
  /** True if the process was started with these files and settings, and with nothing read since. */
  readonly asStarted: boolean
  readonly settings: {
    readonly noNewPrivileges: boolean
    readonly capabilityBoundingSet: string
    readonly ambientCapabilities: string
    readonly systemCallFilter: { readonly allowList: boolean; readonly calls: number }
  }
}

/** The smallest group that the caller belongs to. */
export interface UnitFacts {
  /** Who started it, and so whose word `contract` is. */
  readonly launcher: 'bagcheck-exec' | 'systemd' | 'oci' | 'none'
  /** `orders`, `orders.service`, a container's id; empty for `none`. */
  readonly name: string
  /** Full path in the unified hierarchy. */
  readonly cgroup: string
  readonly contract: LaunchContract | null
  /** Of the launcher `oci`, else null. */
  readonly container: ContainerFacts | null
  /** Of a service of systemd that PID 1 vouches for, else null. */
  readonly service: ServiceFacts | null
}

/** The first place where the store differs from what was attested. */
export interface ContentMismatch {
  readonly path: string
  /** Absolute file, where one could be named. */
  readonly file: string | null
  readonly kind: string
  readonly expected: string
  readonly seen: string
}

/** A root whose closure holds all that the unit executes, with the state of its content on this host. */
export interface RootFacts {
  readonly root: StorePath
  readonly closureDigest: Sha256
  /** Whose content was checked: the host's store, or the one that the unit's container brings. */
  readonly store: 'host' | 'container'
  readonly strength: Strength
  /** Seconds since the epoch. */
  readonly checkedAt: number
  readonly lastFullAt: number
  readonly mismatch: ContentMismatch | null
}

/** All facts of one request. */
export interface Facts {
  readonly audience: string
  /** Wanted lifetime; null leaves it to the policy. */
  readonly ttlSeconds: number | null
  readonly purpose: 'issue' | 'renew'
  /** The process that asks. */
  readonly callerPid: number
  readonly unit: UnitFacts
  readonly processes: readonly ProcessFacts[]
  readonly roots: readonly RootFacts[]
}
