// agent.sock: HTTP/1.1 and JSON on a unix socket that everybody may connect to; the measurement decides.
//
//   GET  /healthz                 is the agent serving
//   GET  /v1/nonce                {nonce}, for a proof of a workload key
//   POST /v1/token                {audience, ttlSeconds?, profile?, dpopProof?} → token, or a problem
//   GET  /v1/watch?audience=A     server-sent events: token, denied
//   GET  /v1/unit?pid=N           the unit of another process, for an operator: the agent's user only, outside containers
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { instanceKey, readInstance, sharesPidNamespace } from '../measure/instance.ts'
import type { ProcessInstance, UnitFacts } from '../measure/messages.ts'
import { BrokerProblem } from './broker-client.ts'
import type { Callers } from './callers.ts'
import { verifyProof } from './dpop.ts'
import type { NonceBook } from './nonce-book.ts'
import { isTransient, refusalOf } from './problem.ts'
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
  readonly unitOf: (instance: ProcessInstance) => Promise<UnitFacts>
  /** 32 random bytes, base64url. */
  readonly newNonce: () => string
  readonly health: () => Readonly<Record<string, unknown>>
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
    const caller = callers.check(socket)
    const open = perUser.get(caller.peer.uid) ?? 0
    if (open >= MAX_REQUESTS_PER_USER)
      throw new AgentError('REQUEST_LIMIT', `too many requests of user ${caller.peer.uid}`)
    uid = caller.peer.uid
    perUser.set(uid, open + 1)
    const answer = await route(request, response, context, limit)
    if (answer === undefined) return
    callers.check(socket)
    reply(response, 200, answer)
  } catch (error) {
    const code = error instanceof AgentError ? error.code : undefined
    const gone = code === 'PROCESS_MOVED' || code === 'PROCESS_GONE' || code === 'PEER_UNKNOWN'
    // What the broker refused is in the log already, with the unit's process and its decision.
    if (!(error instanceof BrokerProblem))
      log(gone ? 'warn' : 'info', 'request refused', { path: pathOf(request), ...describe(error) })
    // Whoever is there now is not the process that connected: it hears nothing.
    if (gone || response.headersSent) return void socket.destroy()
    try {
      callers.check(socket)
    } catch {
      return void socket.destroy() // it moved while it was being refused; logged above
    }
    const { status, problem } = refusalOf(error)
    reply(response, status, problem)
  } finally {
    if (uid !== undefined) {
      const left = (perUser.get(uid) ?? 1) - 1
      if (left > 0) perUser.set(uid, left)
      else perUser.delete(uid)
    }
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
  const caller = callers.check(request.socket)
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
      if (caller.peer.uid !== process.geteuid?.())
        throw new AgentError('REQUEST_INVALID', "expected the agent's user to ask about others")
      // Root in a container is this user too, and the pids it knows are not ours.
      if (!sharesPidNamespace(caller.instance.pid))
        throw new AgentError('REQUEST_INVALID', "expected a caller in the agent's pid namespace")
      return unitOf(parsePid(parameter(request, 'pid')), context)
    }
    default:
      throw new AgentError('REQUEST_INVALID', 'expected a route of the agent')
  }
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
    return await context.unitOf(readInstance(pid))
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
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  })
  response.end(text)
}
