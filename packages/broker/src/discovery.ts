// What relying parties read once: metadata (OpenID Connect Discovery §3, RFC 8414 §2) and keys.
import { TOKEN_EXCHANGE_GRANT, type Discovery, type Jwks } from '@bagcheck/api'
import type { TokenKey } from './keys.ts'

/** The metadata document; the same at both well-known places. */
export function discoveryDocument(issuer: string): Discovery {
  return {
    issuer,
    jwks_uri: `${issuer}/jwks`,
    token_endpoint: `${issuer}/token`,
    challenge_endpoint: `${issuer}/v1/challenge`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
    grant_types_supported: [TOKEN_EXCHANGE_GRANT],
    // Evidence, signed by the node key, is subject token and client authentication in one.
    token_endpoint_auth_methods_supported: ['none'],
    dpop_signing_alg_values_supported: ['ES256'],
  }
}

/** The keys that verify tokens: access tokens by ours, JWT-SVIDs by those of all brokers. */
export function jwksDocument(key: TokenKey, svidKeys: Jwks['keys']): Jwks {
  return { keys: [{ ...key.jwk, kid: key.kid, alg: 'ES256', use: 'sig' }, ...svidKeys] }
}
