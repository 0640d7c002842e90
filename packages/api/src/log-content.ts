// What the broker writes into its log and an auditor reads out of it again, perhaps years later: the
// predicates of decisions, enrolments and authorities. Strict and versioned as evidence is; see evidence.ts for the rule.
import { z } from 'zod'
import { publicJwkSchema, reasonSchema } from './wire.ts'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const seconds = z.int().min(0)

/** `schema` of a decision about an access token, and of every denial. */
export const DECISION_SCHEMA = 'bagcheck.decision/v1'
/** `schema` of a decision that allowed an SVID: what v1 says, and what is to sign. */
export const SVID_DECISION_SCHEMA = 'bagcheck.decision/v2'

/**
 * The extension member of a decision's statement. Null where a denial left it open, `unit` and `audience`
 * too where the evidence did not verify; times are seconds since the epoch.
 */
const decisionV1 = z.strictObject({
  schema: z.literal(DECISION_SCHEMA),
  installation: z.string(),
  /** UUIDv7; the `jti` of the token if there is one, the serial number (its 128 bits) of a certificate. */
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
  /** Closure digests of the systems whose attestations it rests on; none in a denial. */
  systems: z.array(hex64),
  /** Whether code was made at run time, by an allowance. */
  jit: z.boolean().nullable(),
  policyVersion: z.int(),
  evidenceSha256: hex64,
  reasons: z.array(reasonSchema),
})

/** An allow; what v1 leaves open is there. */
const allowed = {
  unit: z.string(),
  role: z.string().min(1),
  audience: z.string().min(1),
  profile: z.string().min(1),
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
}

/** An allowed SVID. It may end before `ttlSeconds` are over, with what signs it. */
const decisionV2 = z.strictObject({
  ...decisionV1.shape,
  ...allowed,
  schema: z.literal(SVID_DECISION_SCHEMA),
  type: z.enum(['jwt_svid', 'x509_svid']),
  /** What signs it: the id of an X.509 authority, the `kid` of a JWT key. */
  authority: z.string().min(1),
})

/** A decision of either version. */
export const decisionContentSchema = z.discriminatedUnion('schema', [decisionV1, decisionV2])
export type DecisionContent = z.infer<typeof decisionContentSchema>

/** A decision that allowed a token: all that the token says is there, and no reason against it. */
export const allowedDecisionSchema = z.discriminatedUnion('schema', [
  z.strictObject({ ...decisionV1.shape, ...allowed, type: z.literal('access_token') }),
  decisionV2,
])
export type AllowedDecisionContent = z.infer<typeof allowedDecisionSchema>

/** What signs what a decision allows; null where that is not in the decision. */
export function authorityOf(decision: AllowedDecisionContent): string | null {
  return 'authority' in decision ? decision.authority : null
}

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

/** `schema` of a step in the life of an authority. */
export const AUTHORITY_SCHEMA = 'bagcheck.authority/v1'

/** What an authority signs: certificates, or JWT-SVIDs. */
export const AUTHORITY_KINDS = ['x509', 'jwt'] as const
export type AuthorityKind = (typeof AUTHORITY_KINDS)[number]

/** Predicate of a step in the life of an authority that signs SVIDs; see the broker's authorities.ts. */
export const authorityStepSchema = z.strictObject({
  schema: z.literal(AUTHORITY_SCHEMA),
  installation: z.string(),
  trustDomain: z.string(),
  kind: z.enum(AUTHORITY_KINDS),
  /** Subject key identifier of an X.509 authority, in hexadecimal; `kid` of a JWT key. */
  authority: z.string().min(1).max(64),
  action: z.enum(['prepare', 'activate', 'taint', 'revoke', 'retire']),
  at: seconds,
  /** Nothing that it signs outlives this. */
  expiresAt: seconds,
  /** Of `prepare`: its public half. */
  jwk: publicJwkSchema.nullable(),
  /** Of `prepare`, for X.509: DER in base64. */
  certificate: z
    .string()
    .regex(/^[A-Za-z0-9+/]+={0,2}$/)
    .nullable(),
  /** Of `activate`: authorities of the same broker that sign no longer. */
  supersedes: z.array(z.string()).max(16),
  /** Of `taint` and `revoke`: why. */
  reason: z.string().max(512).nullable(),
})
export type AuthorityStep = z.infer<typeof authorityStepSchema>
