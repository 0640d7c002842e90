// Puts the agent together: state, enrolment, measurer, sessions, socket. Clock and chance enter here.
import { randomBytes } from 'node:crypto'
import { chmodSync, readFileSync, rmSync } from 'node:fs'
import type { Server as HttpServer } from 'node:http'
import { createConnection, type Server } from 'node:net'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openLedger, STORE_DIR } from '@bagcheck/nix'
import type { AgentConfig } from './config.ts'
import { AgentError, quote } from './error.ts'
import { awaitStart } from './front/await-start.ts'
import { createBrokerClient, type BrokerClient } from './front/broker-client.ts'
import { Callers } from './front/callers.ts'
import { Denials } from './front/denials.ts'
import { ensureEnrolled, isRefusal } from './front/enrol.ts'
import { readAgentFacts } from './front/agent-facts.ts'
import { issueToken, type IssueContext } from './front/issue.ts'
import { loadNodeKey } from './front/jws.ts'
import { LocalClosures } from './front/local-closures.ts'
import { NonceBook } from './front/nonce-book.ts'
import { isTransient } from './front/problem.ts'
import { assertTrustRoot } from './front/policy-view.ts'
import { Roots } from './front/roots.ts'
import { createFront } from './front/server.ts'
import { Sessions } from './front/sessions.ts'
import { startWorkloadApi } from './front/spiffe/workload-api.ts'
import {
  AgentState,
  findClosedDirectory,
  lockState,
  makePublicDirectory,
  makeStateDirectory,
  type NodeIdentity,
} from './front/state.ts'
import { describe, type Log } from './log.ts'
import { FirstSights } from './measure/first-sights.ts'
import { readBootId } from './measure/host.ts'
import { isRunning } from './measure/instance.ts'
import type { Measurement, ProcessInstance } from './measure/messages.ts'
import { MeasurerPool } from './measure/pool.ts'
import { assertProcfs } from './measure/proc-file.ts'
import { sharedMemoryDevice } from './peer.ts'
import { AGENT_VERSION } from './version.ts'

const MAX_ENROL_BACKOFF_MS = 30_000

/** A running agent. */
export interface RunningAgent extends AsyncDisposable {
  readonly node: string
  readonly socket: string
}

/**
 * Starts an agent: resolves once it is enrolled and serves its socket.
 * @throws {AgentError} PROC_NOT_PROCFS, KEY_FILE_MODE, STATE_INVALID, NOT_ENROLLED, BROKER_REFUSED
 */
