// Verifies an evidence bundle offline: every signature, every digest, every inclusion in the log, and then
// the decision itself, made again from the same facts under the same policy. In the order in which one
// thing vouches for the next, so that a failure names the first link that does not hold:
//
//   trust root  ← pinned digest            policy      ← policy keys of the root
//   checkpoint  ← log keys of the root     log entries ← checkpoint
//   decision    ← broker key               enrolment   ← broker key, join token ← enrolment key
//   evidence    ← node key                 attestation ← a signer that policy names; manifest, files ← it
//   evaluation  of policy on the evidence at the time of issue → the same role, root and lifetime
//   token       ← decision
//
// Threat: whoever made the file. Nothing in it is believed before the check that vouches for it; without
// a pinned trust root the best that can be said is that the file agrees with itself.
import { createPublicKey } from 'node:crypto'
import {
  EVIDENCE_TYP,
  MAX_EVIDENCE_BUNDLE_BYTES,
  allowedDecisionSchema,
  authorityOf,
  enrolmentSchema,
  evidenceBundleSchema,
  evidenceSchema,
  summarySchema,
  type AllowedDecisionContent as AllowedDecision,
  type AttestedEntry,
  type Enrolment,
  type Evidence,
  type EvidenceBundle,
} from '@bagcheck/api'
import {
  ENROLMENT_V1,
  SLSA_VSA_V1,
  VSA_TOKEN_V1,
  bindContent,
  canonicalize,
  checkJwsHeader,
  firstSignatureLeaf,
  jwkThumbprint,
  jwsSignatureHolds,
  parseCanonical,
  parseEnvelope,
  parseJws,
  sha256Hex,
  verifyClosureAttestation,
  verifyStatement,
  verifyingKeyFromSpki,
  type Envelope,
  type VerifyingKey,
} from '@bagcheck/attest'
import { leafHash, openCheckpoint, verifyInclusion, type Checkpoint } from '@bagcheck/log'
import { parseFileList, parseManifest, type Sha256 } from '@bagcheck/nix'
import {
  decisionContext,
  evaluate,
  verifyJoinToken,
  verifyPolicyDocument,
  verifyTrustRootChain,
  trustRootDigest,
  type ApprovalContent,
  type AttestedClosure,
  type TrustRoot,
  type VerifiedPolicy,
} from '@bagcheck/policy'
import { CliError, EXIT } from '../error.ts'

/** What a verified bundle says. */
export interface VerifiedBundle {
  /** False where no trust root was pinned: the file agrees with itself, and that is all. */
  readonly authenticated: boolean
  readonly token: EvidenceBundle['token']
  readonly decision: AllowedDecision
  /** What the policy says when it is asked again. */
  readonly approval: ApprovalContent
  readonly enrolment: Enrolment
  readonly evidence: Evidence
  readonly installation: string
  readonly pin: Sha256
  readonly checkpoint: Checkpoint
  readonly leafIndex: number
  readonly policySigners: readonly string[]
  readonly attestationSigner: string
  readonly paths: number
  readonly files: number
}

/** The links, in the order of checking; `detail.check` of an error is one of them. */
export const EVIDENCE_CHECKS = [
  'format',
  'trust root',
  'policy',
  'checkpoint',
  'decision',
  'enrolment',
  'evidence',
  'attestation',
  'log',
  'evaluation',
  'token',
] as const
export type EvidenceCheck = (typeof EVIDENCE_CHECKS)[number]

/**
 * Verifies a bundle against the pinned digest of a trust root, or, with null, against itself.
 * @throws {CliError} EVIDENCE_BUNDLE – some link does not hold; `detail.check` names it
 */
