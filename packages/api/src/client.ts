// A typed client over node:http(s) or a unix socket. Answers are checked against the wire schemas and
// bounded in size and time: a broker is trusted by its signatures, not by its address.
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { z } from 'zod'
import { ApiError } from './error.ts'
import { BODY_LIMITS, TEXT_LIMITS } from './limits.ts'
import type { AuthorityKind } from './log-content.ts'
import {
  authorityListSchema,
  authorityReceiptSchema,
  authorityRecordSchema,
  type AuthorityList,
  type AuthorityReceipt,
  type AuthorityRecord,
} from './svid.ts'
import {
  ACCESS_TOKEN_TYPE,
  JWT_TYPE,
  TOKEN_EXCHANGE_GRANT,
  type TokenRequest,
} from './token-exchange.ts'
import {
  attestationReceiptSchema,
  attestationResponseSchema,
  banReceiptSchema,
  challengeResponseSchema,
  decisionListSchema,
  decisionSchema,
  enrolResponseSchema,
  logEntryResponseSchema,
  nodeListSchema,
  policyReceiptSchema,
  policyResponseSchema,
  problemSchema,
  readinessSchema,
  rootChainSchema,
  tokenResponseSchema,
  type AttestationReceipt,
  type AttestationRequest,
  type AttestationResponse,
  type BanReceipt,
  type ChallengeRequest,
  type ChallengeResponse,
  type DecisionList,
  type DecisionRecord,
  type EnrolRequest,
  type EnrolResponse,
  type LogEntryResponse,
  type NodeList,
  type PolicyReceipt,
  type PolicyRequest,
  type PolicyResponse,
  type Readiness,
  type RootChain,
  type TokenResponse,
} from './wire.ts'

/** Where a broker listens. `ca` is PEM text for a certificate that no public authority issued. */
export type BrokerAddress =
  | { readonly url: string; readonly ca?: string }
  | { readonly socket: string }

/** Filter of {@link Client.decisions}. */
export interface DecisionsQuery {
  /** Oldest first from here on; without it the newest come first. */
  readonly after?: number
  readonly before?: number
  readonly limit?: number
  readonly allow?: boolean
  readonly kind?: 'decision' | 'observation'
  readonly role?: string
  readonly unit?: string
}

/**
 * One method per route. Every method throws {@link ApiError}: BROKER_UNREACHABLE, BROKER_TIMEOUT,
 * BROKER_REFUSED (with the broker's problem), RESPONSE_LIMIT or RESPONSE_INVALID.
 */
export interface Client {
  enrolNode(request: EnrolRequest): Promise<EnrolResponse>
  challenge(request: ChallengeRequest): Promise<ChallengeResponse>
  token(request: { audience: string; evidence: string }): Promise<TokenResponse>
  submitAttestation(request: AttestationRequest): Promise<AttestationReceipt>
  attestation(closureDigest: string): Promise<AttestationResponse>
  policy(): Promise<PolicyResponse>
  publishPolicy(request: PolicyRequest): Promise<PolicyReceipt>
  rootChain(): Promise<RootChain>
  /** The signed note, as text. */
  checkpoint(): Promise<string>
  logEntry(index: number): Promise<LogEntryResponse>
  /** `path` as in C2SP tlog-tiles, with the leading `tile/`. */
  tile(path: string): Promise<Uint8Array>
  readiness(): Promise<Readiness>
  decisions(query?: DecisionsQuery): Promise<DecisionList>
  decision(id: string): Promise<DecisionRecord>
  /** The evidence bundle's bytes, as exported. */
  evidence(jti: string): Promise<Uint8Array>
  nodes(): Promise<NodeList>
  banNode(node: string, reason: string): Promise<BanReceipt>
  authorities(): Promise<AuthorityList>
  prepareAuthority(kind: AuthorityKind): Promise<AuthorityRecord>
  activateAuthority(id: string): Promise<AuthorityReceipt>
  taintAuthority(id: string, reason: string): Promise<AuthorityReceipt>
  revokeAuthority(id: string, reason: string): Promise<AuthorityReceipt>
}

