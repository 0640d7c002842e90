// `bagcheck token` against a socket that answers as the agent does.
import { createServer, type Server } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from './transcript.ts'

let folder: string
let socket: string
let server: Server
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-token-'))
  socket = join(folder, 'agent.sock')
  server = createServer((_request, response) => {
    response.writeHead(403, { 'content-type': 'application/json' })
    response.end(
      JSON.stringify({
        error: 'access_denied',
        error_description: 'nobody approved it',
        code: 'CLOSURE_NOT_APPROVED',
        reasons: [{ code: 'CLOSURE_NOT_APPROVED', message: 'nobody approved it' }],
        decision: '01a20d4a-14ad-79ee-891c-929323d966c2',
      }),
    )
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
})
afterEach(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

test('a denial says each reason once, and the decision to explain', async () => {
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', socket]
  const { code, stderr } = await run(argv)
  expect(code).toBe(1)
  expect(stderr.match(/nobody approved it/g)).toHaveLength(1)
  expect(stderr).toContain('decision 01a20d4a-14ad-79ee-891c-929323d966c2')
})

test('an agent that is not there is named with what to do', async () => {
  const argv = ['token', '--audience', 'https://api.example.org', '--agent', `${socket}.none`]
  expect((await run(argv)).stderr).toContain('; start bagcheck-agent, or name its socket')
})
