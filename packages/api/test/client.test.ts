import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { createClient } from '../src/client.ts'

let server: Server | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

/** A client for a server that answers as told. */
async function against(listener: RequestListener, timeoutMs = 5000) {
  const { promise, resolve } = Promise.withResolvers<void>()
  server = createServer(listener).listen(0, '127.0.0.1', resolve)
  await promise
  const { port } = server.address() as AddressInfo
  return createClient({ url: `http://127.0.0.1:${port}` }, { timeoutMs })
}
const challenge = { node: 'node-1', purpose: 'issue' } as const

describe('the client', () => {
  test('sends what the route reads and returns what it answers', async () => {
    let seen = ''
    const client = await against((request, response) => {
      request.on('data', (chunk: Buffer) => (seen += chunk.toString()))
      request.on('end', () => {
        seen = `${request.method} ${request.url} ${request.headers['content-type']} ${seen}`
        response.end('{"nonce":"n","expiresInSeconds":60,"policyVersion":1,"later":true}')
      })
    })
    expect(await client.challenge(challenge)).toEqual({
      nonce: 'n',
      expiresInSeconds: 60,
      policyVersion: 1,
    })
    expect(seen).toBe('POST /v1/challenge application/json {"node":"node-1","purpose":"issue"}')
  })

  test('writes names from outside so that they stay one path segment', async () => {
    let path: string | undefined
    const client = await against((request, response) => {
      path = request.url
      response.end('{"node":"x","logIndex":1}')
    })
    await client.banNode('../v1/policy?x', 'reason')
    expect(path).toBe('/v1/nodes/..%2Fv1%2Fpolicy%3Fx/ban')
  })

  test("passes the broker's problem on", async () => {
    const problem = { error: 'access_denied', error_description: 'no', code: 'ROLE_UNKNOWN' }
    const client = await against((_, response) => {
      response.writeHead(403).end(JSON.stringify(problem))
    })
    await expect(client.challenge(challenge)).rejects.toMatchObject({
      code: 'BROKER_REFUSED',
      status: 403,
      problem,
    })
  })

  test.each([
    ['no JSON', 200, 'x'],
    ['another shape', 200, '{"nonce":1}'],
    ['an error that is no problem', 500, '<html>'],
    ['a redirect', 302, ''],
  ])('answered with %s says so', async (_, status, body) => {
    const client = await against((__, response) => {
      response.writeHead(status, { location: 'http://evil.test/' }).end(body)
    })
    await expect(client.challenge(challenge)).rejects.toMatchObject({ code: 'RESPONSE_INVALID' })
  })

  test('stops reading an answer beyond its limit', async () => {
    const client = await against((_, response) => {
      response.write('x'.repeat(300 * 1024))
    })
    await expect(client.challenge(challenge)).rejects.toMatchObject({ code: 'RESPONSE_LIMIT' })
  })

  test.each([
    ['never answers', (): void => undefined],
    [
      'never ends its answer',
      (_: unknown, response: { write(text: string): void }) => response.write('{'),
    ],
  ])('gives up on a broker that %s', async (_, listener) => {
    const client = await against(listener as RequestListener, 50)
    await expect(client.challenge(challenge)).rejects.toMatchObject({ code: 'BROKER_TIMEOUT' })
  })

  test('says when nobody is there', async () => {
    for (const address of [{ url: 'http://127.0.0.1:1' }, { socket: '/nonexistent' }])
      await expect(createClient(address).policy()).rejects.toMatchObject({
        code: 'BROKER_UNREACHABLE',
        problem: null,
      })
  })
})
