// An evidence bundle: everything that one token rests on, in one canonical JSON file. Texts are kept as
// they were signed or hashed. All inclusion proofs lead to the one checkpoint. Strict and versioned as
// evidence is; see evidence.ts for the rule.
import { z } from 'zod'
import { BODY_LIMITS, TEXT_LIMITS } from './limits.ts'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const base64 = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/)
const seconds = z.int().min(0)

/** Media type of an exported evidence bundle. */
export const EVIDENCE_BUNDLE_TYPE = 'application/vnd.bagcheck.evidence.v1+json'
/** `schema` of an evidence bundle. */
export const EVIDENCE_BUNDLE_SCHEMA = 'bagcheck.evidence-bundle/v1'

/** Largest bundle that is read; file lists are most of it. */
export const MAX_EVIDENCE_BUNDLE_BYTES: number = BODY_LIMITS.bundle

/** An envelope that the log holds, with its proof: base64 hashes, leaf to root. */
const loggedEnvelopeSchema = z.strictObject({
  envelope: z.string().max(TEXT_LIMITS.loggedEnvelope),
  leafIndex: z.int().min(0),
  proof: z.array(base64).max(64),
})
export type LoggedEnvelope = z.infer<typeof loggedEnvelopeSchema>

/** A logged attestation with what it commits to. */
const attestedEntrySchema = z.strictObject({
  ...loggedEnvelopeSchema.shape,
  manifest: z.string().max(TEXT_LIMITS.manifest),
  files: z.string().max(TEXT_LIMITS.files),
})
export type AttestedEntry = z.infer<typeof attestedEntrySchema>

export const evidenceBundleSchema = z.strictObject({
  schema: z.literal(EVIDENCE_BUNDLE_SCHEMA),
  /** Facts of the token, never the token: its claims. Times are seconds since the epoch. */
  token: z.strictObject({
    jti: z.string().min(1),
    iss: z.string().min(1),
    sub: z.string().min(1),
    aud: z.string().min(1),
    iat: seconds,
    exp: seconds,
    cnf: z.strictObject({ jkt: z.string().min(1) }).nullable(),
    /** What signed it; of an access token the key that signs tokens at the time of the export. */
    kid: z.string().nullable(),
    /** Null: tokens are not kept, nor is anything that would identify a stolen one. */
    sha256: hex64.nullable(),
  }),
  decision: loggedEnvelopeSchema,
  /** Compact JWS. */
  evidence: z.string().max(TEXT_LIMITS.evidence),
  enrolment: loggedEnvelopeSchema,
  joinToken: z.strictObject({ envelope: z.string().max(TEXT_LIMITS.joinToken) }),
  attestation: attestedEntrySchema,
  /** Of the systems that host objects in use belong to. */
  systems: z.array(attestedEntrySchema).max(64),
  policy: z.strictObject({
    ...loggedEnvelopeSchema.shape,
    json: z.string().max(TEXT_LIMITS.policy),
  }),
  rootChain: z.array(z.string()).min(1).max(1024),
  checkpoint: z.string().max(TEXT_LIMITS.checkpoint),
})

/** A bundle, of the right shape and nothing more. */
export type EvidenceBundle = z.infer<typeof evidenceBundleSchema>