const KIB = 1024
const MIB = 1024 * KIB
const SMALL = 256 * KIB

interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: { readonly type: string; readonly text: string }
  readonly maxBytes: number
}

/** A client for one broker. `timeoutMs` bounds each whole exchange, 30 s unless told. */
export function createClient(address: BrokerAddress, options?: { timeoutMs?: number }): Client {
  const timeoutMs = options?.timeoutMs ?? 30_000
  const send = async (call: Call): Promise<Buffer> => {
    const { status, body } = await exchange(address, call, timeoutMs)
    if (status >= 200 && status < 300) return body
    throw refusal(status, body)
  }
  const get = async <T>(path: string, schema: z.ZodType<T>, maxBytes = SMALL): Promise<T> =>
    parseAnswer(await send({ method: 'GET', path, maxBytes }), schema)
  const post = async <T>(path: string, value: unknown, schema: z.ZodType<T>): Promise<T> => {
    const body = { type: 'application/json', text: JSON.stringify(value) }
    return parseAnswer(await send({ method: 'POST', path, body, maxBytes: SMALL }), schema)
  }
  const bytes = (path: string, maxBytes: number): Promise<Buffer> =>
    send({ method: 'GET', path, maxBytes })
  const part = encodeURIComponent

  return {
    enrolNode: (request) => post('/v1/nodes', request, enrolResponseSchema),
    challenge: (request) => post('/v1/challenge', request, challengeResponseSchema),
    token: async ({ audience, evidence }) => {
      const request = {
        grant_type: TOKEN_EXCHANGE_GRANT,
        subject_token_type: JWT_TYPE,
        requested_token_type: ACCESS_TOKEN_TYPE,
        audience,
        subject_token: evidence,
      } satisfies TokenRequest
      const form = new URLSearchParams(request)
      const body = { type: 'application/x-www-form-urlencoded', text: form.toString() }
      const answer = await send({ method: 'POST', path: '/token', body, maxBytes: SMALL })
      return parseAnswer(answer, tokenResponseSchema)
    },
    submitAttestation: (request) => post('/v1/attestations', request, attestationReceiptSchema),
    attestation: (digest) =>
      get(`/v1/attestations/${part(digest)}`, attestationResponseSchema, BODY_LIMITS.attestation),
    policy: () => get('/v1/policy', policyResponseSchema, BODY_LIMITS.policy),
    publishPolicy: (request) => post('/v1/policy', request, policyReceiptSchema),
    rootChain: () => get('/v1/policy/root', rootChainSchema, BODY_LIMITS.rootChain),
    checkpoint: async () => (await bytes('/checkpoint', TEXT_LIMITS.checkpoint)).toString(),
    logEntry: (index) => get(`/v1/log/entries/${index}`, logEntryResponseSchema, 8 * MIB),
    tile: (path) => bytes(`/${path}`, 32 * MIB),
    readiness: async () => {
      const call: Call = { method: 'GET', path: '/readyz', maxBytes: SMALL }
      const { status, body } = await exchange(address, call, timeoutMs)
      if (status !== 200 && status !== 503) throw refusal(status, body)
      return parseAnswer(body, readinessSchema)
    },
    decisions: (query = {}) => {
      const pairs = Object.entries(query).map(([name, value]): [string, string] => [
        name,
        `${value}`,
      ])
      const search = new URLSearchParams(pairs).toString()
      return get(`/v1/decisions${search && `?${search}`}`, decisionListSchema, 16 * MIB)
    },
    decision: (id) => get(`/v1/decisions/${part(id)}`, decisionSchema),
    evidence: (jti) => bytes(`/v1/evidence/${part(jti)}`, BODY_LIMITS.bundle),
    nodes: () => get('/v1/nodes', nodeListSchema, 64 * MIB),
    authorities: () => get('/v1/authorities', authorityListSchema, 4 * MIB),
    prepareAuthority: (kind) => post('/v1/authorities', { kind }, authorityRecordSchema),
    activateAuthority: (id) =>
      post(`/v1/authorities/${part(id)}/activate`, {}, authorityReceiptSchema),
    taintAuthority: (id, reason) =>
      post(`/v1/authorities/${part(id)}/taint`, { reason }, authorityReceiptSchema),
    revokeAuthority: (id, reason) =>
      post(`/v1/authorities/${part(id)}/revoke`, { reason }, authorityReceiptSchema),
    banNode: (node, reason) => post(`/v1/nodes/${part(node)}/ban`, { reason }, banReceiptSchema),
  }
}

