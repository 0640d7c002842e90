// What the broker writes into its log and an auditor reads out of it again, perhaps years later: the
// predicates of decisions and enrolments. Strict and versioned as evidence is; see evidence.ts for the rule.
import { z } from 'zod'
import { publicJwkSchema, reasonSchema } from './wire.ts'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const seconds = z.int().min(0)

/** `schema` of a decision. */
export const DECISION_SCHEMA = 'bagcheck.decision/v1'

/**
 * The extension member of a decision's statement. Null where a denial left it open, `unit` and `audience`
 * too where the evidence did not verify; times are seconds since the epoch.
 */
export const decisionContentSchema = z.strictObject({
  schema: z.literal(DECISION_SCHEMA),
  installation: z.string(),
  /** UUIDv7; the `jti` of the token if there is one. */
  id: z.string(),
  purpose: z.enum(['issue', 'renew']),
  node: z.string(),
  unit: z.string().nullable(),
  role: z.string().nullable(),
  audience: z.string().nullable(),
  profile: z.string().nullable(),
  /** Of the profile: what is minted. */
  type: z.literal('access_token').nullable(),
  sub: z.string().nullable(),
  closureDigest: hex64.nullable(),
  root: z.string().nullable(),
  successorOf: hex64.nullable(),
  tier: z.int().nullable(),
  strength: z.string().nullable(),
  ttlSeconds: z.int().nullable(),
  issuedAt: seconds,
  expiresAt: seconds.nullable(),
  keyThumbprint: z.string().nullable(),
  nonce: z.string(),
  counter: z.int().nullable(),
  previous: z.string().nullable(),
  /** Files of approved systems that were in use; none in a denial. */
  hostObjects: z.array(z.strictObject({ path: z.string(), sha256: hex64, system: hex64 })),
  /** Whether code was made at run time, by an allowance. */
  jit: z.boolean().nullable(),
  policyVersion: z.int(),
  evidenceSha256: hex64,
  reasons: z.array(reasonSchema),
})
export type DecisionContent = z.infer<typeof decisionContentSchema>

/** A decision that allowed a token: all that the token says is there, and no reason against it. */
export const allowedDecisionSchema = z.strictObject({
  ...decisionContentSchema.shape,
  unit: z.string(),
  role: z.string().min(1),
  audience: z.string().min(1),
  profile: z.string().min(1),
  type: z.literal('access_token'),
  sub: z.string().min(1),
  closureDigest: hex64,
  root: z.string().min(1),
  tier: z.int(),
  strength: z.string().min(1),
  ttlSeconds: z.int(),
  expiresAt: seconds,
  counter: z.int(),
  jit: z.boolean(),
  reasons: z.array(reasonSchema).max(0),
})
export type AllowedDecisionContent = z.infer<typeof allowedDecisionSchema>

/**
 * Predicate of a decision's statement, a SLSA verification summary, as far as it is read.
 * @see https://slsa.dev/spec/v1.2/verification_summary
 */
export const summarySchema = z.object({
  verifier: z.object({ id: z.string() }),
  policy: z.object({ digest: z.object({ sha256: hex64 }) }),
  inputAttestations: z.array(z.object({ digest: z.object({ sha256: hex64 }) })),
  verificationResult: z.enum(['PASSED', 'FAILED']),
})
export type Summary = z.infer<typeof summarySchema>

/** `schema` of an enrolment. */
export const ENROLMENT_SCHEMA = 'bagcheck.enrolment/v1'

/** Predicate of an enrolment. */
export const enrolmentSchema = z.strictObject({
  schema: z.literal(ENROLMENT_SCHEMA),
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
