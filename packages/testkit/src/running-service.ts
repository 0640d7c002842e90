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
const START_TICKS = 5000
const NO_CAPABILITIES = '0000000000000000'
const ALL_CAPABILITIES = '000001ffffffffff'

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
    anonymousExecutable: { regions: 0, bytes: 0 },
    modifiedTextBytes: 0,
    capabilities: {
      inheritable: NO_CAPABILITIES,
      permitted: NO_CAPABILITIES,
      effective: NO_CAPABILITIES,
      bounding: ALL_CAPABILITIES,
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
    argv: ['node', '--jitless', script],
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
    },
    processes: [runningProcess(service)],
    roots: [
      {
        root,
        closureDigest,
        strength: 'incremental',
        checkedAt: nowSeconds,
        lastFullAt: nowSeconds,
        mismatch: null,
      },
    ],
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
    host: { bootId: 'boot', kernel: '6.1', currentSystem: null, bootedSystem: null },
    agent: { version: '0.1.0', executable: sha256Hex('agent') },
  }
}
