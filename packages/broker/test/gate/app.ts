// An app that is spoken to without sockets, by the requests and answers of fetch.
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import { createApp, type App } from '../../src/app.ts'
import { readBody } from '../../src/request-body.ts'

/** An app and a way to ask it. */
export interface TestApp extends App {
  request(path: string, init?: RequestInit): Promise<Response>
}

/** As `createApp`. */
export function openApp(...args: Parameters<typeof createApp>): TestApp {
  const app = createApp(...args)
  const request = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const asked = new Request('http://broker.test', init)
    const stream = asked.body as ReadableStream<Uint8Array> | null
    const { status, headers, body } = await app.handle({
      method: asked.method,
      target: path,
      header: (name) => asked.headers.get(name) ?? undefined,
      readBody: (maxBytes) =>
        readBody(stream === null ? Readable.from([]) : Readable.fromWeb(stream), maxBytes),
      gone: () => asked.signal,
    })
    const bytes = status === 304 ? null : Buffer.from(body)
    return new Response(bytes, { status, headers: { ...headers } })
  }
  return { ...app, request }
}
