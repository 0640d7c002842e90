// `bagcheck-agent --actions`: restarts services and rolls profiles back for an agent that may not. Runs as root,
// reads the same configuration as the agent, speaks to nobody else, and takes one message: an action that the
// configuration names, for a unit that this action lists. What a taken-over agent gains is to have that done, each no
// more often than configured, and all together no more than six times a minute; of a rollback it chooses nothing
// (rollback.ts).
//
// The socket's file mode says who may ask: it is made by systemd (`SocketUser=`, `SocketMode=0600`) and handed
// over as descriptor 3, or made here for root alone. sd_listen_fds(3).
import { execFile } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { AgentError, quote } from '../error.ts'
import type { Action, RootAction } from '../front/actions/config.ts'
import { ACTION_SCHEMA, ACTION_TIMEOUT_MS, MAX_LINE_BYTES } from '../front/actions/request.ts'
import { describe, type Log } from '../log.ts'

const READ_TIMEOUT_MS = 5000
const MAX_CONNECTIONS = 16
const MAX_PER_MINUTE = 6
const SERVICE = /^[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]{0,191}\.service$/

/** What the server works with. */
export interface ActionServerContext {
  readonly actions: readonly Action[]
  /** Does an action for a service whose name was checked; resolves to what is worth logging. */
  readonly perform: (action: RootAction, unit: string) => Promise<Readonly<Record<string, unknown>>>
  readonly now: () => number
  readonly log: Log
}

/** Asks PID 1, with nothing in the command that comes from a request but the name of a listed service. */
export async function restartService(unit: string): Promise<void> {
  if (!SERVICE.test(unit)) throw new TypeError('expected the name of a service')
  await promisify(execFile)('systemctl', ['--no-ask-password', 'restart', '--', unit], {
    timeout: ACTION_TIMEOUT_MS.restart,
    env: { PATH: '/run/current-system/sw/bin:/usr/bin:/bin' },
    cwd: '/',
  })
}

/** A server that is not listening yet. */
export function createActionServer(context: ActionServerContext): Server {
  const limits = new Limits(context.now)
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    void serve(socket, context, limits)
  })
  server.maxConnections = MAX_CONNECTIONS
  return server
}

/** Listens where systemd says, else at `path`. */
export async function listenForActions(server: Server, path: string): Promise<void> {
  const { LISTEN_FDS, LISTEN_PID } = process.env
  const handed = LISTEN_FDS === '1' && LISTEN_PID === String(process.pid)
  if (!handed) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    rmSync(path, { force: true })
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    const umask = process.umask(0o177) // not chmod: what stands at `path` by then may be a link of somebody else's
    server.listen(handed ? { fd: 3 } : { path }, resolve)
    process.umask(umask)
  })
}

const DONE = { restart: 'restarted', rollback: 'rolled back' } as const

async function serve(socket: Socket, context: ActionServerContext, limits: Limits): Promise<void> {
  socket.on('error', () => socket.destroy())
  try {
    const { action, unit } = parseRequest(await readLine(socket), context.actions)
    limits.take(action, unit)
    const done = await context.perform(action, unit)
    context.log('warn', DONE[action.do], { action: action.id, unit, ...done })
    socket.end('{"ok":true}\n')
  } catch (error) {
    const said = describe(error)
    const reason = (error as { detail?: { reason?: unknown } } | null)?.detail?.reason
    context.log('warn', 'no action', { ...said, ...(reason === undefined ? {} : { reason }) })
    socket.end(`${JSON.stringify({ ok: false, code: said.code, reason })}\n`)
  }
}

/** @throws {AgentError} ACTION_REFUSED – nothing that the configuration lists */
export function parseRequest(
  line: string,
  actions: readonly Action[],
): { action: RootAction; unit: string } {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new AgentError('ACTION_REFUSED', 'expected one line of JSON', { cause })
  }
  const members = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >
  const { schema, action: id, unit } = members
  const action = actions.find((one) => one.do !== 'webhook' && one.id === id)
  const known = Object.keys(members).every((key) => ['schema', 'action', 'unit'].includes(key))
  if (schema !== ACTION_SCHEMA || !known || action === undefined || action.do === 'webhook')
    throw new AgentError('ACTION_REFUSED', `expected a configured action, saw ${quote(id)}`)
  if (typeof unit !== 'string' || !SERVICE.test(unit) || !action.units.includes(unit))
    throw new AgentError('ACTION_REFUSED', `expected a unit of ${action.id}, saw ${quote(unit)}`)
  return { action, unit }
}

/** No storm: however often one asks. */
class Limits {
  readonly #now: () => number
  readonly #last = new Map<string, number>()
  #lately: number[] = []

  constructor(now: () => number) {
    this.#now = now
  }

  /** @throws {AgentError} ACTION_LIMIT */
  take({ id, minIntervalSeconds }: RootAction, unit: string): void {
    const now = this.#now()
    const key = `${id} ${unit}`
    this.#lately = this.#lately.filter((at) => now - at < 60_000)
    const last = this.#last.get(key) ?? Number.NEGATIVE_INFINITY
    if (now - last < minIntervalSeconds * 1000 || this.#lately.length >= MAX_PER_MINUTE)
      throw new AgentError('ACTION_LIMIT', `${id} was done on ${unit}, or on others, just now`)
    this.#last.set(key, now) // before it is done: one that hangs is not begun again
    this.#lately.push(now)
  }
}

function readLine(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    const fail = (why: string): void => reject(new AgentError('ACTION_REFUSED', why))
    const timer = setTimeout(() => fail('no request in time'), READ_TIMEOUT_MS)
    socket.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > MAX_LINE_BYTES) fail(`expected at most ${MAX_LINE_BYTES} bytes`)
      else chunks.push(chunk)
    })
    socket.once('end', () => {
      clearTimeout(timer)
      resolve(Buffer.concat(chunks).toString('utf8'))
    })
    socket.once('close', () => {
      clearTimeout(timer)
      fail('the connection was closed')
    })
  })
}
