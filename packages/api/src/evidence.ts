// Evidence: what an agent signs for one request (RATS: attester → verifier). A compact JWS, ES256 by
// the node key, `typ` below; its payload is this schema. Strict: an unknown field is an error, because
// a verifier that skips what it does not know may skip what it should have denied. Every array and
// string has a bound, so that a hostile node cannot make the broker work without end.
//
// Evolution. Evidence, decisions, enrolments and evidence bundles are kept for years, and are read by agents,
// brokers and auditors of other releases. A released schema therefore never changes, not even by an optional
// field: old verifiers would refuse new documents, and new ones would read into old documents what they do
// not say. A new or changed field is a new version:
//   1. add the schema `…/v2` beside `…/v1`; `schema` tells them apart before anything else is read;
//   2. release brokers and auditors that take both: they keep v1 for as long as bundles are kept;
//   3. then let agents (evidence) or brokers (the rest) write v2.
// What grows without a new version are codes of reasons, which are strings for that purpose.
import type { Sha256, StorePath } from '@bagcheck/nix'
import { z } from 'zod'
import { TEXT_LIMITS } from './limits.ts'

/** `typ` header of an evidence JWS. */
export const EVIDENCE_TYP = 'bagcheck-evidence+jwt'
/** Largest evidence accepted, in bytes of the compact JWS. */
export const MAX_EVIDENCE_BYTES: number = TEXT_LIMITS.evidence

// The casts brand a string whose whole grammar the expression checks.
const hex64 = z.string().regex(/^[0-9a-f]{64}$/) as unknown as z.ZodType<Sha256, string>
const hex16 = z.string().regex(/^[0-9a-f]{16}$/)
const count = z.int().min(0)
const seconds = z.int().min(0)
const text = (max: number): z.ZodString => z.string().min(1).max(max)
const filePath = z.string().max(4096)
const storePath = z
  .string()
  .max(11 + 32 + 1 + 211)
  .regex(
    /^\/nix\/store\/[0-9a-df-np-sv-z]{32}-(?!\.{1,2}(-|$))[0-9A-Za-z+\-._?=]+$/,
  ) as unknown as z.ZodType<StorePath, string>

const mappedFile = z.strictObject({
  path: filePath,
  sha256: hex64,
  device: text(32),
  inode: text(32),
  isStoreFile: z.boolean(),
  unlinked: z.boolean(),
})

const ids = z.tuple([count, count, count, count])

/** Executable memory that no file on disk backs, by kind and name. */
const executableMemory = z.strictObject({
  kind: z.enum(['anonymous', 'memfd', 'shared']),
  name: z.string().max(256),
  regions: count,
  bytes: count,
})

const namespaceNumber = z.string().regex(/^\d{1,20}$/)
/** Numbers of namespaces; the user namespace is told apart. */
const namespaces = z.strictObject({
  mnt: namespaceNumber,
  pid: namespaceNumber,
  net: namespaceNumber,
  ipc: namespaceNumber,
  uts: namespaceNumber,
  cgroup: namespaceNumber,
  time: namespaceNumber,
})

/** What a process holds open that is more than everyday, by kind and name. */
const descriptor = z.strictObject({
  kind: z.enum([
    ...(['memfd', 'userfaultfd', 'io-uring', 'io-uring-files', 'bpf', 'perf-event'] as const),
    ...(['fanotify', 'fuse', 'block-device', 'kernel-memory', 'process-memory'] as const),
    ...(['store-writable', 'unknown'] as const),
  ]),
  name: text(256),
  count,
})

/** Regular files that a process has open for reading only, or mapped without execution. */
const dataFiles = z.strictObject({
  /** All that there are; those beyond the list are not told. */
  count,
  files: z
    .array(
      z.strictObject({
        path: filePath,
        device: text(32),
        inode: text(32),
        isStoreFile: z.boolean(),
      }),
    )
    .max(256),
})
const namespaceKind = z.enum(['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'])

