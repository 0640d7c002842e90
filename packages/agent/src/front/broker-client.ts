// The broker's routes that an agent needs, over node:http(s) or a unix socket. Every call has one deadline
// for all of it and a bound on the answer; what the answer says is checked where it is used. Redirects
// are not followed.
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type {
  ChallengeResponse,
  EnrolRequest,
  EnrolResponse,
  ObservationResponse,
  PolicyResponse,
  Problem,
  SvidRequest,
  TokenRequest,
  TokenResponse,
} from '@bagcheck/api'
import { AgentError, quote } from '../error.ts'

const TIMEOUT_MS = 10_000
const SMALL_BYTES = 256 * 1024
const BUNDLE_BYTES = 4 * 1024 * 1024
/** Largest bodies, as `BODY_LIMITS` of @bagcheck/api has them. */
export const POLICY_BYTES: number = 105_250_816
export const ROOT_CHAIN_BYTES: number = 21_037_056
export const ATTESTATION_BYTES: number = 147_193_856

/** The broker said no, in its own words. */
export class BrokerProblem extends AgentError {
  readonly status: number
  readonly problem: Problem

  constructor(status: number, problem: Problem) {
    super('BROKER_REFUSED', `${problem.code}: ${problem.error_description}`)
    this.status = status
    this.problem = problem
  }
}

/** Where the broker is. `ca` is PEM text. */
export interface BrokerAddress {
  readonly url: string
  readonly ca: string | null
}

/** What SVIDs of both types come with. Times are seconds since the epoch. */
export interface SvidAnswer {
  readonly spiffeId: string
  readonly expiresAt: number
  readonly decision: string
  readonly logIndex: number
}

/** An X.509-SVID. */
export interface X509SvidAnswer extends SvidAnswer {
  /** DER, leaf first. */
  readonly certificates: readonly Buffer[]
  readonly hint: string | undefined
}

/** A JWT-SVID. */
export interface JwtSvidAnswer extends SvidAnswer {
  readonly svid: string
}

/** A document that is followed. */
export interface Followed {
  readonly etag: string
  readonly body: Readonly<Record<string, unknown>>
}

/** An attestation's texts, as sent. */
export interface AttestationTexts {
  readonly manifest: string
  readonly files: string
}

/**
 * Calls of one agent. Every call throws {AgentError} BROKER_UNREACHABLE, BROKER_TIMEOUT,
 * BROKER_RESPONSE, or {@link BrokerProblem}.
 */
export interface BrokerClient {
  enrol(request: EnrolRequest): Promise<EnrolResponse>
  challenge(node: string, purpose: 'issue' | 'renew' | 'observe'): Promise<ChallengeResponse>
  token(audience: string, evidence: string): Promise<TokenResponse>
  /** Has an observation judged and logged. */
  observe(observation: string): Promise<ObservationResponse>
  /** `publicKey` is SPKI in DER; evidence names its thumbprint. */
  x509Svid(evidence: string, publicKey: Uint8Array): Promise<X509SvidAnswer>
  jwtSvid(evidence: string): Promise<JwtSvidAnswer>
  /**
   * The trust bundle, or those of other trust domains: once it differs from `after`, undefined if it did not
   * within `waitSeconds`.
   */
  follow(
    path: '/bundle' | '/bundles',
    after: string | undefined,
    waitSeconds: number,
  ): Promise<Followed | undefined>
  policy(): Promise<PolicyResponse>
  /** DSSE envelopes of the trust root's versions. */
  rootChain(): Promise<readonly string[]>
  attestation(closureDigest: string): Promise<AttestationTexts>
  close(): void
}

interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly contentType?: string
  readonly body?: string
  /** `If-None-Match`; with it, 304 is an answer. */
  readonly after?: string
  readonly maxBytes: number
  readonly timeoutMs?: number
}

