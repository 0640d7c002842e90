// The wire form of an evidence bundle: everything that one token rests on, in one canonical JSON file.
// Texts are kept as they were signed or hashed. All inclusion proofs lead to the one checkpoint.
import { publicJwkSchema, z } from '@bagcheck/api'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const base64 = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/)
const seconds = z.int().min(0)

/** Largest bundle that is read; file lists are most of it. */
export const MAX_EVIDENCE_BUNDLE_BYTES: number = 320 * 1024 * 1024

/** An envelope that the log holds. */
const loggedEnvelope = {
  envelope: z.string().max(4 * 1024 * 1024),
  leafIndex: z.int().min(0),
  proof: z.array(base64).max(64),
}

export const evidenceBundleSchema = z.strictObject({
  schema: z.literal('bagcheck.evidence-bundle/v1'),
  /** Facts of the token, never the token: its claims and the sha256 of its text. */
  token: z.strictObject({
    jti: z.string(),
    iss: z.string(),
    sub: z.string(),
    aud: z.string(),
    iat: seconds,
    exp: seconds,
    cnf: z.strictObject({ jkt: z.string() }).nullable(),
    kid: z.string().nullable(),
    sha256: hex64.nullable(),
  }),
  decision: z.strictObject(loggedEnvelope),
  /** Compact JWS. */
  evidence: z.string().max(2 * 1024 * 1024),
  enrolment: z.strictObject(loggedEnvelope),
  joinToken: z.strictObject({ envelope: z.string().max(256 * 1024) }),
  attestation: z.strictObject({ ...loggedEnvelope, manifest: z.string(), files: z.string() }),
  policy: z.strictObject({ ...loggedEnvelope, json: z.string() }),
  rootChain: z.array(z.string()).min(1).max(1024),
  checkpoint: z.string().max(1_000_000),
})

/** A bundle, of the right shape and nothing more. */
export type EvidenceBundle = z.infer<typeof evidenceBundleSchema>

/** The extension member of a decision that allowed a token. */
export const allowedDecisionSchema = z.strictObject({
  schema: z.literal('bagcheck.decision/v1'),
  installation: z.string(),
  id: z.string(),
  purpose: z.enum(['issue', 'renew']),
  node: z.string(),
  unit: z.string(),
  role: z.string(),
  audience: z.string(),
  profile: z.string(),
  sub: z.string(),
  closureDigest: hex64,
  root: z.string(),
  successorOf: hex64.nullable(),
  tier: z.int(),
  strength: z.string(),
  ttlSeconds: z.int(),
  issuedAt: seconds,
  expiresAt: seconds,
  keyThumbprint: z.string().nullable(),
  nonce: z.string(),
  counter: z.int(),
  previous: z.string().nullable(),
  policyVersion: z.int(),
  evidenceSha256: hex64,
  reasons: z.array(z.unknown()).max(0),
})

export type AllowedDecision = z.infer<typeof allowedDecisionSchema>

/** Predicate of a decision's statement, as far as it is read. */
export const summarySchema = z.object({
  verifier: z.object({ id: z.string() }),
  policy: z.object({ digest: z.object({ sha256: hex64 }) }),
  inputAttestations: z.array(z.object({ digest: z.object({ sha256: hex64 }) })),
  verificationResult: z.literal('PASSED'),
})

/** Predicate of an enrolment. */
export const enrolmentSchema = z.strictObject({
  schema: z.literal('bagcheck.enrolment/v1'),
  installation: z.string(),
  node: z.string(),
  nodeClass: z.string(),
  nodeKey: publicJwkSchema,
  keyThumbprint: z.string(),
  tokenId: z.string(),
  joinTokenSha256: hex64,
  enrolledAt: seconds,
  expiresAt: seconds,
})

export type Enrolment = z.infer<typeof enrolmentSchema>
