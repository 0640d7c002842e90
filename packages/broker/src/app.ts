// From the route table to a Hono app. Every request takes the same way: query → content type → size →
// body → schema → handler → answer; whatever throws becomes a problem document. The public app has no
// admin route at all; the admin app, behind a socket that only root can open, has every route.
import { ROUTES, type Route, type RouteAuth, type RouteId } from '@bagcheck/api'
import { parseStrictJson } from '@bagcheck/attest'
import { Hono } from 'hono'
import type { z } from 'zod'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import { problemOf } from './problems.ts'
import { announcedBytes, BodyBudget, readBody } from './request-body.ts'
import { handlers } from './routes/handlers.ts'

/** What a handler gets; `body` and `query` are checked against the route's schemas. */
export interface Call {
  readonly broker: Broker
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  /** Parsed JSON, or the text of a form. */
  readonly body: unknown
  readonly headers: Headers
  /** Aborts when the client is gone or the server stops. Made when asked for: few routes wait. */
  readonly signal: () => AbortSignal
}

/** One route's work. */
export type Handler = (call: Call) => Response | Promise<Response>

/** Every route's handler. */
export type Handlers = Readonly<Record<RouteId, Handler>>

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

/** A route's path as Hono writes it. */
export function honoPath(path: string): string {
  return path.replace(/\{([a-z]+)\*\}/, ':$1{.+}').replaceAll(/\{([a-z]+)\}/g, ':$1')
}

/** The app of one surface. `stop` ends long polls when the server stops. */
export function createApp(
  broker: Broker,
  surface: Surface,
  options: { budget?: BodyBudget; stop?: AbortSignal } = {},
): Hono {
  const app = new Hono()
  const { budget = new BodyBudget(), stop } = options
  for (const route of routesOf(surface)) {
    app.on(route.method, honoPath(route.path), async (context) => {
      const request = context.req.raw
      try {
        using call = await readCall(request, route, context.req.param(), { broker, budget, stop })
        return counted(broker, await handlers[route.id](call))
      } catch (error) {
        return refused(broker, route.id, error)
      }
    })
  }
  app.notFound((context) => {
    const seen = `${context.req.method} ${context.req.path}`
    return refused(broker, null, new BrokerError('REQUEST_NOT_FOUND', `no route ${quote(seen)}`))
  })
  app.onError((error) => refused(broker, null, error))
  return app
}

async function readCall(
  request: Request,
  route: Route,
  params: Record<string, string>,
  context: { broker: Broker; budget: BodyBudget; stop: AbortSignal | undefined },
): Promise<Call & Disposable> {
  const { broker, budget, stop } = context
  const signal = (): AbortSignal =>
    stop ? AbortSignal.any([request.signal, stop]) : request.signal
  const call = {
    broker,
    params,
    query: readQuery(request, route),
    headers: request.headers,
    signal,
  }
  if (route.request === undefined)
    return { ...call, body: undefined, [Symbol.dispose]: () => undefined }
  const { contentType, maxBytes, schema } = route.request
  checkContentType(request, contentType)
  const reserved = budget.reserve(announcedBytes(request, maxBytes))
  try {
    const bytes = await readBody(request, maxBytes)
    const body =
      contentType === 'application/json' ? parseJson(bytes, maxBytes, schema) : bytes.toString()
    return { ...call, body, [Symbol.dispose]: () => reserved[Symbol.dispose]() }
  } catch (error) {
    reserved[Symbol.dispose]()
    throw error
  }
}

function readQuery(request: Request, route: Route): Record<string, string> {
  const mark = request.url.indexOf('?')
  if (mark === -1) return {}
  const pairs = [...new URLSearchParams(request.url.slice(mark + 1))]
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

function checkContentType(request: Request, expected: string): void {
  const seen = request.headers.get('content-type')
  const [type, ...parameters] = (seen ?? '').toLowerCase().split(';')
  const utf8 = parameters.every((parameter) => parameter.trim() === 'charset=utf-8')
  if (type?.trim() !== expected || !utf8)
    throw new BrokerError(
      'REQUEST_CONTENT_TYPE',
      `expected content type ${quote(expected)}, saw ${quote(seen)}`,
    )
  const encoding = request.headers.get('content-encoding')
  if (encoding !== null && encoding !== 'identity')
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

function refused(broker: Broker, route: RouteId | null, error: unknown): Response {
  const { status, body } = problemOf(error)
  if (status >= 500) broker.logger.error({ err: error, route }, 'request failed')
  return counted(broker, Response.json(body, { status, headers: problemHeaders(status) }))
}

function problemHeaders(status: number): Record<string, string> {
  const headers = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }
  return status === 503 ? { ...headers, 'retry-after': '1' } : headers
}

function counted(broker: Broker, response: Response): Response {
  broker.metrics.responses.add(String(response.status))
  return response
}
