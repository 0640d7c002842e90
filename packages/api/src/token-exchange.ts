// Names of the RFC 8693 token exchange, in the one form that we speak. Each stands here and nowhere else;
// the agent, which takes types only from this package, is held to them by the type of `TokenRequest`.
import { z } from 'zod'

/** `grant_type` of an exchange. @see https://www.rfc-editor.org/rfc/rfc8693#section-2.1 */
export const TOKEN_EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'
/** `subject_token_type`: evidence is a JWT. @see https://www.rfc-editor.org/rfc/rfc8693#section-3 */
export const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt'
/** What is issued. */
export const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token'

/** Form of `POST /token` (RFC 8693 §2.1): each parameter exactly once, no others. */
export const tokenRequestSchema = z.strictObject({
  grant_type: z.literal(TOKEN_EXCHANGE_GRANT),
  /** Compact JWS, see `evidenceSchema`. */
  subject_token: z.string().min(1),
  subject_token_type: z.literal(JWT_TYPE),
  /** The audience that the evidence names. */
  audience: z.string().min(1).max(512),
  requested_token_type: z.literal(ACCESS_TOKEN_TYPE).optional(),
})
export type TokenRequest = z.infer<typeof tokenRequestSchema>
