// Decisions and their entry in the log. The entry is a SLSA verification summary, signed by the
// broker's decision key, committed before anything is minted. A LoggedDecision is the proof of that: it
// is made here, after the transaction, and can be used once.
import { DECISION_SCHEMA, type DecisionContent, type Reason } from '@bagcheck/api'
import { SLSA_VSA_V1, VSA_TOKEN_V1, type SigningKey } from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import type { Approval } from '@bagcheck/policy'
import { BrokerError } from './error.ts'
import type { IdentifiedEvidence, VerifiedEvidence } from './evidence.ts'
import { ownBytes, signEntry } from './signed-entry.ts'
import type { Store } from './store/store.ts'

/** What happens where; the same for every decision of one broker. */
export interface DecisionLog {
  readonly issuer: string
  readonly installation: string
  readonly key: SigningKey
  readonly store: Pick<Store, 'commitDecision'>
}

/** Under which policy, when and as what a decision is made. Times are seconds since the epoch. */
export interface DecisionFrame {
  /** UUIDv7; the `jti` of the token if there is one. */
  readonly id: string
  readonly at: number
  readonly policy: { readonly version: number; readonly sha256: Sha256 }
}

/** What a token says, all of it durable. */
export interface AllowedDecision {
  readonly id: string
  readonly logIndex: number
  readonly role: string
  readonly sub: string
  readonly audience: string
  readonly binding: 'dpop' | 'none'
  readonly keyThumbprint: string | null
  readonly issuedAt: number
  readonly expiresAt: number
  readonly root: string
  readonly closureDigest: Sha256
  readonly successorOf: Sha256 | null
  readonly tier: number
  readonly strength: string
  readonly policyVersion: number
  readonly policySha256: Sha256
  readonly evidenceSha256: Sha256
}

let create: (content: AllowedDecision) => LoggedDecision

/** An allow that is in the log. Only {@link logAllow} makes one. */
export class LoggedDecision {
  #content: AllowedDecision | null

  private constructor(content: AllowedDecision) {
    this.#content = content
  }

  static {
    create = (content) => new LoggedDecision(content)
  }

  /** Its content, once. @throws {TypeError} it was used before */
  use(): AllowedDecision {
    const content = this.#content
    if (content === null) throw new TypeError('a logged decision can be used once')
    this.#content = null
    return content
  }
}

/** A denial that is in the log. */
export interface LoggedDenial {
  readonly id: string
  readonly logIndex: number
  readonly reasons: readonly Reason[]
}

/**
 * Uses an approval up and logs what it allows; `attestationOf` names the logged envelope of a closure's
 * attestation.
 * @throws {BrokerError} POLICY_CHANGED, NODE_BANNED, NONCE_REUSED, COUNTER_REUSED, STORE_* – nothing was
 * logged and nothing may be minted
 */
export async function logAllow(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: VerifiedEvidence,
  approved: Approval,
  attestationOf: (closureDigest: string) => string,
): Promise<LoggedDecision> {
  const approval = approved.use()
  const { content } = evidence
  const { binding } = approval.profile
  if (binding === 'dpop' && content.workloadKey === null)
    throw new BrokerError('DECISION_INCOMPLETE', 'expected a workload key for a bound token')
  const expiresAt = frame.at + approval.ttlSeconds
  const decision = {
    ...decisionOf(log, frame, evidence),
    role: approval.role,
    profile: approval.profile.name,
    sub: approval.sub,
    closureDigest: approval.closureDigest,
    root: approval.root,
    successorOf: approval.successorOf,
    tier: approval.tier,
    strength: approval.strength,
    ttlSeconds: approval.ttlSeconds,
    expiresAt,
    reasons: [],
  }
  const logIndex = await commit(log, frame, evidence, decision, {
    resourceUri: approval.root,
    inputAttestations: [attestationOf(approval.closureDigest)],
  })
  return create({
    id: frame.id,
    logIndex,
    role: approval.role,
    sub: approval.sub,
    audience: approval.audience,
    binding,
    keyThumbprint: content.workloadKey,
    issuedAt: frame.at,
    expiresAt,
    root: approval.root,
    closureDigest: approval.closureDigest,
    successorOf: approval.successorOf,
    tier: approval.tier,
    strength: approval.strength,
    policyVersion: frame.policy.version,
    policySha256: frame.policy.sha256,
    evidenceSha256: evidence.sha256,
  })
}

