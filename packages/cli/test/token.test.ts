// `bagcheck token` against a socket that answers as the agent does.
import { createServer, type Server } from 'node:http'
import { createServer as createNetServer } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from './transcript.ts'

const denial = {
  error: 'access_denied',
  error_description: 'nobody approved it',
  code: 'CLOSURE_NOT_APPROVED',
  reasons: [{ code: 'CLOSURE_NOT_APPROVED', message: 'nobody approved it' }],
  decision: '01a20d4a-14ad-79ee-891c-929323d966c2',
}

let folder: string
let socket: string
let server: Server
let answer: { status: number; body: unknown } | 'never'
beforeEach(async () => {
  answer = { status: 403, body: denial }
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-token-'))
  socket = join(folder, 'agent.sock')
  server = createServer((_request, response) => {
    if (answer === 'never') return void server.emit('asked')
    response.writeHead(answer.status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer.body))
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
  rmSync(folder, { recursive: true })
})

test('a denial says each reason once, and the decision to explain', async () => {
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
  const { code, stderr } = await run(argv)
  expect(code).toBe(1)
  expect(stderr.match(/nobody approved it/g)).toHaveLength(1)
  expect(stderr).toContain('to pass: deploy an approved closure')
  expect(stderr).toContain('"bagcheck explain 01a20d4a-14ad-79ee-891c-929323d966c2"')
})

test('with --json a denial is one line of JSON that holds the whole problem', async () => {
  const argv = ['token', '--json', '--audience', 'https://api.example.org', '--agent', socket]
  const { code, stdout, stderr } = await run(argv)
  expect([code, stdout]).toEqual([1, ''])
  expect(JSON.parse(stderr)).toMatchObject({ code: 'REFUSED', detail: denial })
})

test.each([
  [429, 'REQUEST_LIMIT', 3],
  [503, 'BROKER_UNREACHABLE', 3],
  [400, 'REQUEST_INVALID', 1],
])('status %i, %s, exits with %i', async (status, code, exit) => {
  answer = { status, body: { error: 'x', error_description: 'later', code } }
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
  const said = await run(argv)
  expect([said.code, said.stdout]).toEqual([exit, ''])
  expect(said.stderr).toBe(`bagcheck: REFUSED: ${code}: later\n`)
})

test('the token alone is printed, with --json all of the answer', async () => {
  const body = { accessToken: 'a.b.c', tokenType: 'Bearer', audience: 'https://api.example.org' }
  answer = { status: 200, body }
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
  expect(await run(argv)).toEqual({ code: 0, stdout: 'a.b.c\n', stderr: '' })
  expect(JSON.parse((await run([...argv, '--json'])).stdout)).toEqual(body)
})

test.each([{}, { accessToken: '' }, { accessToken: null }, []])(
  'an answer without a token, %j, prints nothing that passes for one',
  async (body) => {
    answer = { status: 200, body }
    const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
    const { code, stdout, stderr } = await run(argv)
    expect([code, stdout]).toEqual([3, ''])
    expect(stderr).toMatch(/^bagcheck: AGENT_UNREACHABLE: .*status 200/)
  },
)

test('a signal ends it while the agent has not answered', async () => {
  answer = 'never'
  const controller = new AbortController()
  server.once('asked', () => controller.abort(new Error('ended by SIGINT')))
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
  const { code, stderr } = await run(argv, {}, controller.signal)
  expect([code, stderr]).toEqual([3, 'bagcheck: INTERRUPTED: ended by SIGINT\n'])
})

test('an agent that is not there is named with what to do', async () => {
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', `${socket}.none`]
  expect((await run(argv)).stderr).toContain('; start bagcheck-agent, or name its socket')
})

test('a socket that does not speak HTTP is asked to be the right one', async () => {
  const grpc = join(folder, 'spiffe.sock')
  const other = createNetServer((connection) => connection.end('\0\0\x06\x04'))
  await new Promise<void>((resolve) => other.listen(grpc, resolve))
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', grpc]
  expect((await run(argv)).stderr).toContain('is it agent.sock?')
  other.close()
})
