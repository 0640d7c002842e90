import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AppRequest } from '../src/app.ts'
import { BrokerError } from '../src/error.ts'
import { listenerOf } from '../src/http-message.ts'
import { json, type Answer } from '../src/routes/answer.ts'

const MAX_BYTES = 10

/** Tells what it was asked. */
async function echo(request: AppRequest): Promise<Answer> {
  if (request.target === '/unread') return json({ unread: true })
  if (request.target === '/unchanged') return { status: 304, headers: { etag: '"1"' }, body: '' }
  try {
    const body = await request.readBody(MAX_BYTES)
    const { method, target } = request
    return json({ method, target, type: request.header('content-type'), body: body.toString() })
  } catch (error) {
    return json({ code: error instanceof BrokerError ? error.code : String(error) })
  }
}

const directory = mkdtempSync(join(tmpdir(), 'bagcheck-http-'))
const socket = join(directory, 'http.sock')
let server: Server
const seen: Promise<Answer>[] = []
beforeAll(async () => {
  const handle = (request: AppRequest): Promise<Answer> => {
    if (request.target === '/broken') return Promise.reject(new Error('a mistake of ours'))
    const answer = echo(request)
    seen.push(answer)
    return answer
  }
  server = createServer(listenerOf({ routes: [], handle }))
  await new Promise<void>((resolve) => server.listen(socket, resolve))
})
afterAll(() => {
  server.close()
  rmSync(directory, { recursive: true })
})

/** Sends bytes and returns all that comes back; `end` says that no more will be sent. */
function speak(text: string, { end = true } = {}): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const client = connect(socket)
  let answer = ''
  client.setEncoding('utf8').on('data', (chunk: string) => (answer += chunk))
  client.on('error', () => undefined).on('close', () => resolve(answer))
  client.write(text)
  if (end) client.end()
  return promise
}
const ask = (line: string, ...headers: string[]): string =>
  [`${line} HTTP/1.1`, 'host: x', 'connection: close', ...headers, '', ''].join('\r\n')
const bodyOf = (answer: string): unknown => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4))

describe('a request over a socket', () => {
  test('comes with its method, target, headers and body', async () => {
    const headers = ['Content-Type: text/plain', 'content-length: 2']
    const answer = await speak(`${ask('POST /a/b?c=d', ...headers)}hi`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(answer).toMatch(/\r\ncontent-length: \d+\r\n/)
    expect(bodyOf(answer)).toEqual({
      ...{ method: 'POST', target: '/a/b?c=d' },
      ...{ type: 'text/plain', body: 'hi' },
    })
  })

  test('in absolute form is the same request', async () => {
    expect(bodyOf(await speak(ask('GET http://x/a?b=c')))).toMatchObject({ target: '/a?b=c' })
    expect(bodyOf(await speak(ask('OPTIONS *')))).toMatchObject({ target: '*' })
  })

  test('with two content types is seen to have two', async () => {
    const answer = await speak(ask('GET /', 'content-type: text/plain', 'content-type: a/b'))
    expect(bodyOf(answer)).toMatchObject({ type: 'text/plain, a/b' })
  })

  test.each(['10', '11'])('in chunks of %s bytes is bounded like any other', async (bytes) => {
    const size = Number(bytes)
    const chunks = `${size.toString(16)}\r\n${'x'.repeat(size)}\r\n0\r\n\r\n`
    const answer = await speak(ask('POST /', 'transfer-encoding: chunked') + chunks)
    expect(bodyOf(answer)).toMatchObject(
      size > MAX_BYTES ? { code: 'REQUEST_TOO_LARGE' } : { body: 'x'.repeat(size) },
    )
  })

  test('whose body ends early is refused', async () => {
    await speak(`${ask('POST /', 'content-length: 9')}1234`)
    const { body } = (await seen.at(-1)) ?? {}
    expect(body).toBe('{"code":"REQUEST_INVALID"}')
  })

  test('that is answered unread is cut off, whatever it still sends', async () => {
    const answer = await speak(
      `POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx`,
      { end: false },
    )
    expect(bodyOf(answer)).toEqual({ unread: true })
  })

  test('for HEAD gets the headers of GET and no body', async () => {
    const answer = await speak(ask('HEAD /'))
    expect(answer).toMatch(/content-length: [1-9]/)
    expect(answer.endsWith('\r\n\r\n')).toBe(true)
  })

  test('whose answer is unchanged gets neither body nor length', async () => {
    const answer = await speak(ask('GET /unchanged'))
    expect(answer).toMatch(/^HTTP\/1\.1 304 /)
    expect(answer).not.toContain('content-length')
  })

  test('gets nothing where our own code fails', async () => {
    expect(await speak(ask('GET /broken'))).toBe('')
  })
})
