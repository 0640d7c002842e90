import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { selfSignedCertificate } from '@bagcheck/testkit'
import { expect, test } from 'vitest'
import { run } from './transcript.ts'

test('doctor says that workloads cannot reach a socket in a directory of root alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bagcheck-doctor-'))
  try {
    const socket = join(folder, 'agent.sock')
    writeFileSync(socket, '')
    chmodSync(folder, 0o700)
    const { code, stdout } = await run(['doctor', '--agent', socket, '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      findings: expect.arrayContaining([
        expect.objectContaining({
          what: 'agent',
          state: 'missing',
          remedy: `chmod o+x ${folder}`,
        }),
      ]),
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

const HEALTH = { node: 'node-1', nodeClass: 'web', expiresAt: 1_800_000_000, policyVersion: 3 }
const AWAY = {
  ...{ error: 'temporarily_unavailable', code: 'MEASURER_UNREACHABLE' },
  error_description: 'the measurer is away; is bagcheck-measurer running?',
}
test.each([
  [200, HEALTH, 'ok', 'node-1 of class web until 2027-01-15T08:00:00.000Z, policy version 3'],
  [503, AWAY, 'missing', 'MEASURER_UNREACHABLE: the measurer is away; is bagcheck-measurer'],
])('doctor says what an agent says of itself: %i', async (status, body, state, seen) => {
  const folder = mkdtempSync(join(tmpdir(), 'bagcheck-doctor-'))
  chmodSync(folder, 0o755)
  const socket = join(folder, 'agent.sock')
  const server = createServer((_request, response) => {
    response.writeHead(status)
    response.end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  try {
    const { stdout } = await run(['doctor', '--agent', socket, '--json'])
    const { findings } = JSON.parse(stdout) as { findings: { what: string }[] }
    const agent = findings.find(({ what }) => what === 'agent')
    expect(agent).toMatchObject({ state, seen: expect.stringContaining(seen) })
  } finally {
    server.close()
    rmSync(folder, { recursive: true })
  }
})

const NOT_READY = {
  ready: false,
  checks: [{ name: 'policy', ok: false, detail: 'POLICY_MISSING' }],
}
const notReady: RequestListener = (_request, response) => {
  response.writeHead(503, { 'content-type': 'application/json' })
  response.end(JSON.stringify(NOT_READY))
}
test.each([
  ['is not ready', createServer(notReady), 'http', 'not ready; policy: POLICY_MISSING'],
  [
    'nobody vouches for',
    createTlsServer(selfSignedCertificate(), notReady),
    'https',
    '--broker-ca',
  ],
])('doctor says why of a broker that %s', async (_what, server, scheme, seen) => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  try {
    const url = `${scheme}://127.0.0.1:${port}`
    const { code, stdout } = await run(['doctor', '--broker', url, '--json'])
    expect(code).toBe(1)
    const { findings } = JSON.parse(stdout) as { findings: { what: string }[] }
    const broker = findings.find(({ what }) => what === 'broker')
    expect(broker).toMatchObject({ state: 'missing', seen: expect.stringContaining(seen) })
  } finally {
    server.close()
  }
})
