// Bodies of the broker's HTTP routes. Requests are strict; responses may gain fields.
import { z } from 'zod'
import { TEXT_LIMITS } from './limits.ts'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const base64Text = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/)

/** An EC P-256 public key as a JWK, nothing else in it. */
export const publicJwkSchema = z.strictObject({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  y: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
})
export type PublicJwk = z.infer<typeof publicJwkSchema>

/** `POST /v1/nodes`: a join token and a proof that the caller holds the node key. */
export const enrolRequestSchema = z.strictObject({
  /** DSSE envelope (JSON text) of the join-token statement. */
  joinToken: z.string().max(TEXT_LIMITS.joinToken),
  /** Compact JWS, typ `bagcheck-enrol+jwt`, header `jwk` = the node key; payload {aud, iat, joinToken: sha256 of the envelope text}. */
  proof: z.string().max(8 * 1024),
})
export type EnrolRequest = z.infer<typeof enrolRequestSchema>

export const enrolResponseSchema = z.object({
  node: z.string(),
  nodeClass: z.string(),
  expiresAt: z.int(),
  logIndex: z.int(),
})
export type EnrolResponse = z.infer<typeof enrolResponseSchema>

/** `POST /v1/challenge`. */
export const challengeRequestSchema = z.strictObject({
  node: z.string().min(1).max(128),
  purpose: z.enum(['issue', 'renew', 'observe']),
})
export type ChallengeRequest = z.infer<typeof challengeRequestSchema>

export const challengeResponseSchema = z.object({
  nonce: z.string(),
  expiresInSeconds: z.int(),
  /** So that an agent knows when to fetch policy again. */
  policyVersion: z.int(),
})
export type ChallengeResponse = z.infer<typeof challengeResponseSchema>

/** `POST /token` success (RFC 6749 §5.1, RFC 8693 §2.2.1). */
export const tokenResponseSchema = z.object({
  access_token: z.string(),
  issued_token_type: z.string(),
  token_type: z.enum(['DPoP', 'Bearer']),
  expires_in: z.int(),
  /** `jti` of the token, which is also the decision's id. */
  decision: z.string(),
  log_index: z.int(),
})
export type TokenResponse = z.infer<typeof tokenResponseSchema>

/** One reason of a denial. */
export const reasonSchema = z.object({
  code: z.string(),
  message: z.string(),
  /** Where there is one: the nearest approved closure and where it differs first. */
  nearest: z
    .object({ root: z.string(), closureDigest: z.string(), firstDifference: z.string() })
    .optional(),
})
export type Reason = z.infer<typeof reasonSchema>

/** Every error of every route: OAuth's two fields, our code, and the reasons of a denial. */
export const problemSchema = z.object({
  error: z.string(),
  error_description: z.string(),
  code: z.string(),
  reasons: z.array(reasonSchema).optional(),
  decision: z.string().optional(),
  log_index: z.int().optional(),
})
export type Problem = z.infer<typeof problemSchema>

/** `POST /v1/attestations`. Texts are sent as they were hashed. */
export const attestationRequestSchema = z.strictObject({
  /** Sigstore bundle v0.3 or raw DSSE envelope, JSON text. */
  bundle: z.string().max(TEXT_LIMITS.envelope),
  manifest: z.string().max(TEXT_LIMITS.manifest),
  files: z.string().max(TEXT_LIMITS.files),
})
export type AttestationRequest = z.infer<typeof attestationRequestSchema>

export const attestationReceiptSchema = z.object({
  root: z.string(),
  closureDigest: hex64,
  logIndex: z.int(),
  /** True if the same attestation was kept before. */
  known: z.boolean(),
})
export type AttestationReceipt = z.infer<typeof attestationReceiptSchema>

/** `GET /v1/attestations/{digest}`. */
export const attestationResponseSchema = z.object({
  root: z.string(),
  closureDigest: hex64,
  bundle: z.string(),
  manifest: z.string(),
  files: z.string(),
  logIndex: z.int(),
})
export type AttestationResponse = z.infer<typeof attestationResponseSchema>

/** `GET /v1/policy`: the installed policy with all that is needed to verify it against a pinned trust root. */
export const policyResponseSchema = z.object({
  version: z.int(),
  sha256: hex64,
  /** Canonical JSON, as signed. */
  policy: z.string(),
  /** DSSE envelope of the policy statement, JSON text. */
  envelope: z.string(),
  /** DSSE envelopes of trust root versions 1, 2, …, JSON texts. */
  rootChain: z.array(z.string()),
  logIndex: z.int(),
})
export type PolicyResponse = z.infer<typeof policyResponseSchema>

