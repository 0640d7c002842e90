// What follows a denial: which requests the privileged part takes, and where a webhook goes.
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createConnection, createServer as createNetServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { selfSignedCertificate } from '@bagcheck/testkit'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { rollbackArguments } from '../../src/actions/rollback.ts'
import { createActionServer, listenForActions, restartService } from '../../src/actions/server.ts'
import { Actions } from '../../src/front/actions/actions.ts'
import {
  parseActions,
  type RollbackAction,
  type WebhookAction,
} from '../../src/front/actions/config.ts'
import { AgentError } from '../../src/error.ts'
import { requestAction } from '../../src/front/actions/request.ts'
import { deliver } from '../../src/front/actions/webhook.ts'
import { signingKey } from '../../src/front/jws.ts'
import type { Denial, InstanceDenied } from '../../src/front/outcomes.ts'
import { decode } from '../fixture/fake-broker.ts'

const key = signingKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const RESTART = {
  ...{ id: 'again', do: 'restart', minIntervalSeconds: 60 },
  on: { units: ['orders.service', 'ledger.service'] },
}
const ROLLBACK = {
  ...{ id: 'back', do: 'rollback', profile: '/nix/var/nix/profiles/orders' },
  on: { units: ['orders.service'] },
}
const parse = (...entries: unknown[]) => parseActions(entries, (path) => `/etc/${path}`)

const denial: Denial = {
  ...{ at: 1000, pid: 7, startTicks: 9, audience: 'https://a', code: 'TRACED', message: 'no' },
  ...{ decision: 'd', reasons: [], offence: null },
  unit: { launcher: 'systemd', name: 'orders.service', cgroup: '/system.slice/orders.service' },
}