export function verifyEvidenceBundle(
  bytes: Uint8Array,
  { trust }: { trust: Sha256 | null },
): VerifiedBundle {
  const bundle = link('format', () => readBundle(bytes))
  const issuedAt = new Date(bundle.token.iat * 1000)

  const pin = link('trust root', () => trust ?? trustRootDigest(bundle.rootChain[0] ?? ''))
  // Valid at the time of issue: a bundle outlives the documents in it.
  const root = link('trust root', () =>
    verifyTrustRootChain(bundle.rootChain, { pin, now: issuedAt }),
  )
  const policy = link('policy', () => verifyPolicyDocument(bundle.policy, root))
  const checkpoint = link('checkpoint', () => openCheckpoint(bundle.checkpoint, root.log.keys))
  const decision = link('decision', () => readDecision(bundle, root, policy))
  const enrolment = link('enrolment', () => readEnrolment(bundle, root, decision))
  const evidence = link('evidence', () => readEvidence(bundle, enrolment, decision, pin))
  const closure = link('attestation', () => readClosure(bundle.attestation, policy))
  link('attestation', () => {
    equal('the closure', closure.attestation.closureDigest, decision.closureDigest)
    equal('the root of the closure', closure.attestation.root, decision.root)
  })
  const systems = link('attestation', () =>
    bundle.systems.map((system) => readClosure(system, policy)),
  )
  link('log', () => checkLogged(bundle, checkpoint, root, [closure, ...systems]))
  const approval = link('evaluation', () =>
    evaluateAgain(policy, evidence, enrolment, [closure, ...systems], decision),
  )
  link('token', () => checkToken(bundle, decision, approval))

  return {
    authenticated: trust !== null,
    token: bundle.token,
    decision,
    approval,
    enrolment,
    evidence,
    installation: root.installation,
    pin,
    checkpoint,
    leafIndex: bundle.decision.leafIndex,
    policySigners: policy.signers.map((keyId) => root.names.get(keyId) ?? keyId).toSorted(),
    attestationSigner: closure.attestation.signer.keyId,
    paths: closure.manifest.entries.length,
    files: closure.files.files.length,
  }
}

function readBundle(bytes: Uint8Array): EvidenceBundle {
  const value = parseCanonical(bytes, { maxBytes: MAX_EVIDENCE_BUNDLE_BYTES, maxDepth: 8 })
  const parsed = evidenceBundleSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw mismatch(`${issue?.path.join('.')}: ${issue?.message}`)
}

function readDecision(
  bundle: EvidenceBundle,
  root: TrustRoot,
  policy: VerifiedPolicy,
): AllowedDecision {
  const envelope = envelopeOf(bundle.decision)
  const { keys, threshold } = root.roles.broker
  const { statement } = verifyStatement(envelope, keys, threshold, SLSA_VSA_V1)
  const summary = summarySchema.parse(statement.predicate)
  const decision = allowedDecisionSchema.parse(
    (statement.predicate as Record<string, unknown>)[VSA_TOKEN_V1],
  )
  equal('the verdict', summary.verificationResult, 'PASSED')
  equal('the policy of the decision', summary.policy.digest.sha256, policy.sha256)
  equal('the policy version of the decision', decision.policyVersion, policy.policy.version)
  equal('the installation of the decision', decision.installation, root.installation)
  equal('the issuer of the decision', summary.verifier.id, bundle.token.iss)
  equal(
    'the evidence of the decision',
    statement.subject[0]?.digest['sha256'],
    decision.evidenceSha256,
  )
  const attestations = [bundle.attestation, ...bundle.systems]
  equal('the number of attestations', summary.inputAttestations.length, attestations.length)
  const named = summary.inputAttestations.map(({ digest }) => digest.sha256).toSorted()
  const held = attestations.map(({ envelope }) => sha256Hex(envelope)).toSorted()
  equal('the attestations of the decision', held.join(), named.join())
  equal(
    'the attestation of the decision',
    summary.inputAttestations[0]?.digest.sha256,
    sha256Hex(bundle.attestation.envelope),
  )
  return decision
}

