// What one broker is made of. Opened once from a configuration; every request gets it as an argument.
import { readFileSync } from 'node:fs'
import { parseNoteKey } from '@bagcheck/log'
import { verifyTrustRootChain, type TrustRoot } from '@bagcheck/policy'
import { verifyingKeyFromSpki, type VerifyingKey } from '@bagcheck/attest'
import { ClockGuard, type WallClock } from './clock.ts'
import { Closures, type SignerRules } from './closures.ts'
import type { Config } from './config.ts'
import type { DecisionLog } from './decision.ts'
import { BrokerError, quote } from './error.ts'
import {
  AUTHORITY_CRASH_POINTS,
  ISSUE_CRASH_POINTS,
  type AuthorityCrashPoint,
  type IssueCrashPoint,
} from './crash-point.ts'
import { openKeys, type BrokerKeys } from './keys.ts'
import type { BrokerLogger } from './logger.ts'
import { LastSuccess } from './last-success.ts'
import { checkRecords, readNode } from './logged-records.ts'
import { ObservationLimits } from './observation-limits.ts'
import { Metrics } from './metrics.ts'
import { NodeBook } from './nodes.ts'
import { NonceBook } from './nonce.ts'
import { PolicyState } from './policy-state.ts'
import { Authorities, wantedBy } from './spiffe/authorities.ts'
import { AuthorityKeys } from './spiffe/authority-keys.ts'
import { Federation } from './spiffe/federation.ts'
import { CRASH_POINTS, type CrashPoint } from './store/crash-point.ts'
import { openStore, type Store } from './store/store.ts'
import { readTlsFiles } from './tls-files.ts'

/** A running broker. */
export interface Broker {
  readonly config: Config
  readonly root: TrustRoot
  readonly rootChain: readonly string[]
  readonly keys: BrokerKeys
  readonly store: Store
  readonly clock: ClockGuard
  readonly logger: BrokerLogger
  readonly metrics: Metrics
  readonly nonces: NonceBook
  readonly nodes: NodeBook
  readonly lastSuccess: LastSuccess
  readonly observationLimits: ObservationLimits
  readonly closures: Closures
  readonly policy: PolicyState
  readonly authorities: Authorities
  readonly federation: Federation
  readonly log: DecisionLog
  /** Kills the process if the configuration asks for a crash here. */
  crashAt(point: IssueCrashPoint): void
  /** Begins to load the closures that no request has needed yet. To be called once the broker answers. */
  loadClosures(): void
  close(): Promise<void>
}

/** What a broker takes from its process. */
export interface Surroundings {
  readonly wall: WallClock
  readonly logger: BrokerLogger
}

/** Replicas tell each other nothing; each looks for a newer policy and newer attestations so often. */
const POLL_MS = 2000

/**
 * Verifies the trust root, opens keys and store, checks its tables against the log, and loads policy,
 * nodes and closures.
 * @throws {BrokerError | PolicyError | AttestError} whatever is wrong; the broker does not start
 */
