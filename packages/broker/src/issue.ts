// The gate: verify → evaluate → log → mint, in this order, with no way round.
//
//   clock      a clock that went back mints nothing
//   policy     none installed, nothing to decide by
//   identify   evidence signed by an enrolled node over a nonce of ours   otherwise: counted
//   check      made for this broker, now, for this audience               otherwise: logged refusal
//   evaluate   by the policy that is installed now                        otherwise: logged denial
//   log        durable, with policy version, ban, nonce and counter checked in that transaction
//   mint       takes the logged decision, once; each type of token has its own function
//
// Whatever throws on the way ends the request without a token. Crash points stand where a crash could
// hurt; after the log and before the mint a decision without a token is what remains, never the reverse.
import { randomBytes } from 'node:crypto'
import type { Reason } from '@bagcheck/api'
import {
  closuresNeeded,
  decisionContext,
  evaluate,
  trustDomainId,
  type Decision,
  type TokenType,
} from '@bagcheck/policy'
import type { Broker } from './broker.ts'
import { banClone } from './ban.ts'
import type { Attested } from './closures.ts'
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
import { wantedBy } from './spiffe/authorities.ts'
import {
  mintJwtSvid,
  mintX509Svid,
  type MintedJwtSvid,
  type MintedX509Svid,
} from './spiffe/svid.ts'
import { parseWorkloadKey } from './spiffe/workload-key.ts'
import { mintToken, type MintedToken } from './token.ts'
import { uuidV7 } from './uuid.ts'

/** What the token endpoint was asked for. */
export interface IssueRequest {
  readonly audience: string
  /** Compact JWS. */
  readonly evidence: string
}

/** What was minted, or a denial that is in the log. */
export type Issued<T> =
  | { readonly kind: 'minted'; readonly minted: T }
  | { readonly kind: 'denied'; readonly denial: LoggedDenial }

/** What signs, where authorities rotate. */
interface Signer {
  readonly id: string
  readonly expiresAt: number
}

/** One type of token: what is asked of evidence for it, what signs it, how it is minted. */
interface Wish<S extends Signer | null, T> {
  readonly type: TokenType
  /** Compact JWS. */
  readonly evidence: string
  /** What the evidence must name; null where it alone says. */
  readonly audience: string | null
  readonly workloadKey: string | null
  /** Asked for at the time of the decision, which names it. @throws {BrokerError} AUTHORITY_MISSING */
  readonly signer: (policy: InstalledPolicy, nowSeconds: number) => S
  readonly mint: (decision: LoggedDecision, signer: S) => T
}

/** Policy may change under a decision; after so many changes in a row the client tries again later. */
const MAX_ATTEMPTS = 3

/**
 * Judges evidence and mints the access token it earns.
 * @throws {BrokerError} what {@link identifyEvidence} throws; CLOCK_STEPPED_BACK, POLICY_MISSING,
 * NODE_KEY_CLONED (the node is banned then), STORE_*
 */
export async function issueToken(
  broker: Broker,
  { audience, evidence }: IssueRequest,
): Promise<Issued<MintedToken>> {
  return issue(broker, {
    ...{ type: 'access_token', evidence, audience, workloadKey: null },
    signer: () => null,
    mint: (decision) => mintToken(decision, broker.config.issuer, broker.keys.token),
  })
}

/**
 * Judges evidence and certifies the key that it names.
 * @throws {BrokerError} as {@link issueToken}; SVID_KEY – before the evidence is looked at; AUTHORITY_MISSING,
 * AUTHORITY_CHANGED
 */
export async function issueX509Svid(
  broker: Broker,
  { evidence, publicKey }: { readonly evidence: string; readonly publicKey: string },
): Promise<Issued<MintedX509Svid>> {
  const key = parseWorkloadKey(publicKey)
  const trustDomain = await readyToSign(broker)
  return issue(broker, {
    ...{ type: 'x509_svid', evidence, workloadKey: key.thumbprint },
    audience: trustDomainId(trustDomain),
    signer: (policy, now) => broker.authorities.x509Signer(trustDomainOf(policy), now),
    mint: (decision, signer) => mintX509Svid(decision, signer, key),
  })
}

/** Judges evidence and mints the JWT-SVID it earns. @throws {BrokerError} as {@link issueX509Svid} */
export async function issueJwtSvid(
  broker: Broker,
  { evidence }: { readonly evidence: string },
): Promise<Issued<MintedJwtSvid>> {
  await readyToSign(broker)
  return issue(broker, {
    ...{ type: 'jwt_svid', evidence, audience: null, workloadKey: null },
    signer: (policy, now) => broker.authorities.jwtSigner(trustDomainOf(policy), now),
    mint: (decision, signer) => mintJwtSvid(decision, broker.config.issuer, signer),
  })
}

