// spiffe.sock: the SPIFFE Workload API for clients that know nothing of us, gRPC over HTTP/2 on a unix socket
// that everybody may connect to; the measurement decides.
//
// A gRPC layer of our own on node:http2, and not a library: who is on a connection must be known before its
// first byte is read, that process is looked at before each message, and what carried a key is wiped. It also
// costs the agent neither packages nor start time (docs/architecture.md says what was measured).
//
//   connection   admitted by the kernel's word on its process, then HTTP/2 within ten seconds
//   call         one request message within ten seconds; so many at a time of one user and one connection
//   idle         a connection without calls is closed after ten minutes; clients come back by themselves
//   sweep        every ten seconds each connection's process is looked at, for streams that are silent
import {
  performServerHandshake,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { createServer, type Server, type Socket } from 'node:net'
import { AgentError } from '../../error.ts'
import { describe, type Log } from '../../log.ts'
import { BrokerProblem } from '../broker-client.ts'
import type { Callers } from '../callers.ts'
import { isTransient } from '../problem.ts'
import { withHostAsAuthority } from './authority.ts'
import { acceptCall, type Call } from './grpc.ts'
import { METHODS } from './messages.ts'
import { HANDLERS, type Exchange, type MethodContext } from './methods.ts'
import { reflect, REFLECTION_PATHS } from './reflection.ts'
import { STATUS, StatusError } from './status.ts'

const MAX_CONNECTIONS = 4096
const MAX_CALLS_PER_CONNECTION = 64
const MAX_CALLS_PER_USER = 512
const PREFACE_TIMEOUT_MS = 10_000
const IDLE_MS = 600_000
const SWEEP_MS = 10_000
const SECURITY_HEADER = 'workload.spiffe.io'

/** What the server works with. */
export interface WorkloadApiContext extends MethodContext {
  readonly callers: Callers
  readonly log: Log
}

interface Connection {
  readonly socket: Socket
  readonly session: ServerHttp2Session
  readonly uid: number
  calls: number
  /** When the last call ended, or the connection began. */
  idleSinceMs: number
}

/** Makes the server; the caller lets it listen. Closing it does not end connections: {@link WorkloadApi.end}. */
export interface WorkloadApi {
  readonly server: Server
  /** Ends all connections. */
  end(): void
}

export function createWorkloadApi(context: WorkloadApiContext): WorkloadApi {
  const { callers, log, now } = context
  const connections = new Set<Connection>()
  const callsPerUser = new Map<number, number>()

  const server = createServer((socket) => {
    // A socket without a listener for errors would end the agent.
    socket.on('error', (error) => log('debug', 'connection failed', describe(error)))
    let uid: number
    try {
      uid = callers.admit(socket).uid
    } catch (error) {
      log('warn', 'caller not identified', describe(error))
      socket.destroy()
      return
    }
    const connection: Connection = {
      socket,
      session: startSession(socket),
      uid,
      calls: 0,
      idleSinceMs: now(),
    }
    connections.add(connection)
    socket.once('close', () => connections.delete(connection))
    const { session } = connection
    session.on('error', (error) => log('debug', 'connection failed', describe(error)))
    const preface = setTimeout(() => session.destroy(), PREFACE_TIMEOUT_MS)
    session.once('remoteSettings', () => clearTimeout(preface))
    session.once('close', () => clearTimeout(preface))
    session.on('stream', (stream, headers) => {
      void serve(stream, headers, connection)
    })
  })
  server.maxConnections = MAX_CONNECTIONS

  const sweep = setInterval(() => {
    for (const connection of connections) {
      const { session, socket, calls, idleSinceMs } = connection
      if (calls === 0) {
        if (now() - idleSinceMs > IDLE_MS) session.close()
        continue
      }
      callers.check(socket).catch((error: unknown) => {
        // A measurer that is away says nothing of the process, and until it is back nothing is written.
        if (isTransient(error)) return
        log('warn', 'connection closed', describe(error))
        session.destroy()
      })
    }
  }, SWEEP_MS)
  sweep.unref()
  server.once('close', () => clearInterval(sweep))

  async function serve(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    connection: Connection,
  ): Promise<void> {
    const call = acceptCall(stream, headers)
    if (call === undefined) return
    const exchange: Exchange = {
      call,
      caller: () => callers.check(connection.socket),
      hangUp: (reason) => {
        log('warn', 'connection closed', { path: call.path, ...describe(reason) })
        connection.session.destroy()
      },
    }
    count(connection, 1)
    call.onceOver(() => count(connection, -1))
    try {
      await answer(exchange, connection)
    } catch (error) {
      await refuse(exchange, error)
    }
  }

  async function answer(exchange: Exchange, connection: Connection): Promise<void> {
    const { call, caller } = exchange
    await caller()
    if ((callsPerUser.get(connection.uid) ?? 0) > MAX_CALLS_PER_USER)
      throw new AgentError('REQUEST_LIMIT', `too many calls of user ${connection.uid}`)
    if (REFLECTION_PATHS.includes(call.path)) return reflect(call)
    const name = methodOf(call)
    // Workload API §3: against requests that somebody was tricked into sending. Several would come as one, joined.
    if (call.headers[SECURITY_HEADER] !== 'true')
      throw new AgentError('REQUEST_INVALID', 'security header missing from request')
    await HANDLERS[name](await call.message(), exchange, context)
  }

  async function refuse(exchange: Exchange, error: unknown): Promise<void> {
    const { call, caller, hangUp } = exchange
    if (call.isOver) return
    const code = error instanceof AgentError ? error.code : undefined
    if (code === 'PROCESS_MOVED' || code === 'PROCESS_GONE' || code === 'PEER_UNKNOWN')
      return hangUp(error)
    // What the broker refused is in the log already, with the unit's process and its decision.
    if (!(error instanceof BrokerProblem))
      log('info', 'request refused', { path: call.path, ...describe(error) })
    try {
      await caller()
    } catch (other) {
      // Who is there cannot be told: that alone is told, which anybody may know.
      const away = other instanceof AgentError && other.code === 'MEASURER_UNREACHABLE'
      return away ? call.fail(other) : hangUp(other)
    }
    call.fail(error)
  }

  function count(connection: Connection, by: 1 | -1): void {
    connection.calls += by
    connection.idleSinceMs = now()
    const calls = (callsPerUser.get(connection.uid) ?? 0) + by
    if (calls > 0) callsPerUser.set(connection.uid, calls)
    else callsPerUser.delete(connection.uid)
  }

  return {
    server,
    end: () => {
      for (const { session } of connections) session.destroy()
    },
  }
}

/** HTTP/2 on an admitted connection, with bounds on all that a peer can make us keep. */
function startSession(socket: Socket): ServerHttp2Session {
  return performServerHandshake(withHostAsAuthority(socket), {
    maxSessionMemory: 1,
    maxHeaderListPairs: 64,
    settings: {
      enablePush: false,
      maxConcurrentStreams: MAX_CALLS_PER_CONNECTION,
      maxHeaderListSize: 8 * 1024,
    },
  })
}

/** @throws {StatusError} for a method that the service does not have */
function methodOf({ path }: Call): keyof typeof METHODS {
  const [, name = ''] = /^\/SpiffeWorkloadAPI\/(\w+)$/.exec(path) ?? []
  if (Object.hasOwn(METHODS, name)) return name as keyof typeof METHODS
  throw new StatusError(STATUS.unimplemented, `unknown method ${JSON.stringify(path)}`)
}
