// The gate: verify → evaluate → log → mint, in this order, with no way round.
//
//   clock      a clock that went back mints nothing
//   policy     none installed, nothing to decide by
//   identify   evidence signed by an enrolled node over a nonce of ours   otherwise: counted
//   check      made for this broker, now, for this audience               otherwise: logged refusal
//   evaluate   by the policy that is installed now                        otherwise: logged denial
//   log        durable, with policy version, ban, nonce and counter checked in that transaction
//   mint       takes the logged decision and nothing else
//
// Whatever throws on the way ends the request without a token. Crash points stand where a crash could
// hurt; after the log and before the mint a decision without a token is what remains, never the reverse.
import { randomBytes } from 'node:crypto'
import type { Reason } from '@bagcheck/api'
import { closuresNeeded, decisionContext, evaluate, type Decision } from '@bagcheck/policy'
import type { Broker } from './broker.ts'
import { banNode } from './ban.ts'
import {
  logAllow,
  logDenial,
  logRefusal,
  type DecisionFrame,
  type LoggedDecision,
  type LoggedDenial,
} from './decision.ts'
import { BrokerError } from './error.ts'
import {
  checkEvidence,
  identifyEvidence,
  type IdentifiedEvidence,
  type VerifiedEvidence,
} from './evidence.ts'
import type { InstalledPolicy } from './policy-state.ts'
import { mintToken, type MintedToken } from './token.ts'
import { uuidV7 } from './uuid.ts'

/** What the token endpoint was asked for. */
export interface IssueRequest {
  readonly audience: string
  /** Compact JWS. */
  readonly evidence: string
}

/** A token, or a denial that is in the log. */
export type Issued =
  | { readonly kind: 'token'; readonly token: MintedToken }
  | { readonly kind: 'denied'; readonly denial: LoggedDenial }

/** Policy may change under a decision; after so many changes in a row the client tries again later. */
const MAX_ATTEMPTS = 3

/**
 * Judges evidence and mints the token it earns.
 * @throws {BrokerError} what {@link identifyEvidence} throws; CLOCK_STEPPED_BACK, POLICY_MISSING,
 * NODE_KEY_CLONED (the node is banned then), STORE_*
 */
export async function issue(broker: Broker, request: IssueRequest): Promise<Issued> {
  const nowMs = broker.clock.nowMs()
  broker.policy.installed()
  const identified = await identify(broker, request, Math.floor(nowMs / 1000))
  let verified: VerifiedEvidence
  try {
    verified = checkEvidence(identified, {
      issuer: broker.config.issuer,
      installation: broker.config.installation,
      trustRoot: broker.config.trustRoot.pin,
      audience: request.audience,
      nowSeconds: Math.floor(nowMs / 1000),
    })
  } catch (error) {
    return { kind: 'denied', denial: await refuse(broker, identified, error) }
  }
  const logged = await decide(broker, verified)
  if (logged.kind === 'denied') {
    broker.metrics.decisionsDenied.add(logged.denial.reasons[0]?.code)
    return logged
  }
  broker.crashAt('before-mint')
  const token = mintToken(logged.decision, broker.config.issuer, broker.keys.token)
  broker.crashAt('after-mint')
  broker.metrics.tokensIssued.add()
  return { kind: 'token', token }
}

async function identify(
  broker: Broker,
  request: IssueRequest,
  nowSeconds: number,
): Promise<IdentifiedEvidence> {
  const { nonces, nodes } = broker
  try {
    return await identifyEvidence(request.evidence, { nonces, nodes, nowSeconds })
  } catch (error) {
    if (error instanceof BrokerError) broker.metrics.evidenceRefused.add(error.code)
    throw error
  }
}

type Logged =
  | { readonly kind: 'allowed'; readonly decision: LoggedDecision }
  | { readonly kind: 'denied'; readonly denial: LoggedDenial }

/** Evaluates by the policy of now and logs the outcome; again if policy changed before it was logged. */
async function decide(broker: Broker, verified: VerifiedEvidence): Promise<Logged> {
  for (let attempt = 1; ; attempt++) {
    const policy = broker.policy.installed()
    const frame = newFrame(broker, policy)
    const decision = await judge(broker, policy, verified, frame)
    broker.crashAt('before-log')
    try {
      return decision.allow
        ? { kind: 'allowed', decision: await allow(broker, frame, verified, decision) }
        : { kind: 'denied', denial: await deny(broker, frame, verified, decision) }
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      if (error.code === 'COUNTER_REUSED') throw await cloned(broker, verified)
      if (error.code === 'NODE_BANNED') await broker.nodes.reload(verified.node.id)
      if (error.code !== 'POLICY_CHANGED' || attempt === MAX_ATTEMPTS) throw error
      await broker.policy.reload()
    }
  }
}

async function judge(
  broker: Broker,
  policy: InstalledPolicy,
  { node, content }: VerifiedEvidence,
  frame: DecisionFrame,
): Promise<Decision> {
  // An attestation that another replica took in is loaded before, because evaluation cannot wait.
  const { nodeClass } = node
  await broker.closures.prepare(closuresNeeded(policy.verified, content.facts, nodeClass))
  const { closures } = broker
  const context = decisionContext({ evidence: content, nodeClass, decidedAt: frame.at, closures })
  return evaluate(policy.verified, content.facts, context)
}

function allow(
  broker: Broker,
  frame: DecisionFrame,
  verified: VerifiedEvidence,
  decision: Extract<Decision, { allow: true }>,
): Promise<LoggedDecision> {
  return timed(
    broker,
    logAllow(broker.log, frame, verified, decision.approval, (closure, attested) =>
      broker.closures.envelopeSha256(closure, attested),
    ),
  )
}

function deny(
  broker: Broker,
  frame: DecisionFrame,
  verified: VerifiedEvidence,
  { role, reasons }: Extract<Decision, { allow: false }>,
): Promise<LoggedDenial> {
  const said: Reason[] = reasons.map(({ code, message, nearest }) => ({
    code,
    message,
    ...(nearest && { nearest }),
  }))
  return timed(broker, logDenial(broker.log, frame, verified, { role, reasons: said }))
}

/** Logs that evidence of a known node failed a check; anything but such a failure is thrown on. */
async function refuse(
  broker: Broker,
  identified: IdentifiedEvidence,
  error: unknown,
): Promise<LoggedDenial> {
  if (!(error instanceof BrokerError)) throw error
  const { code, message } = error
  broker.metrics.decisionsDenied.add(code)
  const frame = newFrame(broker, broker.policy.installed())
  return timed(broker, logRefusal(broker.log, frame, identified, { code, message }))
}

/** The same counter under two nonces: two holders of one node key, and no telling which is the node. */
async function cloned(broker: Broker, { node, content }: VerifiedEvidence): Promise<BrokerError> {
  const reason = `counter ${content.counter} was used twice`
  await banNode(broker, node.id, reason, 'NODE_KEY_CLONED')
  return new BrokerError(
    'NODE_KEY_CLONED',
    `the key of node ${node.id} is in use twice (${reason}); the node is banned`,
  )
}

function newFrame(broker: Broker, policy: InstalledPolicy): DecisionFrame {
  const nowMs = broker.clock.nowMs()
  return {
    id: uuidV7(nowMs, randomBytes(10)),
    at: Math.floor(nowMs / 1000),
    policy: { version: policy.version, sha256: policy.sha256 },
  }
}

async function timed<T>(broker: Broker, commit: Promise<T>): Promise<T> {
  const start = performance.now()
  const result = await commit
  broker.metrics.commitSeconds.observe((performance.now() - start) / 1000)
  return result
}
