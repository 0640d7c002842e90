import {
  MAX_WAIT_SECONDS,
  type JwtSvidResponse,
  type SvidRequest,
  type X509SvidResponse,
} from '@bagcheck/api'
import type { Call, Handler } from '../app.ts'
import type { Broker } from '../broker.ts'
import { issueJwtSvid, issueX509Svid, type Issued } from '../issue.ts'
import { denialOf } from '../problems.ts'
import { wantedBy } from '../spiffe/authorities.ts'
import type { Tagged } from '../spiffe/bundle.ts'
import { json, jsonText } from './answer.ts'

export const svids: Handler = async ({ broker, body }) => {
  const start = performance.now()
  const request = body as SvidRequest
  const answer = request.type === 'x509' ? await x509(broker, request) : await jwt(broker, request)
  if (answer.status === 200) broker.metrics.issueSeconds.observe((performance.now() - start) / 1000)
  return answer
}

async function x509(
  broker: Broker,
  request: Extract<SvidRequest, { type: 'x509' }>,
): Promise<Response> {
  return answered(
    await issueX509Svid(broker, request),
    ({ spiffeId, certificates, expiresAt, id, logIndex }): X509SvidResponse => ({
      spiffe_id: spiffeId,
      certificates: certificates.map((one) => one.toString('base64')),
      expires_at: expiresAt,
      decision: id,
      log_index: logIndex,
    }),
  )
}

async function jwt(
  broker: Broker,
  request: Extract<SvidRequest, { type: 'jwt' }>,
): Promise<Response> {
  return answered(
    await issueJwtSvid(broker, request),
    ({ spiffeId, text, expiresAt, id, logIndex }): JwtSvidResponse => ({
      spiffe_id: spiffeId,
      svid: text,
      expires_at: expiresAt,
      decision: id,
      log_index: logIndex,
    }),
  )
}

function answered<T>(issued: Issued<T>, form: (minted: T) => object): Response {
  if (issued.kind === 'minted') return json(form(issued.minted))
  const { status, body } = denialOf(issued.denial)
  return json(body, { status })
}

export const bundle: Handler = async (call) => {
  const { authorities, policy, clock } = call.broker
  const wanted = wantedBy(policy.installed().verified.policy)
  await authorities.ready(wanted, Math.floor(clock.nowMs() / 1000))
  return watched(
    call,
    () => authorities.bundle(policy.installed().verified.policy.trustDomain),
    (ms, signal) => authorities.waitForChange(ms, signal),
  )
}

export const bundles: Handler = (call) => {
  const { federation, policy } = call.broker
  return watched(
    call,
    () => federation.bundles(policy.installed().verified.policy.trustDomain),
    (ms, signal) => federation.waitForChange(ms, signal),
  )
}

/** A document with an ETag; held back while the client has it already and is willing to wait. */
async function watched(
  { query, headers, signal }: Call,
  read: () => Tagged,
  wait: (ms: number, signal: AbortSignal) => Promise<void>,
): Promise<Response> {
  const waitMs = Math.min(Number(query['wait'] ?? 0), MAX_WAIT_SECONDS) * 1000
  const known = /^"([0-9a-f]{64})"$/.exec(headers.get('if-none-match') ?? '')?.[1]
  const until = performance.now() + waitMs
  let { text, tag } = read()
  for (let left = waitMs; tag === known && left > 0; left = until - performance.now()) {
    const held = signal()
    await wait(left, held)
    if (held.aborted) break
    ;({ text, tag } = read())
  }
  const etag = { etag: `"${tag}"`, 'cache-control': 'no-cache' }
  return tag === known
    ? new Response(null, { status: 304, headers: etag })
    : jsonText(text, { headers: etag })
}