/** Before a nonce is used up in vain: something can sign. Returns the trust domain. */
async function readyToSign(broker: Broker): Promise<string> {
  const { policy } = broker.policy.installed().verified
  await broker.authorities.ready(wantedBy(policy), Math.floor(broker.clock.nowMs() / 1000))
  return policy.trustDomain
}

function trustDomainOf({ verified }: InstalledPolicy): string {
  return verified.policy.trustDomain
}

async function issue<S extends Signer | null, T>(
  broker: Broker,
  wish: Wish<S, T>,
): Promise<Issued<T>> {
  const nowMs = broker.clock.nowMs()
  broker.policy.installed()
  const identified = await identify(broker, wish.evidence, Math.floor(nowMs / 1000))
  let verified: VerifiedEvidence
  try {
    verified = checkEvidence(identified, {
      issuer: broker.config.issuer,
      installation: broker.config.installation,
      trustRoot: broker.config.trustRoot.pin,
      audience: wish.audience,
      workloadKey: wish.workloadKey,
      nowSeconds: Math.floor(nowMs / 1000),
    })
  } catch (error) {
    return { kind: 'denied', denial: await refuse(broker, identified, error) }
  }
  const logged = await decide(broker, verified, wish)
  if (logged.kind === 'denied') {
    broker.metrics.decisionsDenied.add(logged.denial.reasons[0]?.code)
    return logged
  }
  broker.crashAt('before-mint')
  const minted = wish.mint(logged.decision, logged.signer)
  broker.crashAt('after-mint')
  broker.metrics.tokensIssued.add()
  return { kind: 'minted', minted }
}

async function identify(
  broker: Broker,
  evidence: string,
  nowSeconds: number,
): Promise<IdentifiedEvidence> {
  const { nonces, nodes } = broker
  try {
    return await identifyEvidence(evidence, { nonces, nodes, nowSeconds })
  } catch (error) {
    if (error instanceof BrokerError) broker.metrics.evidenceRefused.add(error.code)
    throw error
  }
}

type Logged<S> =
  | { readonly kind: 'allowed'; readonly decision: LoggedDecision; readonly signer: S }
  | { readonly kind: 'denied'; readonly denial: LoggedDenial }

/** Evaluates by the policy of now and logs the outcome; again if policy changed before it was logged. */
async function decide<S extends Signer | null, T>(
  broker: Broker,
  verified: VerifiedEvidence,
  wish: Wish<S, T>,
): Promise<Logged<S>> {
  for (let attempt = 1; ; attempt++) {
    const policy = broker.policy.installed()
    const frame = newFrame(broker, policy)
    const decision = await judge(broker, policy, verified, frame, wish.type)
    broker.crashAt('before-log')
    try {
      if (!decision.allow)
        return { kind: 'denied', denial: await deny(broker, frame, verified, decision) }
      const signer = wish.signer(policy, frame.at)
      const logged = await allow(broker, frame, verified, decision, signer)
      return { kind: 'allowed', decision: logged, signer }
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      if (error.code === 'COUNTER_REUSED')
        throw await banClone(broker, verified.node.id, verified.content.counter)
      if (error.code === 'NODE_BANNED') await broker.nodes.reload(verified.node.id)
      const changed = error.code === 'POLICY_CHANGED' || error.code === 'AUTHORITY_CHANGED'
      if (!changed || attempt === MAX_ATTEMPTS) throw error
      await broker.policy.reload()
      if (error.code === 'AUTHORITY_CHANGED')
        await broker.authorities.tend(wantedBy(broker.policy.installed().verified.policy), frame.at)
    }
  }
}

async function judge(
  broker: Broker,
  policy: InstalledPolicy,
  { node, content }: VerifiedEvidence,
  frame: DecisionFrame,
  type: TokenType,
): Promise<Decision> {
  // An attestation that another replica took in is loaded before, because evaluation cannot wait.
  const { nodeClass } = node
  await broker.closures.prepare(closuresNeeded(policy.verified, content.facts, nodeClass))
  const basis = { evidence: content, nodeClass, decidedAt: frame.at, closures: broker.closures }
  const context = decisionContext({ ...basis, type })
  return evaluate(policy.verified, content.facts, context)
}

function allow(
  broker: Broker,
  frame: DecisionFrame,
  verified: VerifiedEvidence,
  { approval }: Extract<Decision, { allow: true }>,
  signer: Signer | null,
): Promise<LoggedDecision> {
  const attestationOf = (closure: string, attested: Attested): string =>
    broker.closures.envelopeSha256(closure, attested)
  return timed(broker, logAllow(broker.log, frame, verified, approval, attestationOf, signer))
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

/** Names a decision of now. */
export function newFrame(broker: Broker, policy: InstalledPolicy): DecisionFrame {
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
