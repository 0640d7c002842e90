// `bagcheck explain PID` against a socket that answers as the agent does.
import { createServer, type Server } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

const ROOT = '/nix/store/00000000000000000000000000000000-orders-1.1'
const explanation = {
  ...{ pid: 4711, startTicks: 9, policyVersion: 3, lastOf: 'process', observed: null as unknown },
  now: {
    measured: true,
    unit: {
      ...{ launcher: 'systemd', name: 'orders.service', cgroup: '/system.slice/orders.service' },
      contract: { executable: `${ROOT}/bin/orders`, arguments: ['--x'], intact: true },
    } as unknown,
    processes: [
      {
        ...{
          pid: 4711,
          uid: 990,
          files: [{ path: '/tmp/evil.so', isStoreFile: false, unlinked: false }],
        },
        executable: { path: `${ROOT}/bin/orders`, isStoreFile: true, unlinked: false },
      },
    ],
    moreProcesses: 0,
    roots: [{ root: ROOT, closureDigest: 'ab'.repeat(32), strength: 'path-claim', mismatch: null }],
  } as unknown,
  last: {
    ...{
      allowed: false,
      at: 0,
      audience: 'https://a',
      decision: 'd-1',
      code: 'CLOSURE_NOT_APPROVED',
    },
    message: 'nobody approved it',
    reasons: [
      {
        ...{ code: 'CLOSURE_NOT_APPROVED', message: 'nobody approved it' },
        nearest: {
          root: '/nix/store/x-orders-1.0',
          closureDigest: 'cd',
          firstDifference: 'another orders',
        },
      },
    ],
    offence: {
      path: `${ROOT}/bin/orders`,
      kind: 'CLOSURE_NOT_APPROVED',
      expected: '/nix/store/x-orders-1.0',
      seen: ROOT,
    },
  } as unknown,
}

let folder: string
let socket: string
let server: Server
let answer: { status: number; body: unknown }
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-explain-'))
  socket = join(folder, 'agent.sock')
  answer = { status: 200, body: explanation }
  server = createServer((request, response) => {
    expect(request.url).toBe('/v1/explain?pid=4711')
    response.writeHead(answer.status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer.body))
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
})
afterEach(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

const explain = (...more: string[]) => run(['explain', '4711', '--agent', socket, ...more])

describe('bagcheck explain PID', () => {
  test('tells the unit, what fits, the first object, the reason, the nearest closure and the remedy', async () => {
    const { code, stdout } = await explain()
    expect(code).toBe(1)
    for (const part of [
      'systemd unit orders.service',
      'maps /tmp/evil.so, which is no file of the store',
      `fits      ${ROOT} (by the word of the local Nix`,
      'last      DENIED at 1970-01-01T00:00:00.000Z for audience https://a: decision d-1',
      `first     ${ROOT}/bin/orders (CLOSURE_NOT_APPROVED): expected /nix/store/x-orders-1.0`,
      'nearest approved: /nix/store/x-orders-1.0',
      'first difference: another orders',
      'to pass   deploy an approved closure',
    ])
      expect(stdout).toContain(part)
  })

  test('is 0 where the last request was allowed, and whole with --json', async () => {
    const last = { allowed: true, at: 0, audience: 'https://a', decision: 'd-2' }
    answer.body = { ...explanation, last }
    const { code, stdout } = await explain('--json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toEqual({ ...explanation, last })
  })

  test('is 1 where nothing was asked for, and says so and how to start a unit', async () => {
    const now = {
      ...(explanation.now as object),
      unit: { launcher: 'none', name: '', cgroup: '/user', contract: null },
    }
    answer.body = { ...explanation, now, last: null, lastOf: null }
    const { code, stdout } = await explain()
    expect(code).toBe(1)
    expect(stdout).toContain('asked for nothing')
    expect(stdout).toContain('start it with bagcheck exec')
  })

  test('tells the file that differs, the users, and what to do where nothing fits', async () => {
    const mismatch = {
      ...{ path: ROOT, file: `${ROOT}/lib/a`, kind: 'size' },
      ...{ expected: '1 bytes', seen: '2 bytes' },
    }
    const now = explanation.now as { roots: object[] }
    const roots = [{ ...now.roots[0], strength: 'full', mismatch }]
    answer.body = { ...explanation, now: { ...now, roots } }
    const { stdout } = await explain()
    expect(stdout).toContain(`but ${ROOT}/lib/a differs (size)`)
    expect(stdout).toContain('of uid 990, under policy version 3')
    answer.body = { ...explanation, now: { ...now, roots: [] } }
    expect((await explain()).stdout).toContain('name the unit in a role of the policy')
    answer.body = { ...explanation, policyVersion: 0, now: { ...now, roots: [] } }
    expect((await explain()).stdout).toContain('let the unit ask')
  })

  test('tells what was observed, and a process that cannot be measured', async () => {
    answer.body = {
      ...explanation,
      now: { measured: false, code: 'PROCESS_HIDDEN', error: 'a process is hidden' },
      observed: {
        at: 0,
        audience: 'https://a',
        would_allow: false,
        reasons: [{ code: 'TRACED', message: 'traced' }],
      },
    }
    const { stdout } = await explain()
    expect(stdout).toContain('cannot be measured: PROCESS_HIDDEN')
    expect(stdout).toContain('would have been denied for https://a')
    expect(stdout).toContain('detach the tracer')
  })

  test('says what the agent refuses, and 3 where it cannot be understood or reached', async () => {
    answer = {
      status: 400,
      body: {
        error: 'invalid_request',
        error_description: 'expected root',
        code: 'REQUEST_INVALID',
      },
    }
    const refused = await explain()
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('expected root')])
    answer = { status: 200, body: { pid: 4711 } }
    expect((await explain()).code).toBe(3)
    expect((await run(['explain', '4711', '--agent', `${socket}.none`])).code).toBe(3)
  })
})

test.each([
  [['decisions', '--denied', '--observed', '--admin', 'x'], 'not both'],
  [['decisions', '--limit', '0', '--admin', 'x'], '--limit'],
  [['decisions', '--before', '-1', '--admin', 'x'], '--before'],
])('%s is a mistake of usage', async (argv, message) => {
  const { code, stderr } = await run(argv)
  expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
})