function readEnrolment(
  bundle: EvidenceBundle,
  root: TrustRoot,
  decision: AllowedDecision,
): Enrolment {
  const envelope = envelopeOf(bundle.enrolment)
  const { keys, threshold } = root.roles.broker
  const { statement } = verifyStatement(envelope, keys, threshold, ENROLMENT_V1)
  const enrolment = enrolmentSchema.parse(statement.predicate)
  equal('the node', enrolment.node, decision.node)
  equal('the installation of the enrolment', enrolment.installation, root.installation)
  equal('the thumbprint of the node key', jwkThumbprint(enrolment.nodeKey), enrolment.keyThumbprint)
  if (decision.issuedAt < enrolment.enrolledAt || decision.issuedAt >= enrolment.expiresAt)
    throw mismatch('the node was not enrolled when the token was issued')
  const join = bundle.joinToken.envelope
  equal('the join token', sha256Hex(join), enrolment.joinTokenSha256)
  const token = verifyJoinToken(join, root, new Date(enrolment.enrolledAt * 1000))
  equal('the id of the join token', token.tokenId, enrolment.tokenId)
  equal('the class of the node', token.nodeClass, enrolment.nodeClass)
  return enrolment
}

function readEvidence(
  bundle: EvidenceBundle,
  enrolment: Enrolment,
  decision: AllowedDecision,
  pin: Sha256,
): Evidence {
  const text = bundle.evidence
  equal('the digest of the evidence', sha256Hex(text), decision.evidenceSha256)
  const jws = parseJws(text)
  checkJwsHeader(jws, EVIDENCE_TYP, 'kid')
  const key = createPublicKey({ key: { ...enrolment.nodeKey }, format: 'jwk' })
  if (!jwsSignatureHolds(jws, key)) throw mismatch('its signature is not by the key of the node')
  equal('the key of the evidence', jws.header['kid'], enrolment.keyThumbprint)
  const evidence = evidenceSchema.parse(jws.payload)
  equal('the node of the evidence', evidence.iss, enrolment.node)
  equal('the broker of the evidence', evidence.aud, bundle.token.iss)
  equal('the installation of the evidence', evidence.installation, decision.installation)
  equal('the trust root of the evidence', evidence.trustRoot, pin)
  equal('the nonce', evidence.nonce, decision.nonce)
  equal('the counter', evidence.counter, decision.counter)
  equal('the workload key', evidence.workloadKey, decision.keyThumbprint)
  return evidence
}

function readClosure(entry: AttestedEntry, policy: VerifiedPolicy): AttestedClosure {
  const signers = [...policy.policy.signers.values()].map(({ spki }) => verifyingKeyFromSpki(spki))
  const attestation = verifyClosureAttestation(envelopeOf(entry), signers)
  const manifest = parseManifest(Buffer.from(entry.manifest))
  const files = parseFileList(Buffer.from(entry.files))
  bindContent(attestation, manifest, files)
  return { attestation, manifest, files }
}

/** Each entry is in the log that the checkpoint is of; `closures` are the attested ones in their order. */
function checkLogged(
  bundle: EvidenceBundle,
  checkpoint: Checkpoint,
  root: TrustRoot,
  closures: readonly AttestedClosure[],
): void {
  const brokerKeys = root.roles.broker.keys
  const entries = [
    ['decision', bundle.decision, brokerKeys],
    ['enrolment', bundle.enrolment, brokerKeys],
    ['policy', bundle.policy, root.roles.policy.keys],
    ...[bundle.attestation, ...bundle.systems].map(
      (entry, index) =>
        ['attestation', entry, closures.slice(index, index + 1).map(signerOf)] as const,
    ),
  ] as const
  for (const [what, entry, keys] of entries) {
    try {
      verifyInclusion({
        leafHash: leafHash(firstSignatureLeaf(envelopeOf(entry), keys)),
        index: entry.leafIndex,
        size: checkpoint.size,
        root: checkpoint.root,
        proof: entry.proof.map(decodeHash),
      })
    } catch (error) {
      throw mismatch(`the ${what} is not in the log: ${(error as Error).message}`)
    }
  }
}

const signerOf = ({ attestation }: AttestedClosure): VerifyingKey => attestation.signer

