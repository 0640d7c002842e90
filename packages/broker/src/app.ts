// From the route table to an app. Every request takes the same way: route → query → content type → size →
// body → schema → handler → answer; whatever throws becomes a problem document. The public app has no
// admin route at all; the admin app, behind a socket that only root can open, has every route.
//
// Requests and answers are small objects of our own, not those of fetch: loading fetch takes a fifth of
// the time that the broker may take to start.
import { ROUTES, type Route, type RouteAuth, type RouteId } from '@bagcheck/api'
import { parseStrictJson } from '@bagcheck/attest'
import type { z } from 'zod'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import { problemOf } from './problems.ts'
import { announcedBytes, BodyBudget } from './request-body.ts'
import { createRouter, type Match } from './router.ts'
import { json, type Answer } from './routes/answer.ts'
import { handlers } from './routes/handlers.ts'

/** What a handler gets; `body` and `query` are checked against the route's schemas. */
export interface Call {
  readonly broker: Broker
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  /** Parsed JSON, or the text of a form. */
  readonly body: unknown
  readonly header: AppRequest['header']
  /** Aborts when the client is gone or the server stops. Made when asked for: few routes wait. */
  readonly signal: () => AbortSignal
}

/** One route's work. */
export type Handler = (call: Call) => Answer | Promise<Answer>

/** Every route's handler. */
export type Handlers = Readonly<Record<RouteId, Handler>>

/** A request as an app sees it, whatever it came over. */
export interface AppRequest {
  readonly method: string
  /** Path and query. */
  readonly target: string
  /** The value of a header by its lower-case name; several of one name are joined by commas. */
  header(name: string): string | undefined
  /** Reads the body. @throws {BrokerError} REQUEST_TOO_LARGE, REQUEST_INVALID – it ended early */
  readBody(maxBytes: number): Promise<Buffer>
  /** Aborts when the client is gone. */
  gone(): AbortSignal
}

/** What a server needs of an app. */
export interface App {
  readonly routes: readonly Route[]
  /** Answers a request; never rejects. */
  handle(request: AppRequest): Promise<Answer>
}

/** Who reaches an app. */
export type Surface = 'public' | 'admin'

const SURFACE: Readonly<Record<Surface, readonly RouteAuth[]>> = {
  public: ['public', 'signature', 'node'],
  admin: ['public', 'signature', 'node', 'admin'],
}

/** The routes that a surface has. */
export function routesOf(surface: Surface): readonly Route[] {
  return ROUTES.filter(({ auth }) => SURFACE[surface].includes(auth))
}

/** The app of one surface. `stop` ends long polls when the server stops. */
export function createApp(
  broker: Broker,
  surface: Surface,
  options: { budget?: BodyBudget; stop?: AbortSignal } = {},
): App {
  const routes = routesOf(surface)
  const find = createRouter(routes)
  const { budget = new BodyBudget(), stop } = options
  const handle = async (request: AppRequest): Promise<Answer> => {
    const mark = request.target.indexOf('?')
    const path = mark === -1 ? request.target : request.target.slice(0, mark)
    const match = find(request.method, path)
    try {
      if (match === undefined)
        throw new BrokerError('REQUEST_NOT_FOUND', `no route ${quote(`${request.method} ${path}`)}`)
      const query = readQuery(mark === -1 ? '' : request.target.slice(mark + 1), match.route)
      using call = await readCall(request, match, query, { broker, budget, stop })
      return counted(broker, await handlers[match.route.id](call))
    } catch (error) {
      return refused(broker, match?.route.id ?? null, error)
    }
  }
  return { routes, handle }
}

async function readCall(
  request: AppRequest,
  { route, params }: Match,
  query: Record<string, string>,
  context: { broker: Broker; budget: BodyBudget; stop: AbortSignal | undefined },
): Promise<Call & Disposable> {
  const { broker, budget, stop } = context
  const signal = (): AbortSignal =>
    stop ? AbortSignal.any([request.gone(), stop]) : request.gone()
  const call = { broker, params, query, header: request.header, signal }
  if (route.request === undefined)
    return { ...call, body: undefined, [Symbol.dispose]: () => undefined }
  const { contentType, maxBytes, schema } = route.request
  checkContentType(request, contentType)
  const reserved = budget.reserve(announcedBytes(request.header('content-length'), maxBytes))
  try {
    const bytes = await request.readBody(maxBytes)
    const body =
      contentType === 'application/json' ? parseJson(bytes, maxBytes, schema) : bytes.toString()
    return { ...call, body, [Symbol.dispose]: () => reserved[Symbol.dispose]() }
  } catch (error) {
    reserved[Symbol.dispose]()
    throw error
  }
}

function readQuery(text: string, route: Route): Record<string, string> {
  if (text === '') return {}
  const pairs = [...new URLSearchParams(text)]
  const query = Object.fromEntries(pairs)
  const once = Object.keys(query).length === pairs.length
  const parsed = route.query?.safeParse(query)
  if (!once || (pairs.length > 0 && !parsed?.success))
    throw new BrokerError(
      'REQUEST_INVALID',
      `expected only the query parameters of ${route.path}, each once and well formed`,
    )
  return query
}

function checkContentType(request: AppRequest, expected: string): void {
  const seen = request.header('content-type') ?? ''
  const [type, ...parameters] = seen.toLowerCase().split(';')
  const utf8 = parameters.every((parameter) => parameter.trim() === 'charset=utf-8')
  if (type?.trim() !== expected || !utf8)
    throw new BrokerError(
      'REQUEST_CONTENT_TYPE',
      `expected content type ${quote(expected)}, saw ${quote(seen)}`,
    )
  const encoding = request.header('content-encoding')
  if (encoding !== undefined && encoding !== 'identity')
    throw new BrokerError(
      'REQUEST_CONTENT_TYPE',
      `expected no content encoding, saw ${quote(encoding)}`,
    )
}

function parseJson(bytes: Buffer, maxBytes: number, schema: z.ZodType): unknown {
  const parsed = schema.safeParse(parseStrictJson(bytes, { maxBytes, maxDepth: 16 }))
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues.slice(0, 5)
  const said = issues.map(({ path, message }) => `${quote(path.join('.'))}: ${message}`)
  throw new BrokerError('REQUEST_INVALID', `the request is malformed: ${said.join('; ')}`)
}

function refused(broker: Broker, route: RouteId | null, error: unknown): Answer {
  const { status, body } = problemOf(error)
  if (status >= 500) broker.logger.error({ err: error, route }, 'request failed')
  const headers: Record<string, string> = status === 503 ? { 'retry-after': '1' } : {}
  return counted(broker, json(body, { status, headers }))
}

function counted(broker: Broker, answer: Answer): Answer {
  broker.metrics.responses.add(String(answer.status))
  return answer
}