export function createBrokerClient(address: BrokerAddress): BrokerClient {
  const unix = address.url.startsWith('unix:') ? address.url.slice('unix:'.length) : undefined
  const base = unix === undefined ? new URL(address.url) : new URL('http://broker')
  const secure = base.protocol === 'https:'
  const options = { keepAlive: true, maxSockets: 16, timeout: 30_000 }
  const agent = secure
    ? new HttpsAgent({ ...options, ...(address.ca === null ? {} : { ca: address.ca }) })
    : new HttpAgent(options)

  const call = async (request: Call): Promise<Record<string, unknown>> => {
    const { status, body } = await exchange(request)
    return parseAnswer(status, body)
  }

  async function exchange(
    request: Call,
  ): Promise<{ status: number; body: string; etag: string | undefined }> {
    const signal = AbortSignal.timeout(request.timeoutMs ?? TIMEOUT_MS)
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = (secure ? httpsRequest : httpRequest)({
        agent,
        method: request.method,
        ...(unix === undefined
          ? { host: base.hostname.replaceAll(/[[\]]/g, ''), port: base.port || undefined }
          : { socketPath: unix }),
        path: request.path,
        headers: {
          accept: 'application/json',
          ...(request.after === undefined ? {} : { 'if-none-match': request.after }),
          ...(request.body === undefined
            ? {}
            : {
                'content-type': request.contentType,
                'content-length': Buffer.byteLength(request.body),
              }),
        },
        signal,
      })
      outgoing.on('response', resolve)
      outgoing.on('error', reject)
      outgoing.end(request.body)
    }).catch((error: unknown) => {
      throw unreachable(error, signal)
    })
    const body = await readBody(response, request.maxBytes).catch((error: unknown) => {
      throw error instanceof AgentError ? error : unreachable(error, signal)
    })
    return { status: response.statusCode ?? 0, body, etag: response.headers.etag }
  }
  const json = { method: 'POST', contentType: 'application/json', maxBytes: SMALL_BYTES } as const

  return {
    async enrol(request) {
      const answer = await call({ ...json, path: '/v1/nodes', body: JSON.stringify(request) })
      const { node, nodeClass, expiresAt, logIndex } = answer
      if (typeof node !== 'string' || typeof nodeClass !== 'string') throw unexpected(answer)
      return { node, nodeClass, expiresAt: integer(expiresAt), logIndex: integer(logIndex) }
    },
    async challenge(node, purpose) {
      const body = JSON.stringify({ node, purpose })
      const answer = await call({ ...json, path: '/v1/challenge', body })
      const { nonce, expiresInSeconds, policyVersion } = answer
      if (typeof nonce !== 'string' || !/^[A-Za-z0-9_-]{43}$/.test(nonce)) throw unexpected('nonce')
      return {
        nonce,
        expiresInSeconds: integer(expiresInSeconds),
        policyVersion: integer(policyVersion),
      }
    },
    async token(audience, evidence) {
      const request = {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: evidence,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        audience,
      } satisfies TokenRequest
      const form = new URLSearchParams(request)
      const answer = await call({
        method: 'POST',
        path: '/token',
        contentType: 'application/x-www-form-urlencoded',
        body: form.toString(),
        maxBytes: SMALL_BYTES,
      })
      const { access_token, issued_token_type, token_type, decision } = answer
      if (
        typeof access_token !== 'string' ||
        typeof issued_token_type !== 'string' ||
        (token_type !== 'DPoP' && token_type !== 'Bearer') ||
        typeof decision !== 'string' ||
        decision.length > 64
      )
        throw new AgentError('BROKER_RESPONSE', 'expected a token response of RFC 8693 §2.2.1')
      return {
        access_token,
        issued_token_type,
        token_type,
        expires_in: integer(answer['expires_in']),
        decision,
        log_index: integer(answer['log_index']),
      }
    },
    async observe(observation) {
      const body = JSON.stringify({ observation })
      const answer = await call({ ...json, path: '/v1/observations', body })
      const { id, would_allow, role, reasons } = answer
      if (typeof id !== 'string' || typeof would_allow !== 'boolean' || !Array.isArray(reasons))
        throw unexpected(answer)
      return {
        ...{ id, log_index: integer(answer['log_index']), would_allow },
        role: typeof role === 'string' ? role : null,
        reasons: (reasons as unknown[]).map((reason) => {
          const { code, message } = (reason ?? {}) as Record<string, unknown>
          if (typeof code !== 'string' || typeof message !== 'string') throw unexpected(reason)
          return { code, message }
        }),
      }
    },
    async x509Svid(evidence, publicKey) {
      const request = {
        type: 'x509',
        evidence,
        publicKey: Buffer.from(publicKey).toString('base64'),
      } satisfies SvidRequest
      const answer = await call({ ...json, path: '/v1/svids', body: JSON.stringify(request) })
      const { hint } = answer
      if (hint !== undefined && (typeof hint !== 'string' || hint.length > 1024))
        throw unexpected('hint')
      const certificates = textsOf(answer['certificates']).map((text) =>
        Buffer.from(text, 'base64'),
      )
      return { ...svidAnswer(answer), certificates, hint }
    },
    async jwtSvid(evidence) {
      const body = JSON.stringify({ type: 'jwt', evidence } satisfies SvidRequest)
      const answer = await call({ ...json, path: '/v1/svids', body })
      const { svid } = answer
      if (typeof svid !== 'string' || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(svid))
        throw new AgentError('BROKER_RESPONSE', 'expected a JWT-SVID')
      return { ...svidAnswer(answer), svid }
    },
    async follow(path, after, waitSeconds) {
      const { status, body, etag } = await exchange({
        method: 'GET',
        path: after === undefined ? path : `${path}?wait=${waitSeconds}`,
        ...(after === undefined ? {} : { after }),
        maxBytes: BUNDLE_BYTES,
        timeoutMs: waitSeconds * 1000 + TIMEOUT_MS,
      })
      if (status === 304 && after !== undefined) return undefined
      const answer = parseAnswer(status, body)
      if (etag === undefined || etag.length > 128) throw unexpected('etag')
      return { etag, body: answer }
    },
    async rootChain() {
      const path = '/v1/policy/root'
      const { rootChain } = await call({ method: 'GET', path, maxBytes: ROOT_CHAIN_BYTES })
      return textsOf(rootChain)
    },
    async policy() {
      const answer = await call({
        method: 'GET',
        path: '/v1/policy',
        maxBytes: POLICY_BYTES,
        timeoutMs: 6 * TIMEOUT_MS,
      })
      const { version, sha256, policy, envelope, rootChain, logIndex } = answer
      if (typeof sha256 !== 'string' || typeof policy !== 'string' || typeof envelope !== 'string')
        throw new AgentError(
          'BROKER_RESPONSE',
          'expected a policy with its envelope and root chain',
        )
      return {
        version: integer(version),
        sha256,
        policy,
        envelope,
        rootChain: [...textsOf(rootChain)],
        logIndex: integer(logIndex),
      }
    },
    async attestation(closureDigest) {
      const answer = await call({
        method: 'GET',
        path: `/v1/attestations/${closureDigest}`,
        maxBytes: ATTESTATION_BYTES,
        timeoutMs: 6 * TIMEOUT_MS,
      })
      const { manifest, files } = answer
      if (typeof manifest !== 'string' || typeof files !== 'string')
        throw new AgentError('BROKER_RESPONSE', 'expected a manifest and a file list')
      return { manifest, files }
    },
    close: () => agent.destroy(),
  }
}

