// Puts the agent together: state, enrolment, measurer, sessions, socket. Clock and chance enter here.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openLedger } from '@bagcheck/nix'
import { policyFileOf } from './actions/rollback.ts'
import { measurerSettings, type AgentConfig } from './config.ts'
import { Actions } from './front/actions/actions.ts'
import { awaitStart } from './front/await-start.ts'
import { createBrokerClient, type BrokerClient } from './front/broker-client.ts'
import { Callers } from './front/callers.ts'
import { Denials } from './front/denials.ts'
import { EarlyRenewals } from './front/early-renewals.ts'
import { ensureEnrolled, isRefusal } from './front/enrol.ts'
import { explainProcess } from './front/explain.ts'
import { readAgentFacts } from './front/agent-facts.ts'
import { issueToken, type IssueContext } from './front/issue.ts'
import { loadNodeKey } from './front/jws.ts'
import { LocalClosures } from './front/local-closures.ts'
import { MeasurerClient } from './front/measurer-client.ts'
import { gauge, MeasureMetrics, metricsText } from './front/metrics.ts'
import { Observer } from './front/observe.ts'
import { NonceBook } from './front/nonce-book.ts'
import { isTransient } from './front/problem.ts'
import { formatDenials, Outcomes, parseDenials } from './front/outcomes.ts'
import { assertTrustRoot } from './front/policy-view.ts'
import { Roots } from './front/roots.ts'
import { createFront } from './front/server.ts'
import { Sessions } from './front/sessions.ts'
import { TokenFiles } from './front/token-files.ts'
import { startWorkloadApi } from './front/spiffe/workload-api.ts'
import { AgentState, findClosedDirectory, type NodeIdentity } from './front/state.ts'
import { describe, type Log } from './log.ts'
import { readBootId } from './measure/host.ts'
import type { ProcessInstance, SettledMeasurement } from './measure/messages.ts'
import { assertProcfs } from './measure/proc-file.ts'
import { startOwnMeasurer } from './own-measurer.ts'
import { lockState, makeStateDirectory, writeFile } from './state-directory.ts'
import { connectToOwner, listenAt } from './unix-socket.ts'
import { AGENT_VERSION } from './version.ts'

const MAX_ENROL_BACKOFF_MS = 30_000

/** A running agent. */
export interface RunningAgent extends AsyncDisposable {
  readonly node: string
  readonly socket: string
}

/** What an agent is started with. */
export interface AgentOptions {
  readonly log: Log
  readonly signal: AbortSignal
  /** Connects to a measurer; default: to that of the configuration, or to a child. */
  readonly measurer?: () => Promise<Socket>
  /** Reads a file that the configuration names. */
  readonly readText?: (file: string) => string
  /** Pins callers by the way of kernels before 6.5. */
  readonly fallback?: boolean
}

/**
 * Starts an agent's front: resolves once it is enrolled and serves its socket.
 * @throws {AgentError} PROC_NOT_PROCFS, KEY_FILE_MODE, STATE_INVALID, NOT_ENROLLED, BROKER_REFUSED
 */
