// What an agent states about a service that runs as policies of tests want it: one process in a unit that
// `bagcheck exec` started, nothing mapped but files of its closure. Tests change one thing.
import type { Evidence } from '@bagcheck/api'
import { sha256Hex, type Sha256, type StorePath } from '@bagcheck/nix'
import type { NodeKey } from './node-key.ts'

/** Facts in the form of the wire; they may be changed. */
export type TestFacts = Evidence['facts']
export type TestProcess = TestFacts['processes'][number]
export type TestFile = TestProcess['executable']

/** Every service of tests runs as this user. */
export const SERVICE_UID = 990
const PID = 100
const NAMESPACES = {
  ...{ mnt: '4026531841', pid: '4026531836', net: '4026531840', ipc: '4026531839' },
  ...{ uts: '4026531838', cgroup: '4026531835', time: '4026531834' },
}
const START_TICKS = 5000
const NO_CAPABILITIES = '0000000000000000'

/** A service on an interpreter, and whom it wants a token for. */
export interface RunningService {
  /** Also the name of its unit. */
  readonly name: string
  readonly audience: string
  readonly root: StorePath
  readonly closureDigest: Sha256
  readonly executable: TestFile
  /** What it maps beside the executable. */
  readonly libraries: readonly TestFile[]
  readonly script: string
}

/** A mapped file of the store. */
export function mappedFile(path: string, sha256: Sha256, wish: Partial<TestFile> = {}): TestFile {
  return {
    path,
    sha256,
    device: '8:1',
    inode: '42',
    isStoreFile: true,
    unlinked: false,
    ...wish,
  }
}

/** The one process of a service. */
export function runningProcess({ executable, libraries, script }: RunningService): TestProcess {
  return {
    pid: PID,
    startTicks: START_TICKS,
    uids: [SERVICE_UID, SERVICE_UID, SERVICE_UID, SERVICE_UID],
    gids: [SERVICE_UID, SERVICE_UID, SERVICE_UID, SERVICE_UID],
    isMainImage: true,
    executable,
    files: [...libraries],
    executableMemory: [],
    modifiedTextBytes: 0,
    capabilities: {
      inheritable: NO_CAPABILITIES,
      permitted: NO_CAPABILITIES,
      effective: NO_CAPABILITIES,
      bounding: NO_CAPABILITIES,
      ambient: NO_CAPABILITIES,
    },
    noNewPrivs: true,
    seccomp: 0,
    tracerPid: 0,
    hostUserNamespace: true,
    hostRoot: true,
    verifiedStoreMount: true,
    mountsBelowStore: [],
    environmentHints: [],
    searchPaths: [],
    argv: ['node', '--jitless', script],
    namespaces: { ...NAMESPACES },
    // As Node has them: a ring for each event loop.
    descriptors: [{ kind: 'io-uring', name: 'anon_inode:[io_uring]', count: 3 }],
    dataFiles: { count: 0, files: [] },
    inContainer: null,
  }
}

/** What an agent states about a service, its closure being checked at `nowSeconds`. */
export function runningFacts(service: RunningService, nowSeconds: number): TestFacts {
  const { name, audience, root, closureDigest, executable, script } = service
  return {
    audience,
    ttlSeconds: null,
    purpose: 'issue',
    callerPid: PID,
    unit: {
      launcher: 'bagcheck-exec',
      name,
      cgroup: `/bagcheck/${name}`,
      contract: {
        executable: executable.path,
        arguments: ['--jitless', script],
        uid: SERVICE_UID,
        gid: SERVICE_UID,
        noNewPrivs: true,
        pid: PID,
        startTicks: START_TICKS,
        intact: true,
      },
      container: null,
      service: null,
    },
    processes: [runningProcess(service)],
    roots: [
      {
        root,
        closureDigest,
        store: 'host',
        strength: 'incremental',
        checkedAt: nowSeconds,
        lastFullAt: nowSeconds,
        mismatch: null,
      },
    ],
  }
}

/** What an agent states about a host that is locked down. */
export function runningHost(): Evidence['host'] {
  return {
    unitEvents: 'none',
    bootId: 'boot',
    kernel: '6.1',
    cmdlineSha256: sha256Hex('init=/nix/store/x'),
    currentSystem: null,
    bootedSystem: null,
    namespaces: { ...NAMESPACES },
    store: { device: '8:1', fsType: 'ext4', readOnly: true },
    sysctls: {
      ptraceScope: '1',
      corePattern: 'core',
      modulesDisabled: '1',
      kexecLoadDisabled: '1',
      ioUringDisabled: '2',
      memfdNoexec: '1',
      unprivilegedUserfaultfd: '0',
      unprivilegedBpfDisabled: '2',
      perfEventParanoid: '2',
      randomizeVaSpace: '2',
    },
    binfmtMisc: [],
    modules: { count: 1, sha256: sha256Hex('ext4\n') },
    lockdown: 'integrity',
    clockSynchronised: true,
    preloads: [],
  }
}

/** What is about the request and not about the service. */
export interface EvidenceRequest {
  readonly node: string
  readonly issuer: string
  readonly installation: string
  /** Pinned digest of the trust root. */
  readonly trustRoot: string
  readonly nonce: string
  readonly counter: number
  readonly nowSeconds: number
  readonly workloadKey: NodeKey['thumbprint']
}

/** The payload that a node signs, for an issue; not yet signed. */
export function evidenceOf(request: EvidenceRequest, facts: TestFacts): Evidence {
  const { node, issuer, nowSeconds, trustRoot, installation, nonce, counter, workloadKey } = request
  return {
    schema: 'bagcheck.evidence/v1',
    iss: node,
    aud: issuer,
    installation,
    trustRoot: trustRoot as Sha256,
    iat: nowSeconds,
    nonce,
    counter,
    profile: null,
    workloadKey,
    instance: {
      ...{ pid: PID, startTicks: START_TICKS },
      ...{ device: '8:1', inode: '42', startCode: 4096 },
    },
    previousDecision: null,
    facts,
    host: runningHost(),
    agent: { version: '0.1.0', executable: sha256Hex('agent'), roots: [] },
  }
}
