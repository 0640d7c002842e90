// The broker's HTTP surface as data: what a route is called, how it authenticates, what it reads and
// what it answers. The broker registers from this table, docs/openapi.json is generated from it, and a
// test compares it with what is really registered. No route outside it exists.
//
//   auth public      reads what anybody may read
//        signature   changes trust: the body carries signatures that the trust root decides about
//        node        the body is signed by a node's key, or proves possession of one
//        admin       only on the admin socket, whose file mode is the authentication
import { z } from 'zod'
import { EVIDENCE_BUNDLE_TYPE } from './evidence-bundle.ts'
import { MAX_EVIDENCE_BYTES } from './evidence.ts'
import { BODY_LIMITS } from './limits.ts'
import {
  attestationReceiptSchema,
  attestationRequestSchema,
  attestationResponseSchema,
  banReceiptSchema,
  banRequestSchema,
  challengeRequestSchema,
  challengeResponseSchema,
  decisionListSchema,
  decisionSchema,
  discoverySchema,
  enrolRequestSchema,
  enrolResponseSchema,
  jwksSchema,
  logEntryResponseSchema,
  nodeListSchema,
  policyReceiptSchema,
  policyRequestSchema,
  policyResponseSchema,
  readinessSchema,
  rootChainSchema,
  tokenResponseSchema,
} from './wire.ts'
import {
  activateAuthorityRequestSchema,
  authorityListSchema,
  authorityReasonSchema,
  authorityReceiptSchema,
  authorityRecordSchema,
  bundleMapSchema,
  prepareAuthorityRequestSchema,
  svidRequestSchema,
  svidResponseSchema,
  trustBundleSchema,
} from './svid.ts'
import { observationRequestSchema, observationResponseSchema } from './observation.ts'
import { tokenRequestSchema } from './token-exchange.ts'

/** How a route knows that it may answer. */
export type RouteAuth = 'public' | 'signature' | 'node' | 'admin'

/** Names of all routes. */
export const ROUTE_IDS = [
  'openidConfiguration',
  'authorizationServer',
  'jwks',
  'enrolNode',
  'challenge',
  'token',
  'observe',
  'svids',
  'bundle',
  'bundles',
  'submitAttestation',
  'attestation',
  'policy',
  'publishPolicy',
  'rootChain',
  'checkpoint',
  'logEntry',
  'tile',
  'livez',
  'readyz',
  'metrics',
  'openapi',
  'decisions',
  'decision',
  'evidence',
  'nodes',
  'banNode',
  'authorities',
  'prepareAuthority',
  'activateAuthority',
  'taintAuthority',
  'revokeAuthority',
] as const
export type RouteId = (typeof ROUTE_IDS)[number]

const JSON_TYPE = 'application/json'
const TEXT_TYPE = 'text/plain; charset=utf-8'
const KIB = 1024

/** One route. Path parameters are written `{name}`; `{name*}` takes the rest of the path. */
export interface Route {
  readonly id: RouteId
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly auth: RouteAuth
  readonly summary: string
  /** Query parameters; an unknown one is refused. */
  readonly query?: z.ZodObject
  readonly request?: {
    readonly contentType: 'application/json' | 'application/x-www-form-urlencoded'
    readonly schema: z.ZodType
    /** Refused above this, before it is read. */
    readonly maxBytes: number
  }
  readonly response: {
    readonly status: 200 | 201
    readonly contentType: string
    /** Absent where the body is not JSON. */
    readonly schema?: z.ZodType
  }
}

/** Longest hold of a long poll, in seconds. */
export const MAX_WAIT_SECONDS = 60

/** `GET /v1/policy`, `/bundle`, `/bundles`. */
export const waitQuerySchema = z.strictObject({
  /** With `If-None-Match`: hold the answer so many seconds until there is another. */
  wait: z
    .string()
    .regex(/^[0-9]{1,2}$/)
    .optional(),
})

/** `GET /v1/decisions`. Newest first; oldest first if `after` is given. */
export const decisionsQuerySchema = z.strictObject({
  /** Only entries with a greater log index. */
  after: z
    .string()
    .regex(/^[0-9]{1,15}$/)
    .optional(),
  /** Only entries with a lesser log index. */
  before: z
    .string()
    .regex(/^[0-9]{1,15}$/)
    .optional(),
  limit: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/)
    .optional(),
  allow: z.enum(['true', 'false']).optional(),
  /** Only what was decided about requests, or only observations. */
  kind: z.enum(['decision', 'observation']).optional(),
  role: z.string().max(256).optional(),
  unit: z.string().max(256).optional(),
})

