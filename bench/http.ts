// The smallest HTTP client that keeps connections alive: the load generator must not be what is measured.
import { Agent, request } from 'node:http'
import type { RequestOptions } from 'node:http'

/** Sends requests to one server. */
export interface HttpClient extends Disposable {
  send(method: string, path: string, body?: HttpBody): Promise<{ status: number; text: string }>
}

export interface HttpBody {
  readonly type: 'application/json' | 'application/x-www-form-urlencoded'
  readonly text: string
}

export const json = (value: unknown): HttpBody => ({
  type: 'application/json',
  text: JSON.stringify(value),
})

/** A client of `http://host:port` or of a unix socket. */
export function openHttp(address: { url: string } | { socketPath: string }): HttpClient {
  const agent = new Agent({ keepAlive: true })
  const url = 'url' in address ? new URL(address.url) : undefined
  const base: RequestOptions =
    'socketPath' in address
      ? { socketPath: address.socketPath, agent }
      : { host: url?.hostname, port: url?.port, agent }
  return {
    send: (method, path, body) =>
      new Promise((resolve, reject) => {
        const headers = body && {
          'content-type': body.type,
          'content-length': Buffer.byteLength(body.text),
        }
        const outgoing = request({ ...base, method, path, headers }, (incoming) => {
          let text = ''
          incoming.setEncoding('utf8')
          incoming.on('data', (chunk: string) => (text += chunk))
          incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text }))
          incoming.on('error', reject)
        })
        outgoing.on('error', reject)
        outgoing.end(body?.text)
      }),
    [Symbol.dispose]: () => agent.destroy(),
  }
}

/** The answer's JSON; throws on any other status than the one expected. */
export async function expectJson<T>(
  answer: Promise<{ status: number; text: string }>,
  status: number,
): Promise<T> {
  const { status: seen, text } = await answer
  if (seen !== status) throw new Error(`expected status ${status}, saw ${seen}: ${text}`)
  return JSON.parse(text) as T
}