/** `POST /v1/policy`. */
export const policyRequestSchema = z.strictObject({
  policy: z.string().max(TEXT_LIMITS.policy),
  envelope: z.string().max(TEXT_LIMITS.envelope),
})
export type PolicyRequest = z.infer<typeof policyRequestSchema>

export const policyReceiptSchema = z.object({
  version: z.int(),
  sha256: hex64,
  logIndex: z.int(),
  known: z.boolean(),
})
export type PolicyReceipt = z.infer<typeof policyReceiptSchema>

/** `GET /v1/decisions`, `GET /v1/decisions/{id}` (admin). Times are seconds since the epoch. */
export const decisionSchema = z.object({
  id: z.string(),
  logIndex: z.int(),
  allow: z.boolean(),
  at: z.int(),
  node: z.string(),
  /** Null, as is `audience`, where the evidence did not verify. */
  unit: z.string().nullable(),
  role: z.string().nullable(),
  audience: z.string().nullable(),
  purpose: z.string(),
  closureDigest: z.string().nullable(),
  root: z.string().nullable(),
  expiresAt: z.int().nullable(),
  /** Of an observation (`purpose` is `observe`, `allow` false): would it have been one; else null. */
  wouldAllow: z.boolean().nullable(),
  reasons: z.array(reasonSchema),
})
export type DecisionRecord = z.infer<typeof decisionSchema>
export const decisionListSchema = z.object({
  decisions: z.array(decisionSchema),
  /** Where the next page starts: `after` if the request had one, `before` if not; null at the end. */
  next: z.int().nullable(),
})
export type DecisionList = z.infer<typeof decisionListSchema>

/** `GET /v1/nodes` (admin). */
export const nodeSchema = z.object({
  node: z.string(),
  nodeClass: z.string(),
  keyThumbprint: z.string(),
  enrolledAt: z.int(),
  expiresAt: z.int(),
  banned: z.boolean(),
  banReason: z.string().nullable(),
  /** When it last got a token; null if never. */
  lastSuccessAt: z.int().nullable(),
})
export type NodeRecord = z.infer<typeof nodeSchema>
export const nodeListSchema = z.object({ nodes: z.array(nodeSchema) })
export type NodeList = z.infer<typeof nodeListSchema>

/** `POST /v1/nodes/{id}/ban` (admin). */
export const banRequestSchema = z.strictObject({ reason: z.string().min(1).max(512) })
export type BanRequest = z.infer<typeof banRequestSchema>

/** One log entry with its proof, `GET /v1/log/entries/{index}`. */
export const logEntryResponseSchema = z.object({
  index: z.int(),
  kind: z.string(),
  ref: z.string(),
  leaf: base64Text,
  body: z.string(),
  proof: z.array(base64Text),
  checkpoint: z.string(),
})
export type LogEntryResponse = z.infer<typeof logEntryResponseSchema>

/** `POST /v1/nodes/{id}/ban` (admin). */
export const banReceiptSchema = z.object({ node: z.string(), logIndex: z.int() })
export type BanReceipt = z.infer<typeof banReceiptSchema>

/** `GET /v1/policy/root`. */
export const rootChainSchema = z.object({
  /** sha256 of version 1: what is pinned. */
  pin: hex64,
  version: z.int(),
  /** DSSE envelopes of versions 1, 2, …, JSON texts. */
  rootChain: z.array(z.string()),
})
export type RootChain = z.infer<typeof rootChainSchema>

/** Discovery documents (OpenID Connect Discovery §3, RFC 8414 §2). */
export const discoverySchema = z.object({
  issuer: z.string(),
  jwks_uri: z.string(),
  token_endpoint: z.string(),
  challenge_endpoint: z.string(),
  response_types_supported: z.array(z.string()),
  subject_types_supported: z.array(z.string()),
  id_token_signing_alg_values_supported: z.array(z.string()),
  grant_types_supported: z.array(z.string()),
  token_endpoint_auth_methods_supported: z.array(z.string()),
  dpop_signing_alg_values_supported: z.array(z.string()),
})
export type Discovery = z.infer<typeof discoverySchema>

/** `GET /jwks` (RFC 7517). */
export const jwksSchema = z.object({
  keys: z.array(
    z.object({ ...publicJwkSchema.shape, kid: z.string(), alg: z.string(), use: z.string() }),
  ),
})
export type Jwks = z.infer<typeof jwksSchema>

/** `GET /readyz`: 200 if all checks hold, 503 otherwise, with the same body. */
export const readinessSchema = z.object({
  ready: z.boolean(),
  checks: z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string() })),
})
export type Readiness = z.infer<typeof readinessSchema>
