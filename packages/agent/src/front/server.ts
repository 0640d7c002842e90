// agent.sock: HTTP/1.1 and JSON on a unix socket that everybody may connect to; the measurement decides.
//
//   GET  /healthz                 is the agent serving
//   GET  /v1/nonce                {nonce}, for a proof of a workload key
//   POST /v1/token                {audience, ttlSeconds?, profile?, dpopProof?} → token, or a problem
//   GET  /v1/watch?audience=A     server-sent events: token, denied
//   GET  /v1/unit?pid=N           the unit of another process, for an operator: root only, outside containers
//   GET  /v1/explain?pid=N        what would be stated about it now, and what came of its last request, for the same
//   GET  /metrics                 Prometheus text, for the same
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { instanceKey, sharesPidNamespace } from '../measure/instance.ts'
import type { UnitFacts } from '../measure/messages.ts'
import { BrokerProblem } from './broker-client.ts'
import type { Caller, Callers } from './callers.ts'
import { verifyProof } from './dpop.ts'
import type { NonceBook } from './nonce-book.ts'
import { isTransient, refusalOf, type Refusal } from './problem.ts'
import { RateLimit } from './rate-limit.ts'
import {
  parseAudience,
  parsePid,
  parseTokenRequest,
  readJsonBody,
  type TokenRequest,
} from './requests.ts'
import { tokenBody, type HeldToken, type Session } from './session.ts'
import type { Sessions } from './sessions.ts'
import { streamEvents } from './watch.ts'

const MAX_REQUESTS_PER_USER = 64
/** Per process instance: a burst, then one token request a second. */
const BURST = 20
const PER_SECOND = 1

/** What the server works with. */
export interface FrontContext {
  readonly callers: Callers
  readonly sessions: Sessions
  readonly nonces: NonceBook
  /** The unit of a process, as it would be stated. */
  readonly unitOf: (pid: number) => Promise<UnitFacts>
  /** 32 random bytes, base64url. */
  readonly newNonce: () => string
  /** What is to say about a process. */
  readonly explain: (pid: number) => Promise<unknown>
  readonly health: () => Readonly<Record<string, unknown>>
  /** In the Prometheus text format. */
  readonly metrics: () => string
  readonly now: () => number
  readonly log: Log
}

/** Makes the server; the caller lets it listen. */
export function createFront(context: FrontContext): Server {
  const { callers, log } = context
  const limit = new RateLimit(BURST, PER_SECOND, context.now)
  const perUser = new Map<number, number>()
  const server = createServer({ maxHeaderSize: 8 * 1024 }, (request, response) => {
    void handle(request, response, context, limit, perUser)
  })
  server.headersTimeout = 5000
  server.requestTimeout = 15_000
  server.keepAliveTimeout = 60_000
  server.maxConnections = 4096
  server.on('connection', (socket: Socket) => {
    try {
      callers.admit(socket)
    } catch (error) {
      log('warn', 'caller not identified', describe(error))
      socket.destroy()
    }
  })
  return server
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  context: FrontContext,
  limit: RateLimit,
  perUser: Map<number, number>,
): Promise<void> {
  const { callers, log } = context
  const { socket } = request
  let uid: number | undefined
  try {
    const caller = await callers.check(socket)
    const open = perUser.get(caller.peer.uid) ?? 0
    if (open >= MAX_REQUESTS_PER_USER)
      throw new AgentError('REQUEST_LIMIT', `too many requests of user ${caller.peer.uid}`)
    uid = caller.peer.uid
    perUser.set(uid, open + 1)
    const answer = await route(request, response, context, limit)
    if (answer === undefined) return
    await callers.check(socket)
    reply(response, 200, answer)
  } catch (error) {
    const code = error instanceof AgentError ? error.code : undefined
    const gone = code === 'PROCESS_MOVED' || code === 'PROCESS_GONE' || code === 'PEER_UNKNOWN'
    // What the broker refused is in the log already, with the unit's process and its decision.
    if (!(error instanceof BrokerProblem))
      log(gone ? 'warn' : 'info', 'request refused', { path: pathOf(request), ...describe(error) })
    // Whoever is there now is not the process that connected: it hears nothing.
    if (gone || response.headersSent) return void socket.destroy()
    const told = await refusalFor(socket, error, callers)
    if (told === undefined) return void socket.destroy() // it moved while it was being refused; logged above
    reply(response, told.status, told.problem)
  } finally {
    if (uid !== undefined) {
      const left = (perUser.get(uid) ?? 1) - 1
      if (left > 0) perUser.set(uid, left)
      else perUser.delete(uid)
    }
  }
}