/** One request and its whole answer, within the limits. */
function exchange(
  address: BrokerAddress,
  call: Call,
  timeoutMs: number,
): Promise<{ status: number; body: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: Buffer }>()
  const signal = AbortSignal.timeout(timeoutMs)
  const headers: Record<string, string | number> = { accept: 'application/json, */*' }
  if (call.body) {
    headers['content-type'] = call.body.type
    headers['content-length'] = Buffer.byteLength(call.body.text)
  }
  const options: RequestOptions = { method: call.method, headers, signal, agent: false }
  const failed = (cause: unknown): void => {
    if (cause instanceof ApiError) return reject(cause)
    const timedOut = signal.aborted
    const code = timedOut ? 'BROKER_TIMEOUT' : 'BROKER_UNREACHABLE'
    const said = timedOut ? `no answer within ${timeoutMs} ms` : errorText(cause)
    reject(new ApiError(code, `broker at ${nameOf(address)}: ${said}`, { cause }))
  }
  const answered = (message: IncomingMessage): void => {
    readBody(message, call.maxBytes).then(
      (body) => resolve({ status: message.statusCode ?? 0, body }),
      failed,
    )
  }
  try {
    const outgoing = open(address, call.path, options, answered)
    outgoing.once('error', failed)
    outgoing.end(call.body?.text)
  } catch (error) {
    failed(error)
  }
  return promise
}

function open(
  address: BrokerAddress,
  path: string,
  options: RequestOptions,
  answered: (message: IncomingMessage) => void,
): ReturnType<typeof httpRequest> {
  if ('socket' in address)
    return httpRequest(
      { ...options, socketPath: address.socket, path, host: 'localhost' },
      answered,
    )
  const url = new URL(path, address.url)
  if (url.protocol === 'https:')
    return httpsRequest(url, { ...options, ...(address.ca && { ca: address.ca }) }, answered)
  if (url.protocol === 'http:') return httpRequest(url, options, answered)
  throw new TypeError(`expected an http or https URL, saw ${JSON.stringify(address.url)}`)
}

async function readBody(message: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBytes)
      throw new ApiError('RESPONSE_LIMIT', `expected an answer of at most ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, size)
}

function parseAnswer<T>(body: Buffer, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(parseJson(body))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const where = issue?.path.join('.') ?? ''
  throw new ApiError(
    'RESPONSE_INVALID',
    `expected an answer of this API, saw something else at ${JSON.stringify(where)}: ${issue?.message}`,
  )
}

function refusal(status: number, body: Buffer): ApiError {
  const parsed = problemSchema.safeParse(parseJson(body))
  if (!parsed.success)
    return new ApiError('RESPONSE_INVALID', `HTTP status ${status} without a problem document`, {
      status,
    })
  const problem = parsed.data
  const message = `${problem.code}: ${problem.error_description}`
  return new ApiError('BROKER_REFUSED', message, { status, problem })
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch (cause) {
    const seen = JSON.stringify(body.toString('utf8', 0, 80))
    throw new ApiError('RESPONSE_INVALID', `expected JSON, saw ${seen}`, { cause })
  }
}

function nameOf(address: BrokerAddress): string {
  return 'socket' in address ? address.socket : address.url
}

function errorText(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(errorText).join('; ')
  if (!(error instanceof Error)) return String(error)
  const { code = '', message }: NodeJS.ErrnoException = error
  return /SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)/.test(code)
    ? `its certificate is of an authority that is not known here (${code}); name it with --broker-ca`
    : message
}
