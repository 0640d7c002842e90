// Decisions and their entry in the log. The entry is a SLSA verification summary, signed by the
// broker's decision key, committed before anything is minted. A LoggedDecision is the proof of that: it
// is made here, after the transaction, and can be used once.
import {
  DECISION_SCHEMA,
  SVID_DECISION_SCHEMA,
  type AllowedDecisionContent,
  type DecisionContent,
  type Reason,
} from '@bagcheck/api'
import { SLSA_VSA_V1, VSA_TOKEN_V1, type SigningKey } from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import type { Approval, Profile, TokenType } from '@bagcheck/policy'
import type { Attested } from './closures.ts'
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
  /** UUIDv7: the `jti` of the token, the serial number of the certificate. */
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
  /** What is minted, and what it is bound by. */
  readonly type: TokenType
  readonly binding: Profile['binding']
  /** What is to sign it, where authorities rotate. */
  readonly authority: string | null
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
  readonly jit: boolean
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

  /**
   * Its content, once, for whoever mints what it allows.
   * @throws {TypeError} it was used before, also in vain; it allows another type
   */
  use(type: TokenType): AllowedDecision {
    const content = this.#content
    if (content === null) throw new TypeError('a logged decision can be used once')
    this.#content = null
    if (content.type !== type)
      throw new TypeError(`a decision about ${content.type}, used for ${type}`)
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
 * Uses an approval up and logs what it allows; `attestationOf` names the logged envelope of the attestation
 * that was evaluated.
 * @param signer what is to sign, where authorities rotate; what it signs ends no later than it does
 * @throws {BrokerError} POLICY_CHANGED, AUTHORITY_CHANGED, NODE_BANNED, NONCE_REUSED, COUNTER_REUSED,
 * STORE_* – nothing was logged and nothing may be minted
 */
export async function logAllow(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: VerifiedEvidence,
  approved: Approval,
  attestationOf: (closureDigest: string, attested: Attested) => string,
  signer: { readonly id: string; readonly expiresAt: number } | null = null,
): Promise<LoggedDecision> {
  const approval = approved.use()
  const { name: profile, type, binding } = approval.profile
  const { workloadKey } = evidence.content
  if (binding !== 'none' && workloadKey === null)
    throw new BrokerError('DECISION_INCOMPLETE', 'expected a workload key for a bound token')
  const { role, sub, root, closureDigest, successorOf, tier, strength, ttlSeconds } = approval
  const { attested, systems, jit } = approval
  const authority = signer?.id ?? null
  const expiresAt = Math.min(frame.at + ttlSeconds, signer?.expiresAt ?? Infinity)
  const allowed = {
    ...contextOf(log, frame),
    ...requestOf(evidence),
    role,
    profile,
    sub,
    closureDigest,
    root,
    successorOf,
    tier,
    strength,
    ttlSeconds,
    expiresAt,
    hostObjects: approval.hostObjects.map((object) => ({ ...object })),
    systems: systems.map(({ closureDigest: digest }) => digest),
    jit,
    reasons: [],
  }
  const decision = contentOf(allowed, type, authority)
  const logIndex = await commit(log, frame, evidence, decision, {
    verdict: 'PASSED',
    resourceUri: root,
    // The closure's first, then those of systems.
    inputAttestations: [attested, ...systems].map((one) => attestationOf(one.closureDigest, one)),
    level: `BAGCHECK_TIER_${tier}`,
    authority,
  })
  return create({
    ...{ id: frame.id, logIndex, role, sub, audience: approval.audience, type, binding },
    ...{ authority, keyThumbprint: workloadKey, issuedAt: frame.at, expiresAt },
    ...{ root, closureDigest, successorOf, tier, strength },
    policyVersion: frame.policy.version,
    policySha256: frame.policy.sha256,
    evidenceSha256: evidence.sha256,
    jit,
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
  const decision: DecisionContent = {
    ...contextOf(log, frame),
    ...requestOf(evidence),
    ...NOTHING_ALLOWED,
    role: verdict.role,
    // Where several roots fit, the first is shown; all of them are in the evidence.
    closureDigest: roots[0]?.closureDigest ?? null,
    root: roots[0]?.root ?? null,
    reasons: [...verdict.reasons],
  }
  const about = `urn:bagcheck:unit:${encodeURIComponent(unit.name)}`
  const logIndex = await commit(log, frame, evidence, decision, denied(about))
  return { id: frame.id, logIndex, reasons: verdict.reasons }
}

/** Logs that evidence of a known node did not verify. @throws {BrokerError} as {@link logAllow} */
export async function logRefusal(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: IdentifiedEvidence,
  reason: Reason,
): Promise<LoggedDenial> {
  const decision: DecisionContent = {
    ...contextOf(log, frame),
    ...NOTHING_ALLOWED,
    purpose: evidence.purpose,
    node: evidence.node.id,
    unit: null,
    audience: null,
    role: null,
    closureDigest: null,
    root: null,
    keyThumbprint: null,
    nonce: evidence.nonce,
    counter: counterOf(evidence.payload),
    previous: null,
    evidenceSha256: evidence.sha256,
    reasons: [reason],
  }
  const about = `urn:bagcheck:node:${encodeURIComponent(evidence.node.id)}`
  const logIndex = await commit(log, frame, evidence, decision, denied(about))
  return { id: frame.id, logIndex, reasons: [reason] }
}

/** An allow in the version that can say it: what rotates and signs an SVID is in the decision. */
function contentOf(
  allowed: Omit<Extract<AllowedDecisionContent, { type: 'access_token' }>, 'type'>,
  type: TokenType,
  authority: string | null,
): AllowedDecisionContent {
  if (type === 'access_token' && authority === null) return { ...allowed, type }
  if (type !== 'access_token' && authority !== null)
    return { ...allowed, schema: SVID_DECISION_SCHEMA, type, authority }
  throw new BrokerError('DECISION_INCOMPLETE', `expected an SVID, and what signs it, saw ${type}`)
}

/** What an allow says and no denial does. */
const NOTHING_ALLOWED = {
  profile: null,
  type: null,
  sub: null,
  successorOf: null,
  tier: null,
  strength: null,
  ttlSeconds: null,
  expiresAt: null,
  hostObjects: [] as AllowedDecisionContent['hostObjects'],
  systems: [] as AllowedDecisionContent['systems'],
  jit: null,
}

function contextOf(
  { installation }: DecisionLog,
  frame: DecisionFrame,
): Pick<DecisionContent, 'installation' | 'id' | 'issuedAt' | 'policyVersion'> & {
  schema: typeof DECISION_SCHEMA
} {
  const { id, at: issuedAt, policy } = frame
  return { schema: DECISION_SCHEMA, installation, id, issuedAt, policyVersion: policy.version }
}

/** What verified evidence says of the request. */
function requestOf({ node, content, sha256 }: VerifiedEvidence): {
  purpose: 'issue' | 'renew'
  node: string
  unit: string
  audience: string
  keyThumbprint: string | null
  nonce: string
  counter: number
  previous: string | null
  evidenceSha256: string
} {
  const { facts, workloadKey, nonce, counter, previousDecision } = content
  return {
    purpose: facts.purpose,
    node: node.id,
    unit: facts.unit.name,
    audience: facts.audience,
    keyThumbprint: workloadKey,
    nonce,
    counter,
    previous: previousDecision,
    evidenceSha256: sha256,
  }
}

/** How a decision is summed up beside its content. */
interface SummedUp {
  readonly verdict: 'PASSED' | 'FAILED'
  readonly resourceUri: string
  /** sha256 of the envelopes that an allow rests on. */
  readonly inputAttestations: readonly string[]
  readonly level: string
  /** What is to sign. */
  readonly authority: string | null
}

function denied(resourceUri: string): SummedUp {
  return { verdict: 'FAILED', resourceUri, inputAttestations: [], level: 'FAILED', authority: null }
}

async function commit(
  log: DecisionLog,
  frame: DecisionFrame,
  evidence: { readonly text: string },
  decision: DecisionContent,
  { verdict, resourceUri, inputAttestations, level, authority }: SummedUp,
): Promise<number> {
  const statement = {
    subject: [{ name: 'evidence', digest: { sha256: decision.evidenceSha256 } }],
    predicateType: SLSA_VSA_V1,
    predicate: {
      verifier: { id: log.issuer },
      timeVerified: `${new Date(frame.at * 1000).toISOString().slice(0, 19)}Z`,
      resourceUri,
      policy: {
        uri: `urn:bagcheck:policy:${log.installation}:${frame.policy.version}`,
        digest: { sha256: frame.policy.sha256 },
      },
      inputAttestations: inputAttestations.map((sha256) => ({ digest: { sha256 } })),
      verificationResult: verdict,
      verifiedLevels: [level],
      [VSA_TOKEN_V1]: decision,
    },
  }
  const { index } = await log.store.commitDecision({
    id: decision.id,
    allow: verdict === 'PASSED',
    node: decision.node,
    nonce: decision.nonce,
    counter: decision.counter,
    role: decision.role,
    // These two columns are for looking up; what was not read is found under no name.
    audience: decision.audience ?? '',
    unit: decision.unit ?? '',
    issuedAt: decision.issuedAt,
    expiresAt: decision.expiresAt,
    code: decision.reasons[0]?.code ?? null,
    ...signEntry(statement, log.key),
    evidence: ownBytes(evidence.text),
    expect: { policyVersion: frame.policy.version, authority },
  })
  return index
}

// The payload failed its schema or a later check; the counter is kept where it can be one.
function counterOf(payload: unknown): number | null {
  const { counter } = (payload ?? {}) as { counter?: unknown }
  return Number.isSafeInteger(counter) && (counter as number) >= 1 ? (counter as number) : null
}
