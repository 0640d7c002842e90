// What the methods of the Workload API do. Each SVID is the end of a story of its own (issue.ts): a fresh
// measurement, a new decision of the broker, a new key. Bundles are public and need no measurement.
//
// Before anything is written the caller is looked at again: who runs another program than the one that
// connected gets no message and no status, its connection is destroyed.
import { AgentError, quote } from '../../error.ts'
import { instanceKey } from '../../measure/instance.ts'
import type { ProcessInstance } from '../../measure/messages.ts'
import type { JwtSvidAnswer } from '../broker-client.ts'
import type { Caller } from '../callers.ts'
import type { RateLimit } from '../rate-limit.ts'
import { parseAudience } from '../requests.ts'
import type { Ask, SessionEvent } from '../session.ts'
import type { Sessions } from '../sessions.ts'
import { authoritiesOf, jwksOf, type Bundles, type BundleSet, type TrustBundle } from './bundles.ts'
import { Call } from './grpc.ts'
import { validateJwtSvid } from './jwt-svid.ts'
import * as messages from './messages.ts'
import { decode, encode } from './protobuf.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import { OK, STATUS, StatusError, statusOfRefusal } from './status.ts'
import type { X509Svid } from './x509-svid.ts'

/** What the methods work with. */
export interface MethodContext {
  readonly sessions: Sessions<X509Svid>
  readonly issueJwt: (asked: {
    instance: ProcessInstance
    audience: string
  }) => Promise<JwtSvidAnswer>
  readonly bundles: Bundles
  /** SVIDs asked for, by process instance. */
  readonly svidLimit: RateLimit
  /** JWT-SVIDs verified, by user. */
  readonly validateLimit: RateLimit
  readonly now: () => number
}

/** One call and who makes it. */
export interface Exchange {
  readonly call: Call
  /** The caller, still what it was. @throws {AgentError} PROCESS_GONE, PROCESS_MOVED, PEER_UNKNOWN, MEASURER_* */
  readonly caller: () => Promise<Caller>
  /** Destroys the connection: whoever is there now hears nothing. */
  readonly hangUp: (reason: unknown) => void
}

type Handler = (request: Buffer, exchange: Exchange, context: MethodContext) => Promise<void>

const notOffered: Handler = () =>
  Promise.reject(new StatusError(STATUS.unimplemented, 'WIT-SVIDs are not offered'))

/** By method of the service. */
export const HANDLERS: Readonly<Record<keyof typeof messages.METHODS, Handler>> = {
  FetchX509SVID: fetchX509Svid,
  FetchX509Bundles: (request, exchange, context) => {
    decode(messages.X509BundlesRequest, request)
    return streamBundles(exchange, context.bundles, (set) =>
      encode(messages.X509BundlesResponse, { bundles: byId(set.bundles, authoritiesOf) }),
    )
  },
  FetchJWTSVID: fetchJwtSvid,
  FetchJWTBundles: (request, exchange, context) => {
    decode(messages.JWTBundlesRequest, request)
    return streamBundles(exchange, context.bundles, (set) =>
      encode(messages.JWTBundlesResponse, { bundles: byId(set.bundles, jwksOf) }),
    )
  },
  ValidateJWTSVID: validate,
  FetchWITSVID: notOffered,
  FetchWITBundles: notOffered,
}

const NOTHING_SPECIAL: Ask = { ttlSeconds: null, profile: null, workloadKey: null }

/** Streams the SVID of the caller's process instance until it is denied, or the instance is no more. */
async function fetchX509Svid(
  request: Buffer,
  { call, caller, hangUp }: Exchange,
  { sessions, bundles, svidLimit }: MethodContext,
): Promise<void> {
  decode(messages.X509SVIDRequest, request)
  const asking = await caller()
  takeOne(svidLimit, asking)
  // Known before the SVID is: a key that waits for a bundle would lie here meanwhile.
  await bundles.get()
  if (call.isOver) return
  const session = sessions.open(asking, null)
  let last = Promise.resolve()
  const hear = (event: SessionEvent<X509Svid>): void => {
    const set = bundles.known
    // Written out now, because the session wipes the key once all who watch have heard.
    const response =
      event.kind === 'denied' || set === undefined
        ? undefined
        : Buffer.concat(x509Response(event.token, set))
    last = last.then(async () => {
      try {
        await caller()
        if (event.kind === 'denied') return end(() => call.end(statusOfRefusal(event.refusal)))
        if (response !== undefined) call.send([response])
      } catch (error) {
        end(() => hangUp(error))
      } finally {
        response?.fill(0)
      }
    })
  }
  const stop = session.watch(hear, () =>
    hangUp(new AgentError('PROCESS_GONE', 'the process instance that connected is no more')),
  )
  const end = (how: () => void): void => {
    stop()
    how()
  }
  call.onceOver(stop)
  try {
    await session.request(NOTHING_SPECIAL)
  } catch (error) {
    stop()
    throw error
  }
}