export async function startAgent(
  config: AgentConfig,
  options: AgentOptions,
): Promise<RunningAgent> {
  const { log, signal, measurer: connect = () => connectMeasurer(config) } = options
  const { readText = (file) => readFileSync(file, 'utf8') } = options
  const now = Date.now
  // For what is no date: nobody sets this one back.
  const elapsed = (): number => performance.now()
  assertProcfs()
  await using resources = new AsyncDisposableStack()
  const early = new EarlyRenewals(elapsed)
  const measurer = resources.use(new MeasurerClient(connect, (notice) => early.hear(notice), log))
  makeStateDirectory(config.stateDir)
  resources.use(lockState(config.stateDir))
  const state = AgentState.open(config.stateDir)
  const key = loadNodeKey(state.keyFile)
  const ca = config.brokerCa === null ? null : readText(config.brokerCa)
  const broker = createBrokerClient({ url: config.broker, ca })
  resources.defer(() => broker.close())
  const { issuer, joinToken } = config
  const node = await untilReached(
    async () => {
      // A wrong broker or pin shows here, before the join token is used up. No impostor does: a trust root
      // is public, and only TLS says who answers.
      await checkTrustRoot(broker, config.trustRootPin, state.readNode() !== undefined)
      return ensureEnrolled({ state, key, broker, issuer, joinToken, readText, now })
    },
    { log, signal },
  )
  const ledger = openLedger(state.ledgerFile)
  resources.defer(() => ledger.close())
  const measurements = new MeasureMetrics()
  const measure = measurements.timed((instance: ProcessInstance): Promise<SettledMeasurement> =>
    awaitStart(() => measurer.measure(instance), sleep),
  )
  const local = new LocalClosures(config.nix, elapsed)
  const { trustRootPin, installation } = config
  const intervalMs = config.storeCheckIntervalSeconds * 1000
  const roots = new Roots({
    ...{ state, broker, local, ledger, trustRootPin, intervalMs, now, log },
    hashContained: (instance, request) => measurer.hash(instance, request),
    ...(config.actions.some((action) => action.do === 'rollback') && {
      keepPolicy: (response: string) => keepPolicy(config, response, log),
    }),
  })
  resources.defer(() => roots.close())
  const denials = new Denials(elapsed)
  const outcomes = resources.use(
    new Outcomes(
      {
        denials: parseDenials(state.readDenials()),
        save: (kept) => state.writeDenials(formatDenials(kept)),
      },
      now,
      log,
    ),
  )
  let agentFacts: ReturnType<typeof readAgentFacts> | undefined
  const issuing: IssueContext = {
    ...{ node, key, state, broker, roots, denials, outcomes },
    ...{ installation, issuer, trustRootPin, now, measure },
    check: (instance) => measurer.check(instance),
    agent: () => (agentFacts ??= readAgentFacts(local)),
  }
  const timing = { now, random: Math.random, schedule }
  const sessions = resources.use(
    new Sessions((request) => issueToken(request, issuing), timing, log, outcomes),
  )
  early.add(sessions)
  resources.use(
    new Actions(config.actions, {
      ...{ outcomes, key, installation, log, now, node: node.node, backoffMs: 2000 },
      actionsSocket: config.actionsSocket,
      deadLetters: join(config.stateDir, 'dead-letters.jsonl'),
    }),
  )
  const observer = resources.use(
    new Observer({
      ...{ issuing, measurer, random: Math.random, log },
      intervalMs: config.observeIntervalSeconds * 1000,
    }),
  )
  const tokenFiles = resources.use(
    new TokenFiles(config.tokenFiles, {
      ...{ sessions, measurer, now, log },
      store: {
        text: state.readTokenFiles(),
        save: (text) => state.writeTokenFiles(text),
        bootId: readBootId(),
      },
    }),
  )
  const callers = new Callers(measurer, { fallback: options.fallback ?? false })
  const server = createFront({
    callers,
    sessions,
    nonces: new NonceBook(elapsed),
    unitOf: async (pid) => (await measure(await measurer.instance(pid))).unit,
    newNonce: () => randomBytes(32).toString('base64url'),
    explain: (pid) =>
      explainProcess(pid, { measure, measurer, roots, outcomes, observations: observer }),
    health: () => health(node, roots, sessions),
    metrics: () =>
      metricsText({
        ...{ outcomes, measurements, now },
        measurer: () => measurer.state,
        sessions: () => sessions,
        policyVersion: () => roots.policyVersion,
        enrolmentExpiresAt: node.expiresAt,
        more: () => [
          ...gauge('token_files', 'Token files that hold a token', tokenFiles.written),
          ...observer.lines(),
        ],
      }),
    now,
    log,
  })
  await listenAt(server, config.socket)
  const closed = findClosedDirectory(dirname(config.socket))
  if (closed !== undefined)
    log('warn', 'workloads of other users cannot reach the socket: chmod o+x its directory', {
      directory: closed,
    })
  resources.defer(() => close(server))
  const { spiffeSocket } = config
  if (spiffeSocket !== null) {
    const workloadApi = resources.use(startWorkloadApi(issuing, { callers, timing, log, outcomes }))
    early.add(workloadApi.sessions)
    await listenAt(workloadApi.server, spiffeSocket)
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

/** For `bagcheck-agent --actions`, which verifies it. Without it nothing is rolled back, and all else goes on. */
function keepPolicy(config: AgentConfig, response: string, log: Log): void {
  try {
    writeFile(policyFileOf(config), response, 0o644)
  } catch (error) {
    log('warn', 'policy not kept for rollbacks', describe(error))
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

/** Connects to the measurer that the configuration names, or to one of our own. */
async function connectMeasurer(config: AgentConfig): Promise<Socket> {
  const { socket } = config.measurer
  return socket === null
    ? startOwnMeasurer(measurerSettings(config)).socket
    : connectToOwner(socket)
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

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

function schedule(action: () => void, delayMs: number): () => void {
  const timer = setTimeout(action, Math.max(delayMs, 0))
  return () => clearTimeout(timer)
}
