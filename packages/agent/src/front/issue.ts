// One credential for one process instance, as a linear story, whatever evidence is exchanged for: a token, an
// X.509-SVID, a JWT-SVID. Renewal is the same story with another purpose.
//   challenge   a nonce for this node and purpose
//   measure     the unit, after the challenge, so that the facts are fresher than the nonce
//   check       every root that fits: content against manifest
//   state       evidence, signed by the node key
//   exchange    evidence for a credential; a denial is the broker's problem document
//   re-check    the instance is still what was measured, or the credential is thrown away
import type { Evidence } from '@bagcheck/api'
import { AgentError } from '../error.ts'
import type { ProcessInstance, SettledMeasurement } from '../measure/messages.ts'
import { BrokerProblem, type BrokerClient } from './broker-client.ts'
import { denialKey, type Denials } from './denials.ts'
import { signJws, type SigningKey } from './jws.ts'
import type { Outcomes, Stated } from './outcomes.ts'
import type { Roots } from './roots.ts'
import type { AgentState, NodeIdentity } from './state.ts'

/** What evidence is exchanged for. Times are seconds since the epoch. */
export interface Credential {
  readonly expiresAt: number
  readonly decision: string
  readonly logIndex: number
}

/** A token that was handed out. */
export interface IssuedToken extends Credential {
  readonly accessToken: string
  readonly tokenType: 'DPoP' | 'Bearer'
  readonly audience: string
}

/** What is asked for. */
export interface IssueRequest {
  readonly instance: ProcessInstance
  /** Null for an X.509-SVID, which stands under the trust domain's own SPIFFE ID. */
  readonly audience: string | null
  readonly ttlSeconds: number | null
  /** The profile that the workload expects; null leaves it to the policy. */
  readonly profile: string | null
  /** Thumbprint of the workload's key; null for a bearer token. */
  readonly workloadKey: string | null
  /** Decision that this renews; null for an issue. */
  readonly previousDecision: string | null
}

/** What issuing needs. */
export interface IssueContext {
  readonly node: NodeIdentity
  readonly key: SigningKey
  readonly state: AgentState
  readonly broker: BrokerClient
  readonly roots: Roots
  readonly denials: Denials
  readonly outcomes: Outcomes
  readonly measure: (instance: ProcessInstance) => Promise<SettledMeasurement>
  /** Throws if another program runs there now, or if that cannot be told. */
  readonly check: (instance: ProcessInstance) => Promise<void>
  readonly installation: string
  readonly issuer: string
  readonly trustRootPin: string
  readonly agent: () => Promise<Evidence['agent']>
  readonly now: () => number
}

/** A full read of a large closure can outlive a nonce; the next round finds it in the ledger. */
const ROUNDS = 4
/** The broker may have another nonce key than when it gave the challenge (restored, or another replica). */
const MAX_FOREIGN = 1
/** Oldest measurement that is stated: well below the minute that a nonce lives. */
const MAX_AGE_MS = 15_000

/** What is done with evidence: compact JWS about `audience`, stated at `askedAt`. */
export type Exchange<C extends Credential> = (
  evidence: string,
  stated: { readonly audience: string; readonly askedAt: number },
) => Promise<C>

/**
 * Obtains a token.
 * @throws {BrokerProblem} a denial; {AgentError} everything that keeps facts from being stated or sent
 */
export function issueToken(request: IssueRequest, context: IssueContext): Promise<IssuedToken> {
  return issue(request, context, async (evidence, { audience, askedAt }) => {
    const token = await context.broker.token(audience, evidence)
    return {
      accessToken: token.access_token,
      tokenType: token.token_type,
      expiresAt: askedAt + token.expires_in,
      audience,
      decision: token.decision,
      logIndex: token.log_index,
    }
  })
}

/**
 * Obtains what `exchange` gives for evidence about `request`.
 * @throws {BrokerProblem} a denial; {AgentError} everything that keeps facts from being stated or sent
 */
export async function issue<C extends Credential>(
  request: IssueRequest,
  context: IssueContext,
  exchange: Exchange<C>,
): Promise<C> {
  const stated: Stated = {}
  try {
    const credential = await repeat(request, context, exchange, stated)
    context.outcomes.succeeded(request, stated, credential)
    return credential
  } catch (error) {
    context.outcomes.failed(request, stated, error)
    throw error
  }
}

async function repeat<C extends Credential>(
  request: IssueRequest,
  context: IssueContext,
  exchange: Exchange<C>,
  stated: Stated,
): Promise<C> {
  let foreign = 0
  for (let round = 1; ; round += 1) {
    try {
      const credential = await issueOnce(request, context, exchange, stated)
      if (credential !== undefined) return credential
    } catch (error) {
      // Either is said before anything of the evidence was looked at: no denial, and no allowance either.
      const code = error instanceof BrokerProblem ? error.problem.code : undefined
      if (code === 'NONCE_INVALID') foreign += 1
      const again = code === 'NONCE_EXPIRED' || (code === 'NONCE_INVALID' && foreign <= MAX_FOREIGN)
      if (!again || round >= ROUNDS) throw error
    }
    if (round >= ROUNDS)
      throw new AgentError('MEASUREMENT_TIMEOUT', 'checking the store took too long each time')
  }
}

/** One round; undefined if its facts grew old before they could be stated. */
async function issueOnce<C extends Credential>(
  request: IssueRequest,
  context: IssueContext,
  exchange: Exchange<C>,
  stated: Stated,
): Promise<C | undefined> {
  const { broker, roots, node, key, now } = context
  const purpose = request.previousDecision === null ? 'issue' : 'renew'
  const challenge = await broker.challenge(node.node, purpose)
  await roots.refreshPolicy(challenge.policyVersion)
  const audience = request.audience ?? `spiffe://${roots.trustDomain}`
  const measurement = await context.measure(request.instance)
  stated.unit = measurement.unit
  context.outcomes.measured(request, measurement.unit)
  const asker = denialKey(measurement.unit)
  if (purpose === 'issue') context.denials.check(asker)
  const fitting = await roots.fitting(measurement, audience)
  const ageMs = now() - measurement.measuredAtMs
  if (!(ageMs >= 0 && ageMs <= MAX_AGE_MS)) return undefined // of the future: the clock was set back since
  const { startStack: _ours, ...instance } = request.instance
  const evidence: Evidence = {
    schema: 'bagcheck.evidence/v1',
    iss: node.node,
    aud: context.issuer,
    installation: context.installation,
    trustRoot: context.trustRootPin as Evidence['trustRoot'],
    iat: Math.floor(now() / 1000),
    nonce: challenge.nonce,
    counter: context.state.nextCounter(),
    profile: request.profile,
    workloadKey: request.workloadKey,
    instance,
    previousDecision: request.previousDecision,
    facts: {
      audience,
      ttlSeconds: request.ttlSeconds,
      purpose,
      callerPid: request.instance.pid,
      unit: measurement.unit,
      processes: [...measurement.processes],
      roots: fitting,
    },
    host: measurement.host,
    agent: await context.agent(),
  }
  stated.facts = evidence.facts
  const jws = signJws({ typ: 'bagcheck-evidence+jwt', kid: key.thumbprint }, evidence, key)
  // Reckoned from before the exchange: a token expires at the broker no earlier than we say.
  const askedAt = Math.floor(now() / 1000)
  const credential = await exchange(jws, { audience, askedAt }).catch((error: unknown) => {
    if (error instanceof BrokerProblem && error.problem.decision !== undefined)
      context.denials.count(asker, error.problem.code)
    throw error
  })
  await context.check(request.instance)
  return credential
}