function x509Response(svid: X509Svid, { own, bundles }: BundleSet): Uint8Array[] {
  const others = new Map([...bundles].filter(([trustDomain]) => trustDomain !== own))
  return encode(messages.X509SVIDResponse, {
    svids: [
      {
        spiffe_id: svid.spiffeId,
        x509_svid: svid.certificates,
        x509_svid_key: svid.privateKey,
        bundle: authoritiesOf(bundles.get(own) as TrustBundle),
        ...(svid.hint === undefined ? {} : { hint: svid.hint }),
      },
    ],
    federated_bundles: byId(others, authoritiesOf),
  })
}

async function fetchJwtSvid(
  request: Buffer,
  { call, caller }: Exchange,
  { issueJwt, bundles, svidLimit }: MethodContext,
): Promise<void> {
  const { audience: audiences = [], spiffe_id: wanted = '' } = decode(
    messages.JWTSVIDRequest,
    request,
  )
  const [audience] = audiences
  if (audiences.length !== 1)
    throw new AgentError(
      'REQUEST_INVALID',
      `expected one audience, saw ${audiences.length}: a token for several could be shown by one to another`,
    )
  const id = parseSpiffeId(wanted)
  if (wanted !== '' && id === undefined)
    throw new AgentError('REQUEST_INVALID', `expected a SPIFFE ID, saw ${quote(wanted)}`)
  const asking = await caller()
  takeOne(svidLimit, asking)
  // What is not ours for sure costs no decision.
  if (id !== undefined && id.trustDomain !== (await bundles.get()).own) throw notYours(wanted)
  const svid = await issueJwt({ instance: asking.instance, audience: parseAudience(audience) })
  if (id !== undefined && id.id !== svid.spiffeId) throw notYours(wanted)
  await caller()
  const body = { spiffe_id: svid.spiffeId, svid: svid.svid }
  call.send(encode(messages.JWTSVIDResponse, { svids: [body] }))
  call.end(OK)
}

function notYours(id: string): StatusError {
  return new StatusError(STATUS.permissionDenied, `the caller is not ${quote(id)}`)
}

async function validate(
  request: Buffer,
  { call, caller }: Exchange,
  { bundles, validateLimit, now }: MethodContext,
): Promise<void> {
  const { audience = '', svid = '' } = decode(messages.ValidateJWTSVIDRequest, request)
  if (audience === '' || svid === '')
    throw new AgentError('REQUEST_INVALID', 'expected an audience and a JWT-SVID')
  if (!validateLimit.take(String((await caller()).peer.uid)))
    throw new AgentError('REQUEST_LIMIT', 'too many JWT-SVIDs to verify at once')
  const set = await bundles.get()
  const valid = validateJwtSvid(svid, audience, { set, nowSeconds: now() / 1000 })
  await caller()
  const claims = messages.structOf(valid.claims)
  call.send(encode(messages.ValidateJWTSVIDResponse, { spiffe_id: valid.spiffeId, claims }))
  call.end(OK)
}

/** Writes what `encoded` makes of the bundles at once and whenever that differs, until the call is over. */
async function streamBundles(
  { call, caller, hangUp }: Exchange,
  bundles: Bundles,
  encoded: (set: BundleSet) => Uint8Array[],
): Promise<void> {
  let last: Buffer | undefined
  let turn = Promise.resolve()
  const push = (set: BundleSet): void => {
    turn = turn.then(async () => {
      try {
        await caller()
      } catch (error) {
        return hangUp(error)
      }
      const next = Buffer.concat(encoded(set))
      if (last?.equals(next)) return
      call.send([next])
      last = next
    })
  }
  const set = await bundles.get()
  if (call.isOver) return
  const stop = bundles.subscribe(push)
  call.onceOver(stop)
  push(set)
  await turn
}

/** Keyed by the SPIFFE ID of the trust domain; a domain without keys of this use is left out. */
function byId(
  bundles: ReadonlyMap<string, TrustBundle>,
  content: (bundle: TrustBundle) => Buffer,
): Record<string, Buffer> {
  const empty = content({ x509: [], jwt: new Map() })
  const entries = [...bundles].map(
    ([trustDomain, bundle]) => [`spiffe://${trustDomain}`, content(bundle)] as const,
  )
  return Object.fromEntries(entries.filter(([, bytes]) => !bytes.equals(empty)))
}

/** A process asks once and keeps its stream; who asks again and again waits. */
function takeOne(limit: RateLimit, { instance }: Caller): void {
  if (!limit.take(instanceKey(instance)))
    throw new AgentError('REQUEST_LIMIT', 'a process asks once and uses its SVID until it expires')
}
