// A whole installation in a temporary directory: trust root, keys, signed policies, an attested closure
// and enrolled nodes that sign real evidence. Nothing is simulated but the measurement, whose facts are
// written by hand. Every key is made here and dies with the directory: all are TEST keys.
import type { KeyObject } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EVIDENCE_TYP } from '@bagcheck/api'
import {
  formatEnvelope,
  formatVerifyingKey,
  generateSigningKey,
  type BuildFacts,
  type SigningKey,
} from '@bagcheck/attest'
import { generateNoteKey } from '@bagcheck/log'
import { buildManifest, makeFileList, parseNarHash, parseStorePath, sha256Hex } from '@bagcheck/nix'
import {
  compilePolicy,
  createJoinToken,
  createPolicyEnvelope,
  createTrustRoot,
  trustRootDigest,
} from '@bagcheck/policy'
import {
  attestClosure,
  evidenceOf,
  mappedFile,
  nodeKey,
  policyText,
  pureFacts,
  runningFacts,
  signJws,
  type NodeKey,
  type TestClosure,
} from '@bagcheck/testkit'
import { createApp } from '../../src/app.ts'
import { openBroker, type Broker } from '../../src/broker.ts'
import { parseConfig, type Config } from '../../src/config.ts'

export const AUDIENCE = 'https://api.demo.test'
export const BEARER_AUDIENCE = 'https://reports.demo.test'
/** The trust domain, under which X.509-SVIDs stand, and an audience of JWT-SVIDs; with `svids` only. */
export const TRUST_DOMAIN = 'demo.bagcheck.test'
export const SVID_AUDIENCE = `spiffe://${TRUST_DOMAIN}`
export const JWT_AUDIENCE = 'spiffe://demo.bagcheck.test/role/ledger'
export const ISSUER = 'https://broker.demo.test'
export const INSTALLATION = 'demo'
/** 2026-11-24T08:00:00Z in seconds. */
export const START = 1_795_507_200

const NODE_PATH = parseStorePath('/nix/store/00000000000000000000000000000000-demo-node-24')
const ROOT_PATH = parseStorePath('/nix/store/11111111111111111111111111111111-orders-1.0')
export const EXECUTABLE = `${NODE_PATH}/bin/node`
export const SCRIPT = `${ROOT_PATH}/lib/service.mjs`

const WORKLOAD_KEY = 'wOrKlOaDkEyThUmBpRiNt0000000000000000000000'
const PREVIOUS_DECISION = '019ab2f4-0000-7000-8000-000000000000'

// Memory where there is some: hundreds of commits need not wait for a disk to test what they decide.
const TEMPORARY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** A node: its key, its id and its counter. */
export interface TestNode extends NodeKey {
  readonly id: string
  counter: number
}

/** What may differ in a policy. */
export interface PolicyWish {
  readonly version?: number
  readonly prev?: string | null
  readonly expires?: string
  readonly state?: 'active' | 'revoked'
  readonly keys?: readonly SigningKey[]
  readonly closure?: string
  readonly observe?: boolean
  /** Changes the text before it is compiled. */
  readonly edit?: (text: string) => string
}

export interface Installation extends AsyncDisposable {
  readonly dir: string
  readonly pin: string
  readonly config: Config
  readonly configFile: string
  readonly broker: Broker
  /** Where requests go instead of the broker of this process. */
  transport: Transport | null
  /** Milliseconds since the epoch; set it to move time. */
  nowMs: number
  readonly closure: TestClosure
  readonly ci: SigningKey
  readonly policyKeys: readonly SigningKey[]
  policy(wish?: PolicyWish): { policy: string; envelope: string; sha256: string }
  joinToken(options?: { key?: SigningKey; tokenId?: string; expires?: string }): string
  request(method: string, path: string, body?: unknown, admin?: boolean): Promise<Response>
  publish(wish?: PolicyWish): Promise<Response>
  /** Publishes version 1 and submits the attestation. */
  ready(): Promise<void>
  enrol(key?: KeyObject): Promise<TestNode>
  challenge(node: string, purpose?: 'issue' | 'renew' | 'observe'): Promise<string>
  evidence(node: TestNode, change?: EvidenceChange): Promise<string>
  token(evidence: string, audience?: string): Promise<Response>
  restart(): Promise<void>
}

/** Sends a request to a broker in another process. */
export type Transport = (path: string, init: RequestInit) => Promise<Response>

/** Changes to evidence before it is signed. */
export interface EvidenceChange {
  readonly nonce?: string
  readonly purpose?: 'issue' | 'renew' | 'observe'
  readonly header?: Record<string, unknown>
  readonly key?: KeyObject
  readonly edit?: (evidence: any) => void // oxlint-disable-line typescript/no-explicit-any
}

const keyed = (): { key: SigningKey; pem: string } => {
  const { signing, pem } = generateSigningKey()
  return { key: signing, pem }
}
const iso = (seconds: number): string => new Date(seconds * 1000).toISOString().replace('.000', '')