/** Logs a denial by policy. @throws {BrokerError} as {@link logAllow} */
export async function logDenial(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: VerifiedEvidence,
  verdict: { role: string | null; reasons: readonly Reason[] },
): Promise<LoggedDenial> {
  const { roots, unit } = evidence.content.facts
  // Where several roots fit, the first is shown; all of them are in the evidence.
  const decision = {
    ...decisionOf(log, frame, evidence),
    role: verdict.role,
    closureDigest: roots[0]?.closureDigest ?? null,
    root: roots[0]?.root ?? null,
    reasons: [...verdict.reasons],
  }
  const about = { resourceUri: `urn:bagcheck:unit:${encodeURIComponent(unit.name)}` }
  const logIndex = await commit(log, frame, evidence, decision, about)
  return { id: frame.id, logIndex, reasons: verdict.reasons }
}

/** Logs that evidence of a known node did not verify. @throws {BrokerError} as {@link logAllow} */
export async function logRefusal(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: IdentifiedEvidence,
  reason: Reason,
): Promise<LoggedDenial> {
  const decision = {
    ...emptyDecision(log, frame),
    purpose: evidence.purpose,
    node: evidence.node.id,
    nonce: evidence.nonce,
    counter: counterOf(evidence.payload),
    evidenceSha256: evidence.sha256,
    reasons: [reason],
  }
  const about = { resourceUri: `urn:bagcheck:node:${encodeURIComponent(evidence.node.id)}` }
  const logIndex = await commit(log, frame, evidence, decision, about)
  return { id: frame.id, logIndex, reasons: [reason] }
}

function emptyDecision(log: DecisionLog, frame: DecisionFrame): DecisionContent {
  return {
    schema: DECISION_SCHEMA,
    installation: log.installation,
    id: frame.id,
    purpose: 'issue',
    node: '',
    unit: '',
    role: null,
    audience: '',
    profile: null,
    sub: null,
    closureDigest: null,
    root: null,
    successorOf: null,
    tier: null,
    strength: null,
    ttlSeconds: null,
    issuedAt: frame.at,
    expiresAt: null,
    keyThumbprint: null,
    nonce: '',
    counter: null,
    previous: null,
    policyVersion: frame.policy.version,
    evidenceSha256: '',
    reasons: [],
  }
}

function decisionOf(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: VerifiedEvidence,
): DecisionContent {
  const { content } = evidence
  return {
    ...emptyDecision(log, frame),
    purpose: content.facts.purpose,
    node: evidence.node.id,
    unit: content.facts.unit.name,
    audience: content.facts.audience,
    keyThumbprint: content.workloadKey,
    nonce: content.nonce,
    counter: content.counter,
    previous: content.previousDecision,
    evidenceSha256: evidence.sha256,
  }
}

async function commit(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: { readonly text: string },
  decision: DecisionContent,
  about: { resourceUri: string; inputAttestations?: readonly string[] },
): Promise<number> {
  const allow = decision.expiresAt !== null
  const statement = {
    subject: [{ name: 'evidence', digest: { sha256: decision.evidenceSha256 } }],
    predicateType: SLSA_VSA_V1,
    predicate: {
      verifier: { id: log.issuer },
      timeVerified: `${new Date(frame.at * 1000).toISOString().slice(0, 19)}Z`,
      resourceUri: about.resourceUri,
      policy: {
        uri: `urn:bagcheck:policy:${log.installation}:${frame.policy.version}`,
        digest: { sha256: frame.policy.sha256 },
      },
      inputAttestations: (about.inputAttestations ?? []).map((sha256) => ({ digest: { sha256 } })),
      verificationResult: allow ? 'PASSED' : 'FAILED',
      verifiedLevels: [allow ? `BAGCHECK_TIER_${decision.tier}` : 'FAILED'],
      [VSA_TOKEN_V1]: decision,
    },
  }
  const { index } = await log.store.commitDecision({
    id: decision.id,
    allow,
    node: decision.node,
    nonce: decision.nonce,
    counter: decision.counter,
    role: decision.role,
    audience: decision.audience,
    unit: decision.unit,
    issuedAt: decision.issuedAt,
    expiresAt: decision.expiresAt,
    code: decision.reasons[0]?.code ?? null,
    ...signEntry(statement, log.key),
    evidence: ownBytes(evidence.text),
    expect: { policyVersion: frame.policy.version },
  })
  return index
}

// The payload failed its schema or a later check; the counter is kept where it can be one.
function counterOf(payload: unknown): number | null {
  const { counter } = (payload ?? {}) as { counter?: unknown }
  return Number.isSafeInteger(counter) && (counter as number) >= 1 ? (counter as number) : null
}