const processFacts = z.strictObject({
  pid: count,
  startTicks: count,
  uids: ids,
  gids: ids,
  /** True of a fork of the unit's main process, or of itself, that has executed nothing since. */
  isMainImage: z.boolean(),
  executable: mappedFile,
  files: z.array(mappedFile).max(4096),
  executableMemory: z.array(executableMemory).max(64),
  modifiedTextBytes: count,
  capabilities: z.strictObject({
    inheritable: hex16,
    permitted: hex16,
    effective: hex16,
    bounding: hex16,
    ambient: hex16,
  }),
  noNewPrivs: z.boolean(),
  seccomp: z.int().min(0).max(2),
  tracerPid: count,
  hostUserNamespace: z.boolean(),
  hostRoot: z.boolean(),
  verifiedStoreMount: z.boolean(),
  mountsBelowStore: z.array(filePath).max(64),
  environmentHints: z.array(text(256)).max(64),
  searchPaths: z
    .array(
      z.strictObject({
        variable: text(256),
        storePaths: z.array(storePath).max(1024),
        elsewhere: count,
      }),
    )
    .max(32),
  argv: z.array(z.string().max(4096)).max(256),
  namespaces,
  descriptors: z.array(descriptor).max(64),
  dataFiles,
  /** Where it stands in the unit's container; null in a unit that is none. */
  inContainer: z
    .strictObject({
      /** As it is called in the innermost pid namespace: a name for people, never looked up. */
      pid: count,
      /** Namespaces and root directory that it has in common with the container's first process. */
      sharedNamespaces: z.array(namespaceKind).max(8),
      sharedRoot: z.boolean(),
    })
    .nullable(),
})

const launchContract = z.strictObject({
  executable: filePath,
  arguments: z.array(z.string().max(4096)).max(256),
  uid: count,
  gid: count,
  noNewPrivs: z.boolean(),
  pid: count,
  startTicks: count,
  intact: z.boolean(),
})

const idMap = z.array(z.strictObject({ inside: count, outside: count, count })).max(128)

/** A container as its runtime's state and configuration tell of it, which are root's alone. */
const containerFacts = z.strictObject({
  id: text(256),
  runtime: z.enum(['runc', 'crun']),
  /** Directory of the states of all containers of this runtime. */
  stateDir: filePath,
  bundle: filePath,
  annotations: z.record(text(256), z.string().max(1024)),
  /** The bundle's `config.json`; `unchanged` since the container was made. */
  config: z.strictObject({ path: filePath, sha256: hex64, unchanged: z.boolean() }),
  /** Bounding set by name, as configured. */
  capabilities: z.array(text(64)).max(128),
  /** Whether a seccomp filter is configured. */
  seccomp: z.boolean(),
  readonlyRoot: z.boolean(),
  mounts: z
    .array(
      z.strictObject({
        destination: filePath,
        type: z.string().max(64),
        source: filePath,
        readonly: z.boolean(),
      }),
    )
    .max(128),
  /** Kinds of namespaces that its first process has for itself, by the kernel. */
  namespaces: z.array(namespaceKind).max(8),
  /** Mapping of ids, by the kernel; null in the agent's user namespace. */
  userMaps: z.strictObject({ uids: idMap, gids: idMap }).nullable(),
  /** Whose store it sees: the one that was verified for the host, one in its own layers, or none that was. */
  store: z.enum(['host', 'container', 'other']),
})

/** A unit file: where PID 1 found it, the file that this is, and its content. */
const unitFile = z.strictObject({
  path: filePath,
  file: filePath,
  sha256: hex64,
  isStoreFile: z.boolean(),
})

/** Where a systemd service has its settings from, and what they are, by PID 1. */
const serviceFacts = z.strictObject({
  fragment: unitFile.nullable(),
  dropIns: z.array(unitFile).max(64),
  /** What a generator made the unit from; empty where it is a unit file. */
  source: filePath,
  transient: z.boolean(),
  needDaemonReload: z.boolean(),
  /** True if the process was started with these files and settings, and with nothing read since. */
  asStarted: z.boolean(),
  settings: z.strictObject({
    user: z.string().max(256),
    group: z.string().max(256),
    dynamicUser: z.boolean(),
    noNewPrivileges: z.boolean(),
    capabilityBoundingSet: hex16,
    ambientCapabilities: hex16,
    /** Whether the listed calls are those allowed (else those refused); sha256 of the sorted list, one a line. */
    systemCallFilter: z.strictObject({ allowList: z.boolean(), calls: count, sha256: hex64 }),
    protectSystem: z.string().max(64),
    protectHome: z.string().max(64),
    privateTmp: z.boolean(),
    memoryDenyWriteExecute: z.boolean(),
    /** Namespaces that may be made, as the bits of clone(2). */
    restrictNamespaces: hex16,
    readOnlyPaths: z.array(filePath).max(128),
    readWritePaths: z.array(filePath).max(128),
    inaccessiblePaths: z.array(filePath).max(128),
    rootDirectory: filePath,
    rootImage: filePath,
    delegate: z.boolean(),
  }),
})