async function readBody(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let total = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    total += chunk.length
    if (total > maxBytes) {
      response.destroy()
      throw new AgentError('BROKER_RESPONSE', `expected at most ${maxBytes} bytes`)
    }
    chunks.push(chunk)
  }
  if (!response.complete) throw new AgentError('BROKER_UNREACHABLE', 'the answer was cut off')
  return Buffer.concat(chunks).toString('utf8')
}

function parseAnswer(status: number, body: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch (cause) {
    throw new AgentError('BROKER_RESPONSE', `expected JSON with status ${status}`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw unexpected(value)
  const answer = value as Record<string, unknown>
  if (status === 200 || status === 201) return answer
  const { error, error_description, code } = answer
  if (
    typeof error !== 'string' ||
    typeof error_description !== 'string' ||
    typeof code !== 'string'
  )
    throw new AgentError('BROKER_RESPONSE', `expected a problem with status ${status}`)
  throw new BrokerProblem(status, answer as Problem)
}

function svidAnswer({
  spiffe_id,
  expires_at,
  decision,
  log_index,
}: Record<string, unknown>): SvidAnswer {
  if (typeof spiffe_id !== 'string' || typeof decision !== 'string' || decision.length > 64)
    throw new AgentError('BROKER_RESPONSE', 'expected an SVID with its SPIFFE ID and decision')
  return {
    ...{ spiffeId: spiffe_id, expiresAt: integer(expires_at) },
    ...{ decision, logIndex: integer(log_index) },
  }
}

function textsOf(value: unknown): readonly string[] {
  if (Array.isArray(value) && value.every((text) => typeof text === 'string')) return value
  throw unexpected(value)
}

function integer(value: unknown): number {
  if (Number.isSafeInteger(value)) return value as number
  throw unexpected(value)
}

function unexpected(value: unknown): AgentError {
  return new AgentError('BROKER_RESPONSE', `unexpected answer of the broker: ${quote(value)}`)
}

/** What Node calls a certificate of an authority that it does not know. */
const UNTRUSTED = /SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)/

function unreachable(cause: unknown, signal: AbortSignal): AgentError {
  if (signal.aborted)
    return new AgentError('BROKER_TIMEOUT', 'the broker did not answer in time', { cause })
  const reason = (cause as NodeJS.ErrnoException | null)?.code ?? String(cause)
  const hint = UNTRUSTED.test(reason) ? "; is brokerCa its certificate's authority?" : ''
  return new AgentError('BROKER_UNREACHABLE', `cannot reach the broker: ${reason}${hint}`, {
    cause,
  })
}