let directory: string
let socket: string
const closing: Server[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-actions-'))
  socket = join(directory, 'actions.sock')
})
afterEach(async () => {
  for (const server of closing.splice(0)) {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  rmSync(directory, { recursive: true })
})

describe('the configuration of actions', () => {
  test('has defaults that make no storm', () => {
    const [action] = parse({ id: 'x', do: 'restart', on: { units: ['a.service'] } })
    expect(action).toMatchObject({ codes: null, afterSeconds: 0, minIntervalSeconds: 300 })
  })

  test.each([
    ['no unit', { ...RESTART, on: { units: [] } }],
    ['an option for a unit', { ...RESTART, on: { units: ['--now.service'] } }],
    ['a path for a unit', { ...RESTART, on: { units: ['../x.service'] } }],
    ['a unit that nobody starts again', { ...RESTART, on: { units: ['orders'] } }],
    ['a restart each second', { ...RESTART, minIntervalSeconds: 1 }],
    ['a command', { ...RESTART, do: 'exec' }],
    ['an unknown key', { ...RESTART, command: 'x' }],
    ['a webhook in the clear', { ...RESTART, do: 'webhook', url: 'http://hooks.example/x' }],
    [
      'a webhook with a password',
      { ...RESTART, do: 'webhook', url: 'https://me:pw@hooks.example' },
    ],
    ['a webhook without an address', { ...RESTART, do: 'webhook' }],
    ['a restart with a profile', { ...RESTART, profile: '/nix/var/nix/profiles/orders' }],
    ['a rollback without a profile', { ...ROLLBACK, profile: undefined }],
    ['a rollback of a relative profile', { ...ROLLBACK, profile: 'profiles/orders' }],
    ['a rollback with an option for a profile', { ...ROLLBACK, profile: '--policy' }],
    ['a rollback of two services', { ...ROLLBACK, on: RESTART.on }],
    ['a rollback of a unit that nobody starts again', { ...ROLLBACK, on: { units: ['orders'] } }],
    ['a rollback with an address', { ...ROLLBACK, url: 'https://h.example' }],
    ['a rollback of an odd class', { ...ROLLBACK, hostClass: '--state=/tmp' }],
  ])('%s is refused', (_what, entry) => {
    expect(() => parse(entry)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })

  test('a rollback waits for an hour, and may be of a system for many services', () => {
    const system = { ...ROLLBACK, id: 'system', on: RESTART.on, hostClass: 'web' }
    expect(parse(ROLLBACK, system)).toMatchObject([
      { minIntervalSeconds: 3600, hostClass: null, profile: ROLLBACK.profile },
      { hostClass: 'web' },
    ])
  })

  test('a rollback is called with what is configured, and the unit', () => {
    const [action] = parse(ROLLBACK) as [RollbackAction]
    const config = {
      ...{ socket: '/run/bagcheck/agent.sock', trustRootPin: 'a'.repeat(64) },
      ...{ installation: 'demo', nix: { daemonSocket: '/none', database: '/db' } },
    }
    expect(rollbackArguments(action, 'orders.service', config, '/state')).toEqual([
      ...['rollback', ROLLBACK.profile, '--json', '--unit', 'orders.service'],
      ...['--policy', '/run/bagcheck/policy.json', '--trust', `sha256:${'a'.repeat(64)}`],
      ...['--installation', 'demo', '--state', '/state', '--min-interval', '3600'],
      ...['--source', 'database', '--daemon-socket', '/none', '--database', '/db'],
    ])
    const system = rollbackArguments({ ...action, hostClass: 'web' }, 'a.service', config, '/s')
    expect(system).not.toContain('a.service')
    expect(system.slice(3, 5)).toEqual(['--host-class', 'web'])
  })

  test('two of one name are refused', () => {
    expect(() => parse(RESTART, RESTART)).toThrow('twice')
  })
})

describe('the process that restarts', () => {
  let nowMs = 0
  let restarted: string[]

  beforeEach(async () => {
    nowMs = 0
    restarted = []
    const server = createActionServer({
      actions: parse(
        RESTART,
        { ...RESTART, id: 'hook', do: 'webhook', url: 'https://h.example' },
        { ...ROLLBACK, minIntervalSeconds: 60 },
      ),
      perform: ({ id }, unit) => {
        restarted.push(id === 'again' ? unit : `${id} ${unit}`)
        if (id === 'again') return Promise.resolve({})
        const detail = { reason: 'ROLLBACK_NONE' }
        return Promise.reject(new AgentError('ACTION_FAILED', 'no rollback', { detail }))
      },
      now: () => nowMs,
      log: () => undefined,
    })
    await listenForActions(server, socket)
    closing.push(
      Object.assign(server, { closeAllConnections: () => undefined }) as unknown as Server,
    )
  })

  /** What it answers to raw bytes. */
  const say = (text: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const connection = createConnection(socket)
      let answer = ''
      connection.on('data', (chunk: Buffer) => (answer += chunk.toString()))
      connection.on('end', () => resolve(answer))
      connection.on('error', reject)
      connection.end(text)
    })

  test('does what is configured, and is reached by its owner alone', async () => {
    await requestAction(socket, {
      ...{ action: 'again', unit: 'orders.service', what: 'restart' as const },
    })
    expect(restarted).toEqual(['orders.service'])
    expect(statSync(socket).mode & 0o777).toBe(0o600)
  })

  test('changes nothing else when somebody puts a link in the place of its socket', async () => {
    const victim = join(directory, 'victim')
    const place = join(directory, 'swapped.sock')
    writeFileSync(victim, 'x', { mode: 0o644 })
    const server = createNetServer()
    server.once('listening', () => {
      rmSync(place)
      symlinkSync(victim, place)
    })
    await listenForActions(server, place)
    closing.push(
      Object.assign(server, { closeAllConnections: () => undefined }) as unknown as Server,
    )
    expect(statSync(victim).mode & 0o777).toBe(0o644)
  })

  test.each([
    ['a unit that no action lists', { action: 'again', unit: 'sshd.service' }],
    ['a unit with an option in its name', { action: 'again', unit: '--force.service' }],
    ['a unit with a command in its name', { action: 'again', unit: 'orders.service; reboot' }],
    ['two units in one', { action: 'again', unit: 'orders.service sshd.service' }],
    ['a list of units', { action: 'again', unit: ['orders.service'] }],
    ['an action that is not configured', { action: 'other', unit: 'orders.service' }],
    ['an action that is no restart', { action: 'hook', unit: 'orders.service' }],
    ['a rollback of a unit that it does not list', { action: 'back', unit: 'ledger.service' }],
    ['a generation', { action: 'back', unit: 'orders.service', generation: 1 }],
    ['a profile', { action: 'back', unit: 'orders.service', profile: '/tmp/evil' }],
    ['a member more', { action: 'again', unit: 'orders.service', verb: 'stop' }],
  ])('refuses %s', async (_what, request) => {
    const answer = await say(`${JSON.stringify({ schema: 'bagcheck.action/v1', ...request })}\n`)
    expect(JSON.parse(answer)).toEqual({ ok: false, code: 'ACTION_REFUSED' })
    expect(restarted).toEqual([])
  })

  test.each(['', 'restart orders.service\n', '{}', '[]', 'null', 'x'.repeat(5000)])(
    'refuses %j',
    async (text) => {
      expect(JSON.parse(await say(text))).toEqual({ ok: false, code: 'ACTION_REFUSED' })
      expect(restarted).toEqual([])
    },
  )

  test('says why nothing was rolled back', async () => {
    const back = { action: 'back', unit: 'orders.service', what: 'rollback' as const }
    await expect(requestAction(socket, back)).rejects.toThrow('ROLLBACK_NONE')
    expect(restarted).toEqual(['back orders.service'])
    await expect(requestAction(socket, back)).rejects.toThrow('ACTION_LIMIT')
  })

  test('makes no storm of a workload that flaps, nor of an agent that was taken over', async () => {
    const ask = (unit: string) =>
      requestAction(socket, { action: 'again', unit, what: 'restart' }).then(
        () => 'done',
        () => 'refused',
      )
    expect([await ask('orders.service'), await ask('orders.service')]).toEqual(['done', 'refused'])
    nowMs += 60_000
    expect(await ask('orders.service')).toBe('done')
    expect(restarted).toHaveLength(2)
  })

  test('puts nothing into a command but the name of a service', async () => {
    await expect(restartService('--now')).rejects.toThrow(TypeError)
    await expect(restartService('a.service\nb.service')).rejects.toThrow(TypeError)
  })
})

describe('a webhook', () => {
  const heard: { url: string; body: string }[] = []
  const hook = (url: string): WebhookAction => ({
    ...{ id: 'tell', do: 'webhook', url, ca: null, units: ['orders.service'], codes: null },
    ...{ afterSeconds: 0, minIntervalSeconds: 10 },
  })
  const context = (overrides: { signal?: AbortSignal } = {}) => ({
    ...{ node: 'demo-1', installation: 'demo', key, now: () => 5000, backoffMs: 1 },
    ...{ deadLetters: join(directory, 'dead.jsonl'), signal: new AbortController().signal },
    ...overrides,
  })
  const listen = async (path: string, status: () => number, location?: string): Promise<string> => {
    const server = createServer((request, response) => {
      let body = ''
      request.on('data', (chunk: Buffer) => (body += chunk.toString()))
      request.on('end', () => {
        heard.push({ url: request.url ?? '', body })
        response.writeHead(status(), location === undefined ? {} : { location })
        response.end('{"secret":"of the receiver"}')
      })
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    closing.push(server)
    return `unix:${path}`
  }
  beforeEach(() => void (heard.length = 0))

  test('is signed by the node, for this receiver', async () => {
    const url = await listen(join(directory, 'hook.sock'), () => 204)
    await deliver(hook(url), denial, context())
    const { header, payload } = decode(heard[0]?.body ?? '')
    expect(header).toEqual({ alg: 'ES256', typ: 'bagcheck-event+jwt', kid: key.thumbprint })
    expect(payload).toMatchObject({
      ...{ iss: 'demo-1', aud: url, iat: 5, event: 'unit-denied', action: 'tell' },
      ...{ installation: 'demo', denial: { code: 'TRACED', unit: { name: 'orders.service' } } },
    })
  })

  test('tells no secret that was an argument', async () => {
    const url = await listen(join(directory, 'hook.sock'), () => 204)
    const message = 'saw the arguments ["--password","hunter2"]'
    const offence = { path: '/x', kind: 'ARGUMENTS_MISMATCH', expected: '', seen: message }
    const reasons = [{ code: 'ARGUMENTS_MISMATCH', message }]
    await deliver(hook(url), { ...denial, message, reasons, offence }, context())
    const { payload } = decode(heard[0]?.body ?? '')
    expect(JSON.stringify(payload)).toContain('[redacted]')
    expect(JSON.stringify(payload)).not.toContain('hunter2')
  })

  test('is tried again with back-off, and kept when nobody takes it; the newest hundred are', async () => {
    const answers = [500, 503, 200]
    const url = await listen(join(directory, 'hook.sock'), () => answers.shift() ?? 500)
    await deliver(hook(url), denial, context())
    expect(heard).toHaveLength(3)
    for (let n = 0; n < 102; n += 1)
      await expect(deliver(hook('unix:/nowhere/hook.sock'), denial, context())).rejects.toThrow(
        'no answer',
      )
    const letters = readFileSync(join(directory, 'dead.jsonl'), 'utf8').trimEnd().split('\n')
    expect(letters).toHaveLength(100)
    expect(JSON.parse(letters[0] ?? '')).toMatchObject({ action: 'tell', status: 0 })
    expect(statSync(join(directory, 'dead.jsonl')).mode & 0o777).toBe(0o600)
  })

  test('follows no redirect, wherever it leads', async () => {
    const inner = join(directory, 'inner.sock')
    await listen(inner, () => 200)
    for (const location of [
      'http://169.254.169.254/latest',
      `unix:${inner}`,
      'https://other.example/',
    ]) {
      const url = await listen(join(directory, `hook-${heard.length}.sock`), () => 307, location)
      const before = heard.length
      await expect(deliver(hook(url), denial, context())).rejects.toThrow('saw 307')
      expect(heard).toHaveLength(before + 1)
    }
  })

  test('is not sent to a host that cannot prove its name', async () => {
    const server = createTlsServer(selfSignedCertificate(), (_request, response) => response.end())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    closing.push(server as unknown as Server)
    const url = `https://localhost:${(server.address() as AddressInfo).port}/`
    await expect(deliver(hook(url), denial, context())).rejects.toThrow('no answer')
  })
})

describe('what follows a denial', () => {
  const listeners: ((event: InstanceDenied) => void)[] = []
  const requested: string[] = []
  let nowMs = 0
  let stillDenied = true
  const actions = async (entries: unknown[]): Promise<Actions> => {
    listeners.length = requested.length = 0
    const raw = createNetServer({ allowHalfOpen: true }, (connection) => {
      connection.on('data', (chunk: Buffer) => requested.push(chunk.toString()))
      connection.on('end', () => connection.end('{"ok":true}\n'))
    })
    await new Promise<void>((resolve) => raw.listen(socket, resolve))
    closing.push(Object.assign(raw, { closeAllConnections: () => undefined }) as unknown as Server)
    return new Actions(parse(...entries), {
      outcomes: {
        subscribe: (listener) => {
          listeners.push(listener)
          return () => undefined
        },
        isDenied: () => stillDenied,
      },
      ...{ key, node: 'demo-1', installation: 'demo', log: () => undefined, now: () => nowMs },
      ...{ actionsSocket: socket, deadLetters: join(directory, 'dead.jsonl'), backoffMs: 1 },
    })
  }
  const deny = (changes: Partial<Denial> = {}): void => {
    for (const listener of listeners)
      listener({ denial: { ...denial, ...changes } } as unknown as InstanceDenied)
  }
  const settled = async (count: number): Promise<void> => {
    for (let n = 0; n < 2000 && requested.length < count; n += 1) await turn()
    expect(requested).toHaveLength(count)
  }

  test('is once for a unit within the interval, and only for listed units and codes', async () => {
    stillDenied = true
    await using _ = await actions([{ ...RESTART, on: { ...RESTART.on, codes: ['TRACED'] } }])
    deny({ unit: { launcher: 'systemd', name: 'sshd.service', cgroup: '/x' } })
    deny({ unit: { launcher: 'bagcheck-exec', name: 'orders.service', cgroup: '/x' } })
    for (const cgroup of [
      '/docker/1/orders.service',
      '/orders.service/x',
      '/x/system.slice/orders.service',
    ])
      deny({ unit: { launcher: 'systemd', name: 'orders.service', cgroup } })
    deny({ code: 'UID_NOT_ALLOWED' })
    deny({ unit: null })
    for (let n = 0; n < 50; n += 1) deny()
    await settled(1)
    expect(JSON.parse(requested[0] ?? '')).toEqual({
      ...{ schema: 'bagcheck.action/v1', action: 'again', unit: 'orders.service' },
    })
    nowMs += 60_000
    deny()
    await settled(2)
  })

  test('is nothing if the unit has a token again by then', async () => {
    stillDenied = false
    const running = await actions([RESTART])
    deny()
    await running[Symbol.asyncDispose]()
    expect(requested).toEqual([])
  })
})