export async function startAgent(
  config: AgentConfig,
  options: { log: Log; signal: AbortSignal },
): Promise<RunningAgent> {
  const { log, signal } = options
  const now = Date.now
  assertProcfs()
  await using resources = new AsyncDisposableStack()
  makeStateDirectory(config.stateDir)
  resources.use(lockState(config.stateDir))
  const state = AgentState.open(config.stateDir)
  const key = loadNodeKey(state.keyFile)
  const ca = config.brokerCa === null ? null : readFileSync(config.brokerCa, 'utf8')
  const broker = createBrokerClient({ url: config.broker, ca })
  resources.defer(() => broker.close())
  const { issuer, joinToken } = config
  const node = await untilReached(
    async () => {
      // A wrong broker or pin shows here, before the join token is used up. No impostor does: a trust root
      // is public, and only TLS says who answers.
      await checkTrustRoot(broker, config.trustRootPin, state.readNode() !== undefined)
      return ensureEnrolled({ state, key, broker, issuer, joinToken, now })
    },
    { log, signal },
  )
  const ledger = openLedger(state.ledgerFile)
  resources.defer(() => ledger.close())
  const { unitsDir, ociStateDirs } = config
  const measurer = resources.use(
    new MeasurerPool(
      { unitsDir, ociStateDirs, storeDir: STORE_DIR, sharedMemoryDevice: sharedMemoryDevice() },
      firstSightsOf(state),
    ),
  )
  const measure = (instance: ProcessInstance): Promise<Measurement> =>
    awaitStart(() => measurer.measure(instance), sleep)
  const local = new LocalClosures(config.nix, now)
  const { trustRootPin, installation } = config
  const intervalMs = config.storeCheckIntervalSeconds * 1000
  const roots = new Roots({
    ...{ state, broker, local, ledger, trustRootPin, intervalMs, now, log },
    hashContained: (instance, request) => measurer.hash(instance, request),
  })
  resources.defer(() => roots.close())
  const denials = new Denials(now)
  let agentFacts: ReturnType<typeof readAgentFacts> | undefined
  const issuing: IssueContext = {
    ...{ node, key, state, broker, roots, denials, installation, issuer, trustRootPin, now },
    measure,
    agent: () => (agentFacts ??= readAgentFacts(local)),
  }
  const timing = { now, random: Math.random, schedule }
  const sessions = resources.use(
    new Sessions((request) => issueToken(request, issuing), timing, log),
  )
  const callers = new Callers()
  const server = createFront({
    callers,
    sessions,
    nonces: new NonceBook(now),
    unitOf: async (instance) => (await measure(instance)).unit,
    newNonce: () => randomBytes(32).toString('base64url'),
    health: () => health(node, roots, sessions),
    now,
    log,
  })
  await listen(server, config.socket)
  const closed = findClosedDirectory(dirname(config.socket))
  if (closed !== undefined)
    log('warn', 'workloads of other users cannot reach the socket: chmod o+x its directory', {
      directory: closed,
    })
  resources.defer(() => close(server))
  const { spiffeSocket } = config
  if (spiffeSocket !== null) {
    const workloadApi = resources.use(startWorkloadApi(issuing, { callers, timing, log }))
    await listen(workloadApi.server, spiffeSocket)
  }
  log('info', 'serving', {
    node: node.node,
    nodeClass: node.nodeClass,
    socket: config.socket,
    spiffeSocket,
  })
  const held = resources.move()
  return {
    node: node.node,
    socket: config.socket,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** An enrolled node starts without its broker; the trust root is then checked with the policy. */
async function checkTrustRoot(
  broker: BrokerClient,
  pin: string,
  isEnrolled: boolean,
): Promise<void> {
  try {
    assertTrustRoot(await broker.rootChain(), pin)
  } catch (error) {
    if (!isEnrolled || !isTransient(error)) throw error
  }
}

/** First sights as they were when the agent last ran in this boot. */
function firstSightsOf(state: AgentState): FirstSights {
  const store = {
    bootId: readBootId(),
    text: state.readFirstSights(),
    save: (text: string) => state.writeFirstSights(text),
  }
  return new FirstSights(store, isRunning)
}

function health(
  { node, nodeClass, expiresAt }: NodeIdentity,
  roots: Roots,
  sessions: Sessions,
): Record<string, unknown> {
  const { policyVersion } = roots
  const instances = sessions.size
  const version = AGENT_VERSION
  return { status: 'ok', version, node, nodeClass, expiresAt, policyVersion, instances }
}

/** Repeats `action` while the broker cannot be reached; a refusal ends it. */
async function untilReached<T>(
  action: () => Promise<T>,
  { log, signal }: { log: Log; signal: AbortSignal },
): Promise<T> {
  for (let delayMs = 500; ; delayMs = Math.min(delayMs * 2, MAX_ENROL_BACKOFF_MS)) {
    try {
      return await action()
    } catch (error) {
      if (!isTransient(error) || isRefusal(error) || signal.aborted) throw error
      log('warn', 'not enrolled yet', describe(error))
      await sleep(delayMs * (0.8 + 0.4 * Math.random()), undefined, { signal })
    }
  }
}

/** Everybody may connect: who asks is measured, and that decides. */
async function listen(server: Server, path: string): Promise<void> {
  makePublicDirectory(dirname(path))
  if (await isServed(path))
    throw new AgentError('STATE_INVALID', `another agent serves ${quote(path)}`)
  rmSync(path, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  chmodSync(path, 0o666)
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

function close(server: HttpServer): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

function schedule(action: () => void, delayMs: number): () => void {
  const timer = setTimeout(action, Math.max(delayMs, 0))
  return () => clearTimeout(timer)
}
