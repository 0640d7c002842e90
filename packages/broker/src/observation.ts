// Observations: what an agent states about a unit that asked for nothing. Judged like a request, logged, and
// answered with what was thought of it. No way leads from here to a token:
//
//   - the JWS has a type and a purpose of its own, and so has the nonce in it: no exchange takes it;
//   - a VerifiedObservation is no VerifiedEvidence, which is what a decision is logged from;
//   - `observe` makes no Approval, which is what an allow is logged from;
//   - what is logged is no verification summary, and in the tables it allows nothing.
//
// Only what policy wants observed is logged, and within limits, so that nobody fills the log this way.
import {
  OBSERVATION_TYP,
  observationSchema,
  OBSERVED_SCHEMA,
  type Observation,
  type ObservationResponse,
  type Observed,
  type Reason,
} from '@bagcheck/api'
import { OBSERVATION_V1 } from '@bagcheck/attest'
import { closuresNeeded, observe as judge, type ObservedVerdict } from '@bagcheck/policy'
import { banClone } from './ban.ts'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import { identify, readStatement, type Identified } from './evidence.ts'
import { newFrame } from './issue.ts'
import { ownBytes, signEntry } from './signed-entry.ts'

/**
 * Judges and logs an observation.
 * @throws {BrokerError} what `identify` and `readStatement` throw; OBSERVATION_UNWANTED – no role wants it;
 * OBSERVATION_LIMIT, POLICY_MISSING, CLOCK_STEPPED_BACK, NODE_KEY_CLONED, STORE_*
 */
export async function observe(broker: Broker, text: string): Promise<ObservationResponse> {
  const nowSeconds = Math.floor(broker.clock.nowMs() / 1000)
  const policy = broker.policy.installed()
  const observation = await verifyObservation(broker, text, nowSeconds)
  const { node, content } = observation
  broker.observationLimits.take(node.id, broker.store.waiting)
  const facts = { ...content.facts, purpose: 'issue' as const }
  await broker.closures.prepare(closuresNeeded(policy.verified, facts, node.nodeClass))
  const frame = newFrame(broker, policy)
  const verdict = judge(policy.verified, content.facts, {
    ...{ nodeClass: node.nodeClass, tier: 0, host: content.host, closures: broker.closures },
    now: new Date(frame.at * 1000),
  })
  if (verdict === undefined)
    throw new BrokerError(
      'OBSERVATION_UNWANTED',
      `no role wants unit ${quote(content.facts.unit.name)} observed for ${quote(content.facts.audience)}`,
    )
  const reasons = reasonsOf(verdict)
  const logIndex = await log(broker, frame, observation, verdict)
  broker.metrics.observations.add(verdict.wouldAllow ? 'would_allow' : reasons[0]?.code)
  return {
    id: frame.id,
    log_index: logIndex,
    would_allow: verdict.wouldAllow,
    role: verdict.role,
    reasons,
  }
}

let create: (identified: Identified<'observe'>, content: Observation) => VerifiedObservation

/** An observation that passed every check; only {@link verifyObservation} makes one. */
class VerifiedObservation {
  readonly #identified: Identified<'observe'>
  readonly content: Observation

  private constructor(identified: Identified<'observe'>, content: Observation) {
    this.#identified = identified
    this.content = content
  }

  static {
    create = (identified, content) => new VerifiedObservation(identified, content)
  }

  get node(): Identified<'observe'>['node'] {
    return this.#identified.node
  }

  get text(): string {
    return this.#identified.text
  }

  get sha256(): string {
    return this.#identified.sha256
  }
}

async function verifyObservation(
  broker: Broker,
  text: string,
  nowSeconds: number,
): Promise<VerifiedObservation> {
  const { nonces, nodes, config } = broker
  try {
    const form = { typ: OBSERVATION_TYP, purposes: ['observe'] as const }
    const identified = await identify(text, { nonces, nodes, nowSeconds }, form)
    const { issuer, installation } = config
    const expected = { issuer, installation, trustRoot: config.trustRoot.pin, nowSeconds }
    return create(identified, readStatement(identified, expected, observationSchema))
  } catch (error) {
    if (error instanceof BrokerError) broker.metrics.evidenceRefused.add(error.code)
    throw error
  }
}

async function log(
  broker: Broker,
  frame: ReturnType<typeof newFrame>,
  observation: VerifiedObservation,
  verdict: ObservedVerdict,
): Promise<number> {
  const { node, content, sha256, text } = observation
  const { facts, nonce, counter } = content
  const [first] = facts.roots
  const reasons = reasonsOf(verdict)
  const observed: Observed = {
    schema: OBSERVED_SCHEMA,
    installation: broker.config.installation,
    ...{ id: frame.id, node: node.id, unit: facts.unit.name, role: verdict.role },
    ...{ audience: facts.audience, wouldAllow: verdict.wouldAllow },
    closureDigest: verdict.wouldAllow ? verdict.closureDigest : (first?.closureDigest ?? null),
    root: verdict.wouldAllow ? verdict.root : (first?.root ?? null),
    ...{ observedAt: frame.at, nonce, counter, policyVersion: frame.policy.version },
    ...{ evidenceSha256: sha256, reasons },
  }
  const statement = {
    subject: [{ name: 'observation', digest: { sha256 } }],
    predicateType: OBSERVATION_V1,
    predicate: observed,
  }
  try {
    const { index } = await broker.store.commitDecision({
      ...{ entryKind: 'observation', id: frame.id, allow: false, node: node.id, nonce, counter },
      ...{ role: verdict.role, audience: facts.audience, unit: facts.unit.name },
      ...{ issuedAt: frame.at, expiresAt: null, code: reasons[0]?.code ?? null },
      ...signEntry(statement, broker.log.key),
      evidence: ownBytes(text),
      expect: { policyVersion: frame.policy.version, authority: null },
    })
    return index
  } catch (error) {
    // One counter for all that a node signs: used twice, it is a cloned key here as there.
    if (error instanceof BrokerError && error.code === 'COUNTER_REUSED')
      throw await banClone(broker, node.id, counter)
    throw error
  }
}

function reasonsOf(verdict: ObservedVerdict): Reason[] {
  if (verdict.wouldAllow) return []
  return verdict.reasons.map(({ code, message, nearest }) => ({
    code,
    message,
    ...(nearest && { nearest }),
  }))
}