export interface InstallationOptions {
  readonly store?: Record<string, string>
  readonly listen?: Record<string, unknown>
  readonly issuer?: string
  /** Starts at the present instead of a fixed time, for tests that run a real process. */
  readonly startSeconds?: number
  readonly rootExpires?: string
  /** Leaves the broker closed; `broker` then throws. */
  readonly closed?: boolean
  /** Lets the role have SVIDs too. */
  readonly svids?: boolean
  /** Of the configuration. */
  readonly spiffe?: Record<string, unknown>
}

export async function createInstallation(options: InstallationOptions = {}): Promise<Installation> {
  const dir = mkdtempSync(join(TEMPORARY, 'bagcheck-gate-'))
  const start = options.startSeconds ?? START
  const issuer = options.issuer ?? ISSUER
  const rootKey = keyed()
  const policyKeys = [keyed(), keyed(), keyed()].map(({ key }) => key)
  const enrolment = keyed()
  const brokerKey = keyed()
  const ci = keyed().key
  const logKey = generateNoteKey('demo-log.test')
  const named = (name: string, keys: readonly SigningKey[]) =>
    keys.map((key, i) => ({ name: `${name}-${i + 1}`, key }))
  const rootEnvelope = createTrustRoot(
    {
      installation: INSTALLATION,
      version: 1,
      expires: options.rootExpires ?? iso(start + 365 * 86_400),
      prev: null,
      roles: {
        root: { threshold: 1, keys: named('root', [rootKey.key]) },
        policy: { threshold: 2, keys: named('policy', policyKeys) },
        approvals: { threshold: 1, keys: named('policy', policyKeys) },
        enrolment: { threshold: 1, keys: named('enrolment', [enrolment.key]) },
        broker: { threshold: 1, keys: named('broker', [brokerKey.key]) },
      },
      log: { origin: 'demo-log.test', keys: [logKey.vkey] },
    },
    [rootKey.key],
  )
  const rootText = formatEnvelope(rootEnvelope)
  const pin = trustRootDigest(rootText)
  const secret = (name: string, text: string): void =>
    writeFileSync(join(dir, name), text, { mode: 0o600 })
  secret('broker.pem', brokerKey.pem)
  secret('log.key', `${logKey.secretKey}\n`)
  writeFileSync(join(dir, 'root.json'), rootText)
  const configText = JSON.stringify({
    installation: INSTALLATION,
    issuer,
    stateDir: 'state',
    listen: options.listen ?? { host: '127.0.0.1', port: 0, tls: null },
    adminSocket: 'admin.sock',
    store: options.store ?? { sqlite: 'bagcheck.sqlite' },
    trustRoot: { pin, chain: ['root.json'] },
    logKey: 'log.key',
    decisionKey: 'broker.pem',
    ...(options.spiffe && { spiffe: options.spiffe }),
  })
  const configFile = join(dir, 'broker.json')
  writeFileSync(configFile, configText)
  const config = parseConfig(configText, dir)
  const closure = attestedClosure(ci)

  const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }
  const open = (): Promise<Broker> => openBroker(config, { wall: () => self.nowMs, logger: silent })
  let broker: Broker | undefined

  const self: Installation = {
    dir,
    pin,
    config,
    transport: null,
    configFile,
    nowMs: start * 1000,
    closure,
    ci,
    policyKeys,
    get broker() {
      if (broker === undefined) throw new TypeError('this installation runs no broker of its own')
      return broker
    },
    policy: (wish = {}) => {
      const { version = 1, prev = null, expires = iso(start + 30 * 86_400) } = wish
      const { state = 'active', keys = policyKeys.slice(0, 2) } = wish
      const closureDigest = wish.closure ?? closure.manifest.digest
      const text = policyText({
        installation: INSTALLATION,
        version,
        expires,
        role: 'orders',
        executable: 'demo-node-*/bin/node',
        script: 'orders-*/lib/service.mjs',
        audiences: {
          [AUDIENCE]: { profile: 'api' },
          [BEARER_AUDIENCE]: { profile: 'plain' },
          ...(options.svids && {
            [SVID_AUDIENCE]: { profile: 'svid', ttl: '{ min: 5, max: 3600 }' },
            [JWT_AUDIENCE]: { profile: 'jwt' },
          }),
        },
        root: ROOT_PATH,
        closure: closureDigest,
        state,
        observe: wish.observe ?? false,
      })
      const { edit = (same: string) => same } = wish
      const { json } = compilePolicy(edit(text), {
        file: 'policy.yaml',
        readFile: () => formatVerifyingKey(ci),
      })
      const envelope = formatEnvelope(createPolicyEnvelope(json, prev, keys))
      return { policy: json, envelope, sha256: sha256Hex(json) }
    },
    joinToken: (wish = {}) => {
      const tokenId = wish.tokenId ?? sha256Hex(`${Math.random()}`).slice(0, 32)
      const token = {
        installation: INSTALLATION,
        tokenId,
        nodeClass: 'demo',
        notBefore: iso(Math.floor(self.nowMs / 1000) - 60),
        expires: wish.expires ?? iso(Math.floor(self.nowMs / 1000) + 3600),
        nodeExpiresSeconds: 7 * 86_400,
      }
      return formatEnvelope(createJoinToken(token, wish.key ?? enrolment.key))
    },
    request: async (method, path, body, admin = false) => {
      const form = typeof body === 'string'
      const type = form ? 'application/x-www-form-urlencoded' : 'application/json'
      const text = form ? body : JSON.stringify(body)
      const init = { method, body: text, headers: { 'content-type': type } }
      if (self.transport !== null)
        return self.transport(path, body === undefined ? { method } : init)
      const app = createApp(self.broker, admin ? 'admin' : 'public')
      return app.request(path, body === undefined ? { method } : init)
    },
    publish: (wish) => {
      const { policy, envelope } = self.policy(wish)
      return self.request('POST', '/v1/policy', { policy, envelope })
    },
    ready: async () => {
      expectStatus(await self.publish(), 200)
      expectStatus(await self.request('POST', '/v1/attestations', closure.request), 200)
    },
    enrol: async (key) => {
      const node = newNode(key)
      const joinToken = self.joinToken()
      const proof = enrolProof(node, joinToken, issuer, self.nowMs)
      const response = await self.request('POST', '/v1/nodes', { joinToken, proof })
      expectStatus(response, 201)
      const { node: id } = (await response.json()) as { node: string }
      return { ...node, id }
    },
    challenge: async (node, purpose = 'issue') => {
      const response = await self.request('POST', '/v1/challenge', { node, purpose })
      expectStatus(response, 200)
      return ((await response.json()) as { nonce: string }).nonce
    },
    evidence: async (node, change = {}) => {
      const purpose = change.purpose ?? 'issue'
      const nonce = change.nonce ?? (await self.challenge(node.id, purpose))
      const nowSeconds = Math.floor(self.nowMs / 1000)
      const service = {
        name: 'orders',
        audience: AUDIENCE,
        root: ROOT_PATH,
        closureDigest: closure.manifest.digest,
        executable: mappedFile(EXECUTABLE, sha256Hex('node')),
        libraries: [],
        script: SCRIPT,
      }
      const request = {
        node: node.id,
        issuer,
        installation: INSTALLATION,
        trustRoot: pin,
        nonce,
        counter: ++node.counter,
        nowSeconds,
        workloadKey: WORKLOAD_KEY,
      }
      const statement = evidenceOf(request, runningFacts(service, nowSeconds))
      Object.assign(statement.facts, { purpose })
      if (purpose === 'renew') statement.previousDecision = PREVIOUS_DECISION
      change.edit?.(statement)
      const header = { typ: EVIDENCE_TYP, kid: node.thumbprint, ...change.header }
      return signJws(header, statement, change.key ?? node.key)
    },
    token: (evidence, audience = AUDIENCE) =>
      self.request('POST', '/token', exchangeForm(evidence, audience)),
    restart: async () => {
      await self.broker.close()
      broker = await open()
    },
    [Symbol.asyncDispose]: async () => {
      await broker?.close()
      rmSync(dir, { recursive: true })
    },
  }
  if (!options.closed) broker = await open()
  return self
}

