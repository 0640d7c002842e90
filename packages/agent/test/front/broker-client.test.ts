import { createServer, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { selfSignedCertificate } from '@bagcheck/testkit'
import { afterEach, describe, expect, test } from 'vitest'
import { createBrokerClient, type BrokerClient } from '../../src/front/broker-client.ts'

let server: Server
let client: BrokerClient

afterEach(() => {
  client.close()
  server.closeAllConnections()
  server.close()
})

async function answering(answer: (response: ServerResponse) => void): Promise<BrokerClient> {
  server = createServer((_request, response) => answer(response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  client = createBrokerClient({ url: `http://127.0.0.1:${port}`, ca: null })
  return client
}

describe('an answer of the broker', () => {
  test.each([
    ['no JSON', 200, 'hello', 'BROKER_RESPONSE'],
    ['an array', 200, '[]', 'BROKER_RESPONSE'],
    ['a short nonce', 200, '{"nonce":"x"}', 'BROKER_RESPONSE'],
    ['an error without a code', 403, '{"error":"access_denied"}', 'BROKER_RESPONSE'],
    ['a redirect', 302, '{}', 'BROKER_RESPONSE'],
    ['more than it may send', 200, 'x'.repeat(300 * 1024), 'BROKER_RESPONSE'],
  ])('that is %s is refused', async (_what, status, body, code) => {
    const broker = await answering((response) => response.writeHead(status).end(body))
    await expect(broker.challenge('n', 'issue')).rejects.toMatchObject({ code })
  })

  test('that is a problem keeps the broker’s words', async () => {
    const problem = { error: 'access_denied', error_description: 'no', code: 'UID' }
    const broker = await answering((response) =>
      response.writeHead(403).end(JSON.stringify(problem)),
    )
    await expect(broker.token('a', 'e')).rejects.toMatchObject({
      code: 'BROKER_REFUSED',
      status: 403,
      problem,
    })
  })

  test('that is cut off is no answer', async () => {
    const broker = await answering((response) => {
      response.writeHead(200, { 'content-length': '1000' })
      response.write('{"nonce":')
      setImmediate(() => response.destroy())
    })
    await expect(broker.challenge('n', 'issue')).rejects.toMatchObject({
      code: 'BROKER_UNREACHABLE',
    })
  })

  test('over a certificate that nobody vouches for is none, and says which key to set', async () => {
    const stranger = createTlsServer(selfSignedCertificate(), (_request, response) =>
      response.end(),
    )
    server = stranger
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve))
    const { port } = stranger.address() as AddressInfo
    client = createBrokerClient({ url: `https://127.0.0.1:${port}`, ca: null })
    await expect(client.challenge('n', 'issue')).rejects.toMatchObject({
      code: 'BROKER_UNREACHABLE',
      message: expect.stringContaining('brokerCa'),
    })
  })

  test('of nobody is BROKER_UNREACHABLE', async () => {
    const broker = await answering(() => undefined)
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await expect(broker.challenge('n', 'issue')).rejects.toMatchObject({
      code: 'BROKER_UNREACHABLE',
    })
  })
})