const json = (schema: z.ZodType, status: 200 | 201 = 200): Route['response'] => ({
  status,
  contentType: JSON_TYPE,
  schema,
})
const reads = (schema: z.ZodType, maxBytes: number): NonNullable<Route['request']> => ({
  contentType: JSON_TYPE,
  schema,
  maxBytes,
})

/** Every route of the broker. */
export const ROUTES: readonly Route[] = [
  {
    id: 'openidConfiguration',
    method: 'GET',
    path: '/.well-known/openid-configuration',
    auth: 'public',
    summary: 'Metadata for OpenID Connect relying parties',
    response: json(discoverySchema),
  },
  {
    id: 'authorizationServer',
    method: 'GET',
    path: '/.well-known/oauth-authorization-server',
    auth: 'public',
    summary: 'Metadata for OAuth clients and resource servers (RFC 8414)',
    response: json(discoverySchema),
  },
  {
    id: 'jwks',
    method: 'GET',
    path: '/jwks',
    auth: 'public',
    summary: 'Keys that verify tokens',
    response: { status: 200, contentType: 'application/jwk-set+json', schema: jwksSchema },
  },
  {
    id: 'enrolNode',
    method: 'POST',
    path: '/v1/nodes',
    auth: 'signature',
    summary: 'Enrol a node: a signed join token, used once, and a proof of the node key',
    request: reads(enrolRequestSchema, BODY_LIMITS.enrolment),
    response: json(enrolResponseSchema, 201),
  },
  {
    id: 'challenge',
    method: 'POST',
    path: '/v1/challenge',
    auth: 'public',
    summary: 'A nonce for one node and one purpose, good once and for 60 seconds',
    request: reads(challengeRequestSchema, 4 * KIB),
    response: json(challengeResponseSchema),
  },
  {
    id: 'token',
    method: 'POST',
    path: '/token',
    auth: 'node',
    summary: 'Exchange evidence for a token (RFC 8693)',
    request: {
      contentType: 'application/x-www-form-urlencoded',
      schema: tokenRequestSchema,
      maxBytes: MAX_EVIDENCE_BYTES + 16 * KIB,
    },
    response: json(tokenResponseSchema),
  },
  {
    id: 'svids',
    method: 'POST',
    path: '/v1/svids',
    auth: 'node',
    summary: 'Exchange evidence for an X.509-SVID or a JWT-SVID',
    request: reads(svidRequestSchema, MAX_EVIDENCE_BYTES + 16 * KIB),
    response: json(svidResponseSchema),
  },
  {
    id: 'bundle',
    method: 'GET',
    path: '/bundle',
    auth: 'public',
    summary: 'The SPIFFE trust bundle (federation profile https_web); ETag and long poll',
    query: waitQuerySchema,
    response: json(trustBundleSchema),
  },
  {
    id: 'bundles',
    method: 'GET',
    path: '/bundles',
    auth: 'public',
    summary: 'Trust bundles of other trust domains, as configured; ETag and long poll',
    query: waitQuerySchema,
    response: json(bundleMapSchema),
  },
  {
    id: 'observe',
    method: 'POST',
    path: '/v1/observations',
    auth: 'node',
    summary: 'Have an observed unit judged and logged; nothing is issued',
    request: reads(observationRequestSchema, MAX_EVIDENCE_BYTES + 16 * KIB),
    response: json(observationResponseSchema),
  },
  {
    id: 'submitAttestation',
    method: 'POST',
    path: '/v1/attestations',
    auth: 'signature',
    summary: 'Submit a signed closure attestation with its manifest and file list',
    request: reads(attestationRequestSchema, BODY_LIMITS.attestation),
    response: json(attestationReceiptSchema),
  },
  {
    id: 'attestation',
    method: 'GET',
    path: '/v1/attestations/{digest}',
    auth: 'public',
    summary: 'The attestation of a closure, by closure digest',
    response: json(attestationResponseSchema),
  },
  {
    id: 'policy',
    method: 'GET',
    path: '/v1/policy',
    auth: 'public',
    summary: 'The installed policy with its signatures; ETag and long poll',
    query: waitQuerySchema,
    response: json(policyResponseSchema),
  },
  {
    id: 'publishPolicy',
    method: 'POST',
    path: '/v1/policy',
    auth: 'signature',
    summary: 'Install the next policy version, signed by the threshold of policy keys',
    request: reads(policyRequestSchema, BODY_LIMITS.publishPolicy),
    response: json(policyReceiptSchema),
  },
  {
    id: 'rootChain',
    method: 'GET',
    path: '/v1/policy/root',
    auth: 'public',
    summary: 'The trust root, all versions',
    response: json(rootChainSchema),
  },
  {
    id: 'checkpoint',
    method: 'GET',
    path: '/checkpoint',
    auth: 'public',
    summary: 'The newest signed checkpoint of the log (C2SP tlog-checkpoint)',
    response: { status: 200, contentType: TEXT_TYPE },
  },
  {
    id: 'logEntry',
    method: 'GET',
    path: '/v1/log/entries/{index}',
    auth: 'public',
    summary: 'One log entry with its inclusion proof to the newest checkpoint',
    response: json(logEntryResponseSchema),
  },
  {
    id: 'tile',
    method: 'GET',
    path: '/tile/{path*}',
    auth: 'public',
    summary: 'Hash tiles and entry bundles (C2SP tlog-tiles)',
    response: { status: 200, contentType: 'application/octet-stream' },
  },
  {
    id: 'livez',
    method: 'GET',
    path: '/livez',
    auth: 'public',
    summary: 'The process answers',
    response: { status: 200, contentType: TEXT_TYPE },
  },
  {
    id: 'readyz',
    method: 'GET',
    path: '/readyz',
    auth: 'public',
    summary: 'Tokens can be issued: store, policy and clock are in order',
    response: json(readinessSchema),
  },
  {
    id: 'metrics',
    method: 'GET',
    path: '/metrics',
    auth: 'public',
    summary: 'Metrics in the Prometheus text format',
    response: { status: 200, contentType: 'text/plain; version=0.0.4; charset=utf-8' },
  },
  {
    id: 'openapi',
    method: 'GET',
    path: '/openapi.json',
    auth: 'public',
    summary: 'This description',
    response: json(z.looseObject({ openapi: z.string() })),
  },
  {
    id: 'decisions',
    method: 'GET',
    path: '/v1/decisions',
    auth: 'admin',
    summary: 'Decisions, newest first, or oldest first after an entry',
    query: decisionsQuerySchema,
    response: json(decisionListSchema),
  },
  {
    id: 'decision',
    method: 'GET',
    path: '/v1/decisions/{id}',
    auth: 'admin',
    summary: 'One decision with all its reasons',
    response: json(decisionSchema),
  },
  {
    id: 'evidence',
    method: 'GET',
    path: '/v1/evidence/{jti}',
    auth: 'admin',
    summary: 'The evidence bundle of one token, verifiable offline',
    response: { status: 200, contentType: EVIDENCE_BUNDLE_TYPE },
  },
  {
    id: 'nodes',
    method: 'GET',
    path: '/v1/nodes',
    auth: 'admin',
    summary: 'Enrolled nodes',
    response: json(nodeListSchema),
  },
  {
    id: 'banNode',
    method: 'POST',
    path: '/v1/nodes/{id}/ban',
    auth: 'admin',
    summary: 'Ban a node for good',
    request: reads(banRequestSchema, 4 * KIB),
    response: json(banReceiptSchema),
  },
  {
    id: 'authorities',
    method: 'GET',
    path: '/v1/authorities',
    auth: 'admin',
    summary: 'Authorities that sign SVIDs, of all brokers',
    response: json(authorityListSchema),
  },
  {
    id: 'prepareAuthority',
    method: 'POST',
    path: '/v1/authorities',
    auth: 'admin',
    summary: 'Make the next authority of this broker; it is in the bundle and signs nothing yet',
    request: reads(prepareAuthorityRequestSchema, 4 * KIB),
    response: json(authorityRecordSchema, 201),
  },
  {
    id: 'activateAuthority',
    method: 'POST',
    path: '/v1/authorities/{id}/activate',
    auth: 'admin',
    summary: 'Let a prepared authority of this broker sign instead of the active one',
    request: reads(activateAuthorityRequestSchema, 4 * KIB),
    response: json(authorityReceiptSchema),
  },
  {
    id: 'taintAuthority',
    method: 'POST',
    path: '/v1/authorities/{id}/taint',
    auth: 'admin',
    summary: 'Sign nothing more with an authority, and have what it signed renewed at once',
    request: reads(authorityReasonSchema, 4 * KIB),
    response: json(authorityReceiptSchema),
  },
  {
    id: 'revokeAuthority',
    method: 'POST',
    path: '/v1/authorities/{id}/revoke',
    auth: 'admin',
    summary: 'Take a tainted authority out of the bundle',
    request: reads(authorityReasonSchema, 4 * KIB),
    response: json(authorityReceiptSchema),
  },
]