/** Policy is asked again, with the facts of then at the time of then. */
function evaluateAgain(
  policy: VerifiedPolicy,
  evidence: Evidence,
  enrolment: Enrolment,
  attested: readonly AttestedClosure[],
  decision: AllowedDecision,
): ApprovalContent {
  const context = decisionContext({
    evidence,
    nodeClass: enrolment.nodeClass,
    decidedAt: decision.issuedAt,
    type: decision.type,
    closures: {
      get: (digest) => attested.find(({ attestation }) => attestation.closureDigest === digest),
    },
  })
  const verdict = evaluate(policy, evidence.facts, context)
  if (!verdict.allow) {
    const said = verdict.reasons.map(({ code, message }) => `${code}: ${message}`)
    throw mismatch(`policy denies these facts: ${said.join('; ')}`)
  }
  const approval = verdict.approval.use()
  equal('the role', approval.role, decision.role)
  equal('the subject', approval.sub, decision.sub)
  equal('the audience', approval.audience, decision.audience)
  equal('the root', approval.root, decision.root)
  equal('the closure', approval.closureDigest, decision.closureDigest)
  equal('the successor', approval.successorOf, decision.successorOf)
  equal('the tier', approval.tier, decision.tier)
  equal('the strength', approval.strength, decision.strength)
  equal('the lifetime', approval.ttlSeconds, decision.ttlSeconds)
  equal('the profile', approval.profile.name, decision.profile)
  equal('the type of token', approval.profile.type, decision.type)
  const systems = approval.systems.map(({ closureDigest }) => closureDigest)
  equal('the systems', systems.join(), decision.systems.join())
  equal('the code made at run time', approval.jit, decision.jit)
  equal(
    'the host objects',
    canonicalize(approval.hostObjects.map((object) => ({ ...object }))),
    canonicalize(decision.hostObjects),
  )
  return approval
}

/** `kid` of an access token and `sha256` are hints to find it by; nothing here vouches for them. */
function checkToken(
  { token }: EvidenceBundle,
  decision: AllowedDecision,
  { profile }: ApprovalContent,
): void {
  equal('jti', token.jti, decision.id)
  equal('sub', token.sub, decision.sub)
  equal('aud', token.aud, decision.audience)
  equal('iat', token.iat, decision.issuedAt)
  equal('exp', token.exp, decision.expiresAt)
  // An SVID ends with the authority that signs it; nothing is issued for longer than was decided.
  const authority = authorityOf(decision)
  const { ttlSeconds } = decision
  const life = token.exp - token.iat
  if (authority === null || life <= 0 || life > ttlSeconds) equal('exp − iat', life, ttlSeconds)
  if (profile.type === 'access_token') equal('the authority', authority, null)
  else equal('kid', token.kid, authority)
  const bound = profile.binding !== 'none' ? decision.keyThumbprint : null
  equal('cnf.jkt', token.cnf?.jkt ?? null, bound)
}

/** The envelope of a log entry, which is kept as it was logged. */
function envelopeOf({ envelope }: { readonly envelope: string }): Envelope {
  return parseEnvelope(Buffer.from(envelope))
}

/** Base64 in its one canonical form, so that a bundle has one form too. */
function decodeHash(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) throw mismatch(`${JSON.stringify(text)} is not base64`)
  return bytes
}

function equal(what: string, seen: unknown, expected: unknown): void {
  if (seen !== expected)
    throw mismatch(`${what} is ${JSON.stringify(seen)}, expected ${JSON.stringify(expected)}`)
}

function mismatch(why: string): Error {
  return new Error(why)
}

/** Runs one check; whatever it throws says that this link does not hold. */
function link<T>(check: EvidenceCheck, run: () => T): T {
  try {
    return run()
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string }
    const why = typeof code === 'string' ? `${code}: ${message}` : message
    throw new CliError('EVIDENCE_BUNDLE', `${check}: ${why}`, {
      cause: error,
      exit: EXIT.refused,
      detail: { check, ...(typeof code === 'string' && { code }) },
    })
  }
}
