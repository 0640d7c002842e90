// Sockets. Two servers: the public one on TCP (TLS unless loopback) or a unix socket, and the admin one
// on a unix socket that only our own user and root can open. Limits are Node's own, set tight: slow
// headers, slow bodies and idle connections are closed, so that no client can hold what others need.
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs'
import {
  createServer as createHttpServer,
  type RequestListener,
  type Server,
  type ServerOptions,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { connect, type AddressInfo } from 'node:net'
import { dirname } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { createApp, type Surface } from './app.ts'
import type { Broker } from './broker.ts'
import type { Config } from './config.ts'
import { BrokerError, quote } from './error.ts'
import { BodyBudget } from './request-body.ts'
import { readTlsFiles } from './tls-files.ts'

const LIMITS: ServerOptions = {
  headersTimeout: 10_000,
  requestTimeout: 120_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 5000,
  maxHeaderSize: 16 * 1024,
}
const MAX_CONNECTIONS = 10_000
const MAX_REQUESTS_PER_CONNECTION = 100_000
/** After this, a stopping server closes what is still open. */
const DRAIN_MS = 5000

/** Listening sockets. */
export interface Listening {
  /** `http://127.0.0.1:8443`, `https://…` or `unix:/path`. */
  readonly listen: string
  /** Path of the admin socket. */
  readonly admin: string
  /** Stops accepting, ends long polls, lets requests finish, closes. */
  stop(): Promise<void>
}

/** Listens on both sockets. @throws {BrokerError} SOCKET_IN_USE, KEY_FILE_* */
export async function listen(broker: Broker): Promise<Listening> {
  const stopping = new AbortController()
  const budget = new BodyBudget()
  const { config } = broker
  const app = (surface: Surface): RequestListener => {
    const { fetch } = createApp(broker, surface, { budget, stop: stopping.signal })
    const answer = getRequestListener(fetch)
    return (request, response) => void answer(request, response) // it answers its own failures
  }
  const publicServer = createServer(config.listen, app('public'))
  const adminServer = createHttpServer(LIMITS, app('admin'))
  const servers = [publicServer, adminServer]
  for (const server of servers) {
    server.maxConnections = MAX_CONNECTIONS
    server.maxRequestsPerSocket = MAX_REQUESTS_PER_CONNECTION
  }
  await listenUnix(adminServer, config.adminSocket, 0o600)
  try {
    const address = await listenPublic(publicServer, config.listen)
    return {
      listen: address,
      admin: config.adminSocket,
      stop: async () => {
        const closed = Promise.all(servers.map(close))
        stopping.abort()
        const late = setTimeout(() => servers.forEach((one) => one.closeAllConnections()), DRAIN_MS)
        await closed
        clearTimeout(late)
      },
    }
  } catch (error) {
    await close(adminServer)
    throw error
  }
}

function createServer(where: Config['listen'], handle: RequestListener): Server {
  const files = readTlsFiles(where)
  if (files === null) return createHttpServer(LIMITS, handle)
  return createHttpsServer({ ...LIMITS, ...files, minVersion: 'TLSv1.2' }, handle)
}

async function listenPublic(server: Server, where: Config['listen']): Promise<string> {
  if ('socket' in where) {
    // Public routes authenticate by what they carry, not by who connects.
    await listenUnix(server, where.socket, 0o666)
    return `unix:${where.socket}`
  }
  await listening(server, () => server.listen({ host: where.host, port: where.port }))
  const { address, port, family } = server.address() as AddressInfo
  const host = family === 'IPv6' ? `[${address}]` : address
  return `${where.tls === null ? 'http' : 'https'}://${host}:${port}`
}

async function listenUnix(server: Server, path: string, mode: number): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  await removeStaleSocket(path)
  // Nobody may connect before the mode is what it is to be. The umask is the process's, and nothing
  // else makes files while the broker starts.
  const umask = process.umask(0o177)
  try {
    await listening(server, () => server.listen(path))
  } finally {
    process.umask(umask)
  }
  chmodSync(path, mode)
}

/** A socket file that nobody answers on was left behind by a kill. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket() || (await answers(path)))
    throw new BrokerError('SOCKET_IN_USE', `expected ${quote(path)} to be free, saw it in use`)
  unlinkSync(path)
}

function answers(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect(path)
  socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  return promise.finally(() => socket.destroy())
}

function listening(server: Server, start: () => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('listening', resolve)
  server.once('error', (cause: NodeJS.ErrnoException) => {
    const message = `expected to listen, saw ${cause.message}`
    reject(new BrokerError('SOCKET_IN_USE', message, { cause }))
  })
  start()
  return promise
}

function close(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  server.close(() => resolve())
  server.closeIdleConnections()
  return promise
}
