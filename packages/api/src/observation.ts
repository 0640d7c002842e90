// Observation: units that the policy names with `observe: true` are measured whether they ask or not, judged and
// logged. Nothing is issued: what an agent states for it is a document of its own, with a type, a schema and a
// purpose that no exchange takes, and what the broker logs is no verification summary. Versioned as evidence is.
import { z } from 'zod'
import { evidenceSchema } from './evidence.ts'
import { TEXT_LIMITS } from './limits.ts'
import { reasonSchema } from './wire.ts'

/** `typ` header of an observation's JWS. */
export const OBSERVATION_TYP = 'bagcheck-observation+jwt'
/** `schema` of what an agent states. */
export const OBSERVATION_SCHEMA = 'bagcheck.observation/v1'
/** `schema` of what the broker logs. */
export const OBSERVED_SCHEMA = 'bagcheck.observed/v1'

const seconds = z.int().min(0)
const {
  facts,
  profile: _profile,
  workloadKey: _key,
  previousDecision: _previous,
  ...stated
} = evidenceSchema.shape

/** Payload of an observation's JWS: the facts of evidence, and no wish. */
export const observationSchema = z.strictObject({
  ...stated,
  schema: z.literal(OBSERVATION_SCHEMA),
  facts: z.strictObject({
    ...facts.shape,
    purpose: z.literal('observe'),
    ttlSeconds: z.null(),
  }),
})
export type Observation = z.infer<typeof observationSchema>

/** `POST /v1/observations`. */
export const observationRequestSchema = z.strictObject({
  /** Compact JWS. */
  observation: z.string().max(TEXT_LIMITS.evidence),
})
export type ObservationRequest = z.infer<typeof observationRequestSchema>

/** What the broker thinks of it. */
export const observationResponseSchema = z.object({
  /** Of the entry in the log; no token has this `jti`. */
  id: z.string(),
  log_index: z.int(),
  /** True if the unit would have got a token for this audience. */
  would_allow: z.boolean(),
  role: z.string().nullable(),
  reasons: z.array(reasonSchema),
})
export type ObservationResponse = z.infer<typeof observationResponseSchema>

/** Predicate of an observation's statement. Times are seconds since the epoch. */
export const observedSchema = z.strictObject({
  schema: z.literal(OBSERVED_SCHEMA),
  installation: z.string(),
  id: z.string(),
  node: z.string(),
  unit: z.string(),
  role: z.string().nullable(),
  audience: z.string(),
  wouldAllow: z.boolean(),
  closureDigest: z.string().nullable(),
  root: z.string().nullable(),
  observedAt: seconds,
  nonce: z.string(),
  counter: z.int(),
  policyVersion: z.int(),
  evidenceSha256: z.string(),
  reasons: z.array(reasonSchema),
})
export type Observed = z.infer<typeof observedSchema>
