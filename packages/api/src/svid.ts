// SPIFFE on the wire: SVIDs, the trust bundle, and the authorities that sign. Requests are strict; responses
// may gain fields.
import { z } from 'zod'
import { TEXT_LIMITS } from './limits.ts'
import { AUTHORITY_KINDS } from './log-content.ts'
import { publicJwkSchema } from './wire.ts'

const base64 = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/)

/** `POST /v1/svids`: evidence, and for an X.509-SVID the key that it names. */
export const svidRequestSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('x509'),
    /** Compact JWS. */
    evidence: z.string().max(TEXT_LIMITS.evidence),
    /** SubjectPublicKeyInfo in DER, P-256; evidence names its RFC 7638 thumbprint as `workloadKey`. */
    publicKey: base64.max(512),
  }),
  z.strictObject({
    type: z.literal('jwt'),
    /** Compact JWS; the audience is the one that it names. */
    evidence: z.string().max(TEXT_LIMITS.evidence),
  }),
])
export type SvidRequest = z.infer<typeof svidRequestSchema>

const issued = {
  spiffe_id: z.string(),
  /** Seconds since the epoch. */
  expires_at: z.int(),
  /** The decision's id: `jti` of a JWT-SVID, serial number of an X.509-SVID. */
  decision: z.string(),
  log_index: z.int(),
  /** For a workload that gets several. */
  hint: z.string().optional(),
}

/** An X.509-SVID. */
export const x509SvidResponseSchema = z.object({
  ...issued,
  /** DER in base64: the leaf, then the intermediates if there are any; no root. */
  certificates: z.array(base64).min(1),
})
export type X509SvidResponse = z.infer<typeof x509SvidResponseSchema>

/** A JWT-SVID. */
export const jwtSvidResponseSchema = z.object({ ...issued, svid: z.string() })
export type JwtSvidResponse = z.infer<typeof jwtSvidResponseSchema>

/** The answer of `POST /v1/svids`, of the type that was asked for. */
export const svidResponseSchema = z.union([x509SvidResponseSchema, jwtSvidResponseSchema])

/** One key of a bundle: `x5c` and no `kid` for X.509, `kid` for JWT. */
const bundleKeySchema = z.discriminatedUnion('use', [
  z.object({
    use: z.literal('x509-svid'),
    ...publicJwkSchema.shape,
    /** One certificate authority, DER in base64. */
    x5c: z.array(base64).length(1),
  }),
  z.object({
    use: z.literal('jwt-svid'),
    ...publicJwkSchema.shape,
    kid: z.string(),
  }),
])

/**
 * `GET /bundle`: the SPIFFE trust bundle of our own trust domain.
 * @see https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md
 */
export const trustBundleSchema = z.object({
  keys: z.array(bundleKeySchema),
  /** Grows with every change, across restarts and replicas. */
  spiffe_sequence: z.int(),
  /** Seconds. */
  spiffe_refresh_hint: z.int(),
  /**
   * Authorities whose SVIDs are to be renewed at once: ids of X.509 authorities (the subject key identifier in
   * hexadecimal, which their SVIDs name as authority key identifier) and `kid`s. Absent if there are none.
   */
  bagcheck_tainted: z.array(z.string()).optional(),
})
export type TrustBundle = z.infer<typeof trustBundleSchema>

/** `GET /bundles`: bundles of other trust domains, as they were configured. */
export const bundleMapSchema = z.object({
  trust_domains: z.record(z.string(), z.looseObject({ keys: z.array(z.looseObject({})) })),
})
export type BundleMap = z.infer<typeof bundleMapSchema>

/** An authority that signs SVIDs, or did. Times are seconds since the epoch. */
export const authorityRecordSchema = z.object({
  /** Subject key identifier of an X.509 authority, in hexadecimal; `kid` of a JWT key. */
  id: z.string(),
  kind: z.enum(AUTHORITY_KINDS),
  trustDomain: z.string(),
  /** Prepared, active, old and tainted ones are in the bundle; the active one signs. */
  state: z.enum(['prepared', 'active', 'old', 'tainted']),
  /** True if the broker that answers has its key, and so can activate it. */
  local: z.boolean(),
  preparedAt: z.int(),
  expiresAt: z.int(),
})
export type AuthorityRecord = z.infer<typeof authorityRecordSchema>

/** `GET /v1/authorities` (admin): all that are in bundles, of all brokers. */
export const authorityListSchema = z.object({ authorities: z.array(authorityRecordSchema) })
export type AuthorityList = z.infer<typeof authorityListSchema>

/** `POST /v1/authorities` (admin). */
export const prepareAuthorityRequestSchema = z.strictObject({ kind: z.enum(AUTHORITY_KINDS) })
export type PrepareAuthorityRequest = z.infer<typeof prepareAuthorityRequestSchema>

/** `POST /v1/authorities/{id}/activate` (admin). */
export const activateAuthorityRequestSchema = z.strictObject({})

/** `POST /v1/authorities/{id}/taint`, `…/revoke` (admin). */
export const authorityReasonSchema = z.strictObject({ reason: z.string().min(1).max(512) })
export type AuthorityReason = z.infer<typeof authorityReasonSchema>

/** The step that was taken, now or before. */
export const authorityReceiptSchema = z.object({ id: z.string(), logIndex: z.int() })
export type AuthorityReceipt = z.infer<typeof authorityReceiptSchema>