/**
 * What the caller is told instead of an answer; undefined if it is not there any more. Where the measurer cannot
 * be asked who is there, that alone is told, which anybody may know.
 */
async function refusalFor(
  socket: Socket,
  error: unknown,
  callers: Callers,
): Promise<Refusal | undefined> {
  try {
    await callers.check(socket)
    return refusalOf(error)
  } catch (other) {
    const away = other instanceof AgentError && other.code === 'MEASURER_UNREACHABLE'
    return away && !socket.destroyed ? refusalOf(other) : undefined
  }
}

/** The body of the answer; undefined if a stream took the response over. */
async function route(
  request: IncomingMessage,
  response: ServerResponse,
  context: FrontContext,
  limit: RateLimit,
): Promise<unknown> {
  const { callers, nonces, sessions } = context
  const caller = await callers.check(request.socket)
  const owner = instanceKey(caller.instance)
  switch (`${request.method} ${pathOf(request)}`) {
    case 'GET /healthz':
      return context.health()
    case 'GET /v1/nonce':
      return { nonce: nonces.give(owner, context.newNonce()) }
    case 'POST /v1/token': {
      if (!limit.take(owner))
        throw new AgentError('REQUEST_LIMIT', 'a process asks once and then watches')
      const asked = parseTokenRequest(await readJsonBody(request))
      const key =
        asked.dpopProof === null
          ? undefined
          : verifyProof(asked.dpopProof, {
              nowSeconds: Math.floor(context.now() / 1000),
              consumeNonce: (nonce) => nonces.consume(owner, nonce),
            })
      const session = sessions.open(caller, asked.audience)
      return tokenBody(await obtain(session, asked, key))
    }
    case 'GET /v1/watch': {
      const audience = parseAudience(parameter(request, 'audience'))
      streamEvents(request, response, sessions.open(caller, audience), callers)
      return undefined
    }
    case 'GET /v1/unit': {
      assertOperator(caller)
      return unitOf(parsePid(parameter(request, 'pid')), context)
    }
    case 'GET /v1/explain':
      assertOperator(caller)
      return context.explain(parsePid(parameter(request, 'pid')))
    case 'GET /metrics':
      assertOperator(caller)
      return new Text(context.metrics())
    default:
      throw new AgentError('REQUEST_INVALID', 'expected a route of the agent')
  }
}

/** An answer that is no JSON. */
class Text {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** Who may ask about others. */
function assertOperator({ peer, instance }: Caller): void {
  if (peer.uid !== 0) throw new AgentError('REQUEST_INVALID', 'expected root to ask about others')
  // Root in a container is this user too, and the pids it knows are not ours.
  if (!sharesPidNamespace(instance.pid))
    throw new AgentError('REQUEST_INVALID', "expected a caller in the agent's pid namespace")
}

/** A fresh token; the one that is held if only the broker cannot be asked. */
async function obtain(
  session: Session,
  { ttlSeconds, profile }: TokenRequest,
  key: string | undefined,
): Promise<HeldToken> {
  const workloadKey = key ?? session.workloadKey
  try {
    return { ...(await session.request({ ttlSeconds, profile, workloadKey })), renewed: false }
  } catch (error) {
    const { token } = session
    if (token !== undefined && isTransient(error)) return { ...token, renewed: false }
    throw error
  }
}

/** Errors about that process are an answer to the one that asks, not a reason to hang up on it. */
async function unitOf(pid: number, context: FrontContext): Promise<UnitFacts> {
  try {
    return await context.unitOf(pid)
  } catch (cause) {
    if (cause instanceof AgentError && /^PROCESS_(GONE|MOVED)$/.test(cause.code))
      throw new AgentError('REQUEST_INVALID', `expected a process ${pid} that stays`, { cause })
    throw cause
  }
}

function parameter(request: IncomingMessage, name: string): string | null {
  return new URL(request.url ?? '', 'http://agent').searchParams.get(name)
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '').split('?', 1)[0] ?? ''
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  const plain = body instanceof Text
  const text = plain ? body.text : JSON.stringify(body)
  response.writeHead(status, {
    'content-type': plain ? 'text/plain; version=0.0.4; charset=utf-8' : 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  })
  response.end(text)
}