const unitFacts = z.strictObject({
  launcher: z.enum(['bagcheck-exec', 'systemd', 'oci', 'none']),
  name: z.string().max(256),
  cgroup: filePath,
  contract: launchContract.nullable(),
  container: containerFacts.nullable(),
  service: serviceFacts.nullable(),
})

const rootFacts = z.strictObject({
  root: storePath,
  closureDigest: hex64,
  /** Whose content was checked: the host's store, or the one that the unit's container brings. */
  store: z.enum(['host', 'container']),
  strength: z.enum(['path-claim', 'metadata', 'incremental', 'full', 'fs-verity', 'verity']),
  checkedAt: seconds,
  lastFullAt: seconds,
  mismatch: z
    .strictObject({
      path: filePath,
      file: filePath.nullable(),
      kind: text(64),
      expected: z.string().max(512),
      seen: z.string().max(512),
    })
    .nullable(),
})

const sysctl = z.string().max(256).nullable()

/** The host; null is what could not be read. */
const hostFacts = z.strictObject({
  /**
   * What brings the next measurement forward: the kernel's word on every exec, change of ids and ptrace, or
   * nothing but the interval of renewals. Neither sees dlopen, mprotect or a write to memory.
   */
  unitEvents: z.enum(['process-connector', 'none']),
  bootId: text(64),
  kernel: text(256),
  cmdlineSha256: hex64.nullable(),
  currentSystem: filePath.nullable(),
  bootedSystem: filePath.nullable(),
  /** Those of the agent. */
  namespaces,
  /** The mount that holds the store. */
  store: z.strictObject({ device: text(32), fsType: text(64), readOnly: z.boolean() }),
  sysctls: z.strictObject({
    ptraceScope: sysctl,
    corePattern: sysctl,
    modulesDisabled: sysctl,
    kexecLoadDisabled: sysctl,
    ioUringDisabled: sysctl,
    memfdNoexec: sysctl,
    unprivilegedUserfaultfd: sysctl,
    unprivilegedBpfDisabled: sysctl,
    perfEventParanoid: sysctl,
    randomizeVaSpace: sysctl,
  }),
  /** Names of enabled formats. */
  binfmtMisc: z.array(text(256)).max(64).nullable(),
  /** Of the names of loaded modules, sorted, one a line. */
  modules: z.strictObject({ count, sha256: hex64 }).nullable(),
  lockdown: z.enum(['none', 'integrity', 'confidentiality']).nullable(),
  clockSynchronised: z.boolean().nullable(),
  /** Files of dynamic linkers that preload libraries into every program. */
  preloads: z.array(filePath).max(8),
})

/** The agent's own program, and the store paths it runs from. */
const agentFacts = z.strictObject({
  version: text(64),
  executable: hex64,
  /** Null is what the local Nix does not know. */
  roots: z.array(z.strictObject({ root: storePath, closureDigest: hex64.nullable() })).max(8),
})

/** Payload of an evidence JWS. Times are seconds since the epoch. */
export const evidenceSchema = z.strictObject({
  schema: z.literal('bagcheck.evidence/v1'),
  /** The node, as enrolled. */
  iss: text(128),
  /** The broker's issuer URL. */
  aud: text(512),
  installation: text(64),
  /** sha256 of version 1 of the trust root that the agent has pinned. */
  trustRoot: hex64,
  iat: seconds,
  /** base64url of 32 bytes, from the challenge. */
  nonce: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  /** Greater than any that this node used before; one used twice means a cloned key. */
  counter: z.int().min(1),
  /** Profile of the audience that the workload expects; null leaves it to the policy. */
  profile: text(64).nullable(),
  /** RFC 7638 thumbprint of the workload's key; null only where the profile says bearer. */
  workloadKey: z
    .string()
    .regex(/^[A-Za-z0-9_-]{43}$/)
    .nullable(),
  /** The process instance, as it was before and after measuring. */
  instance: z.strictObject({
    pid: count,
    startTicks: count,
    device: text(32),
    inode: text(32),
    startCode: count,
  }),
  /** `jti` of the token that this renews; null for an issue. */
  previousDecision: text(64).nullable(),
  facts: z.strictObject({
    audience: text(512),
    ttlSeconds: z.int().min(1).max(86_400).nullable(),
    purpose: z.enum(['issue', 'renew']),
    callerPid: count,
    unit: unitFacts,
    processes: z.array(processFacts).min(1).max(256),
    roots: z.array(rootFacts).max(64),
  }),
  host: hostFacts,
  agent: agentFacts,
})

/** Payload of an evidence JWS. */
export type Evidence = z.infer<typeof evidenceSchema>