function expectStatus(response: Response, status: number): void {
  if (response.status !== status)
    throw new Error(`expected status ${status}, saw ${response.status}`)
}

export function exchangeForm(evidence: string, audience: string): string {
  return new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    audience,
    subject_token: evidence,
  }).toString()
}

export function newNode(key?: KeyObject): TestNode {
  return { ...nodeKey(key), id: 'unknown', counter: 0 }
}

export function enrolProof(
  node: TestNode,
  joinToken: string,
  issuer: string = ISSUER,
  nowMs: number = START * 1000,
): string {
  const payload = { aud: issuer, iat: Math.floor(nowMs / 1000), joinToken: sha256Hex(joinToken) }
  return signJws({ typ: 'bagcheck-enrol+jwt', jwk: node.jwk }, payload, node.key)
}

/** A closure of two paths, attested with the build facts that the test policy demands, or with `others`. */
export function attestedClosure(
  key: SigningKey,
  service = 'service',
  others: Partial<BuildFacts> = {},
): TestClosure {
  const narHash = parseNarHash(`sha256-${Buffer.alloc(32, 1).toString('base64')}`)
  const manifest = buildManifest(ROOT_PATH, [
    { path: NODE_PATH, narHash, narSize: 1000, references: [] },
    { path: ROOT_PATH, narHash, narSize: service.length, references: [NODE_PATH] },
  ])
  const files = makeFileList([
    { path: EXECUTABLE, sha256: sha256Hex('node'), size: 1000, executable: true },
    { path: SCRIPT, sha256: sha256Hex(service), size: 100, executable: false },
  ])
  return attestClosure({ manifest, files }, key, pureFacts(others))
}