export async function openBroker(config: Config, { wall, logger }: Surroundings): Promise<Broker> {
  const rootChain = config.trustRoot.chain.map(readText)
  const { pin } = config.trustRoot
  const root = verifyTrustRootChain(rootChain, { pin, now: new Date(wall()) })
  if (root.installation !== config.installation)
    throw new BrokerError(
      'CONFIG_INVALID',
      `expected the trust root of installation ${quote(config.installation)}, saw that of ${quote(root.installation)}`,
    )
  readTlsFiles(config.listen) // a wrong path is noticed before state is written
  const keys = openKeys(config, root)
  const authorityKeys = AuthorityKeys.open(config.stateDir)
  const federation = new Federation(config.spiffe.federatesWith)
  const crash = parseCrashPoint(config.testingOnlyCrashAt)
  const store = await openStore({
    engine: config.store,
    origin: parseNoteKey(keys.log).name,
    logKey: keys.log,
    testingOnlyCrashAt: crash.store,
  })
  try {
    const policy = new PolicyState({ store, root, rootChain })
    const closures = new Closures(store, signerRules(policy))
    const trust = { installation: config.installation, brokerKeys: brokerKeys(rootChain, pin) }
    const records = await checkRecords(store, trust)
    const nodes = new NodeBook(records.nodes, (id) => readNode(store, id, trust))
    await policy.reload()
    const clock = new ClockGuard(wall, records.latestMs)
    const authorities = new Authorities({
      store,
      keys: authorityKeys,
      decisionKey: keys.decision,
      trust,
      ttlSeconds: config.spiffe.authorityTtlSeconds,
      steps: records.steps,
      crashAt: (point) => {
        if (point === crash.authority) process.kill(process.pid, 'SIGKILL')
      },
    })
    await followAuthorities({ authorities, policy, clock, logger })
    const stopping = new AbortController()
    let loading = Promise.resolve()
    let following = Promise.resolve()
    const poll = setInterval(() => {
      closures.lookAgain()
      federation.reload((err) => logger.error({ err }, 'a trust bundle could not be read'))
      following = followPolicy(policy, logger).then(() =>
        followAuthorities({ authorities, policy, clock, logger }),
      )
    }, POLL_MS).unref()
    return {
      config,
      root,
      rootChain,
      keys,
      store,
      clock,
      logger,
      metrics: new Metrics(),
      nonces: new NonceBook(keys.nonce),
      nodes,
      lastSuccess: new LastSuccess(store, wall),
      observationLimits: new ObservationLimits(wall),
      closures,
      policy,
      authorities,
      federation,
      log: {
        issuer: config.issuer,
        installation: config.installation,
        key: keys.decision,
        store,
      },
      crashAt: (point) => {
        if (point === crash.issue) process.kill(process.pid, 'SIGKILL')
      },
      loadClosures: () => {
        loading = loadClosures(closures, stopping.signal, logger)
      },
      close: async () => {
        clearInterval(poll)
        stopping.abort()
        await loading
        await following
        await store.close()
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** What a request needs is loaded for it; the rest serves to say what comes nearest to a bag. */
async function loadClosures(
  closures: Closures,
  signal: AbortSignal,
  logger: BrokerLogger,
): Promise<void> {
  const failed = (err: unknown): void => logger.error({ err }, 'an attestation could not be loaded')
  await closures.loadAll(signal, failed).catch(failed)
}

async function followPolicy(policy: PolicyState, logger: BrokerLogger): Promise<void> {
  try {
    await policy.reload()
  } catch (err) {
    logger.error({ err }, 'the installed policy could not be read')
  }
}

/** Takes over what other brokers did to authorities, and does what is due to ours. */
async function followAuthorities({
  authorities,
  policy,
  clock,
  logger,
}: Pick<Broker, 'authorities' | 'policy' | 'clock' | 'logger'>): Promise<void> {
  const installed = policy.current()?.verified.policy
  try {
    if (installed === undefined) await authorities.reload()
    else await authorities.tend(wantedBy(installed), Math.floor(clock.nowMs() / 1000))
  } catch (err) {
    logger.error({ err }, 'the authorities could not be tended')
  }
}

/** The broker keys of every version of the trust root. */
function brokerKeys(chain: readonly string[], pin: string): VerifyingKey[] {
  const versions = chain.map((_, i) =>
    // The last one is in time; those before it need not be any more.
    verifyTrustRootChain(chain.slice(0, i + 1), { pin, now: new Date(0) }),
  )
  const keys = versions.flatMap(({ roles }) =>
    roles.broker.keys.map((key) => [key.keyId, key] as const),
  )
  return [...new Map(keys).values()]
}

function parseCrashPoint(name: string | undefined): {
  store: CrashPoint | undefined
  issue: IssueCrashPoint | undefined
  authority: AuthorityCrashPoint | undefined
} {
  const store = CRASH_POINTS.find((point) => point === name)
  const issue = ISSUE_CRASH_POINTS.find((point) => point === name)
  const authority = AUTHORITY_CRASH_POINTS.find((point) => point === name)
  if (name !== undefined && (store ?? issue ?? authority) === undefined)
    throw new BrokerError('CONFIG_INVALID', `testingOnlyCrashAt: no crash point ${quote(name)}`)
  return { store, issue, authority }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new BrokerError('CONFIG_FILE', `expected a readable file ${quote(file)}`, { cause })
  }
}

/** What the policy of the moment says about signers of attestations. */
function signerRules(state: PolicyState): SignerRules {
  return {
    signerKeys: (): VerifyingKey[] => {
      const signers = state.current()?.verified.policy.signers ?? new Map()
      return [...signers.values()].map(({ spki }) => verifyingKeyFromSpki(spki))
    },
    accepts: (digest: string, keyId: string): boolean => {
      const policy = state.current()?.verified.policy
      if (policy === undefined) return false
      const byOneOf = (signers: readonly string[]): boolean =>
        signers.some((name) => policy.signers.get(name)?.keyId === keyId)
      const among = (closures: readonly { readonly closure: string }[]): boolean =>
        closures.some(({ closure }) => closure === digest)
      return (
        [...policy.roles.values()].some(({ signers, roots }) => byOneOf(signers) && among(roots)) ||
        [...policy.hosts.values()].some(
          ({ signers, systems }) => byOneOf(signers) && among(systems),
        )
      )
    },
  }
}
