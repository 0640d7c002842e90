import { openApiDocument } from '@bagcheck/api'
import type { Handler } from '../app.ts'
import { discoveryDocument, jwksDocument } from '../discovery.ts'
import { json } from './answer.ts'

// Verifiers read keys again at an unknown kid; five minutes keep them from asking at every token.
const CACHED = { headers: { 'cache-control': 'public, max-age=300' } }

export const openidConfiguration: Handler = ({ broker }) =>
  json(discoveryDocument(broker.config.issuer), CACHED)

// RFC 8414: the same document under its own name.
export const authorizationServer: Handler = (call) => openidConfiguration(call)

export const jwks: Handler = ({ broker }) => {
  const trustDomain = broker.policy.current()?.verified.policy.trustDomain
  const svidKeys = trustDomain === undefined ? [] : broker.authorities.jwtKeys(trustDomain)
  return json(jwksDocument(broker.keys.token, svidKeys), {
    headers: { ...CACHED.headers, 'content-type': 'application/jwk-set+json' },
  })
}

export const openapi: Handler = () => json(openApiDocument(VERSION))

/** The version of the broker; a test compares it with package.json. */
export const VERSION = '0.1.0'
