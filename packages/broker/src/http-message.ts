// Between Node's HTTP messages and an app's requests and answers.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { App, AppRequest } from './app.ts'
import { readBody } from './request-body.ts'
import type { Answer } from './routes/answer.ts'

/** A client that still sends a body when it has its answer may do so for that long. */
const LINGER_MS = 500

/** Answers every request of a server by the app. */
export function listenerOf(app: App): RequestListener {
  return (incoming, outgoing) => {
    void app.handle(requestOf(incoming, outgoing)).then(
      (answer) => send(answer, incoming, outgoing),
      () => outgoing.destroy(), // it answers its own failures; without an answer nothing is safe to say
    )
  }
}

function requestOf(incoming: IncomingMessage, outgoing: ServerResponse): AppRequest {
  return {
    method: incoming.method ?? '',
    target: targetOf(incoming.url ?? ''),
    header: (name) => headerOf(incoming.rawHeaders, name),
    readBody: (maxBytes) => readBody(incoming, maxBytes),
    gone: () => {
      const controller = new AbortController()
      if (outgoing.closed) controller.abort()
      else outgoing.once('close', () => controller.abort())
      return controller.signal
    },
  }
}

/** RFC 9112 §3.2.2: a server takes the absolute form too. */
function targetOf(url: string): string {
  if (url.startsWith('/') || !URL.canParse(url)) return url
  const { pathname, search } = new URL(url)
  return `${pathname}${search}`
}

// Node keeps only the first of two Content-Types; two of them are a reason to refuse.
function headerOf(rawHeaders: readonly string[], name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const seen = rawHeaders[i] ?? ''
    if (seen.length !== name.length || seen.toLowerCase() !== name) continue
    value = value === undefined ? rawHeaders[i + 1] : `${value}, ${rawHeaders[i + 1]}`
  }
  return value
}

function send(
  { status, headers, body }: Answer,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  if (status === 304) outgoing.writeHead(status, headers)
  else outgoing.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) })
  outgoing.end(body)
  if (incoming.complete) return
  // Reading on lets the client see the answer before its connection is cut.
  incoming.resume()
  const late = setTimeout(() => incoming.destroy(), LINGER_MS)
  incoming.once('close', () => clearTimeout(late))
}
