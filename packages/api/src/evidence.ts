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
  argv: z.array(z.string().max(4096)).max(256),
  namespaces,
  descriptors: z.array(descriptor).max(64),
  dataFiles,
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

const unitFacts = z.strictObject({
  launcher: z.enum(['bagcheck-exec', 'systemd', 'none']),
  name: z.string().max(256),
  cgroup: filePath,
  contract: launchContract.nullable(),
})

const rootFacts = z.strictObject({
  root: storePath,
  closureDigest: hex64,
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
