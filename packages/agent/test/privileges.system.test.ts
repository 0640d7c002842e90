// What each capability of the measurer is for, shown by taking it away; and how processes come to have no more.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { findUser, MEASURER_CAPABILITIES } from '../src/privileges.ts'
import { call } from './fixture/client.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startProgram, type Program } from './fixture/spawn-agent.ts'
import { until } from './fixture/unit.ts'

const CONFINED = join(import.meta.dirname, 'fixture/confined-child.ts')
const THREE = '0000010000080004'
const NONE = '0000000000000000'

describe.runIf(inPrivateRoot())('a measurer that is not root', () => {
  let child: ChildProcess
  beforeAll(async () => {
    child = spawn('/bin/sleep', ['1000'])
    await until(() => readFileSync(`/proc/${child.pid}/comm`, 'utf8') === 'sleep\n')
  })
  afterAll(() => child.kill('SIGKILL'))

  const measureWith = (capabilities: readonly number[]): Record<string, unknown> => {
    const args = ['-C', '@bagcheck/source', CONFINED, '61000', String(child.pid)]
    const { stdout, stderr } = spawnSync(process.execPath, [...args, ...capabilities.map(String)], {
      encoding: 'utf8',
    })
    expect(stderr).toBe('')
    return JSON.parse(stdout) as Record<string, unknown>
  }
  const all = Object.entries(MEASURER_CAPABILITIES)

  test('measures a process of root with its three capabilities', () => {
    expect(measureWith(all.map(([, bit]) => bit))).toEqual({ measured: [child.pid] })
  })

  test.each(all)('cannot without %s', (_name, without) => {
    const rest = all.map(([, bit]) => bit).filter((bit) => bit !== without)
    expect(measureWith(rest)).toMatchObject({ code: expect.stringMatching(/^(PROC|FILE)_UNREAD/) })
  })
})

describe.runIf(inPrivateRoot())('started as root', () => {
  let directory: string
  let broker: FakeBroker
  let url: string
  let started: Program[] = []
  const socket = () => join(directory, 'run/agent.sock')

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-privileges-'))
    chmodSync(directory, 0o755)
    broker = new FakeBroker()
    url = await broker.listen()
    writeFileSync(join(directory, 'join.json'), '{}', { mode: 0o600 })
    started = []
  })
  afterEach(async () => {
    for (const { child, exit } of started) {
      child.kill('SIGKILL')
      await exit
    }
    await broker.close()
    rmSync(directory, { recursive: true })
  })

  function configure(more: object = {}): string {
    const file = join(directory, 'agent.json')
    const config = {
      installation: 'demo',
      broker: url,
      trustRootPin: PIN,
      user: '61000',
      stateDir: 'state',
      socket: 'run/agent.sock',
      joinToken: 'join.json',
      ...more,
    }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    return file
  }
  function start(...[file, ...args]: Parameters<typeof startProgram>): Program {
    const program = startProgram(file, ...args)
    started.push(program)
    return program
  }
  const childrenOf = (pid: number): string[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
  const statuses = (pid: number | string): string[] =>
    readdirSync(`/proc/${pid}/task`).map((tid) =>
      readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'),
    )

  test('the agent is a front that may do nothing and a measurer that may do three things', async () => {
    const { child, ready } = start('main.ts', '--config', configure())
    await ready
    expect((await call(socket(), 'POST', '/v1/token', { audience: 'https://a' })).status).toBe(200)
    for (const status of statuses(child.pid!)) {
      expect(status).toMatch(/^Uid:\t61000\t61000\t61000\t61000$/m)
      expect(status).toMatch(/^Gid:\t61000\t61000\t61000\t61000$/m)
      expect(status).toMatch(/^Groups:\t *$/m)
      for (const set of ['Inh', 'Prm', 'Eff', 'Amb'])
        expect(status).toContain(`Cap${set}:\t${NONE}`)
    }
    const [measurer = ''] = childrenOf(child.pid!)
    const threads = statuses(measurer)
    expect(threads.length).toBeGreaterThan(4)
    for (const status of threads) {
      for (const set of ['Prm', 'Eff', 'Bnd']) expect(status).toContain(`Cap${set}:\t${THREE}`)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
    }
  })

  test('the agent ends with its measurer, and the measurer with its agent', async () => {
    const file = configure()
    const first = start('main.ts', '--config', file)
    await first.ready
    process.kill(Number(childrenOf(first.child.pid!)[0]), 'SIGKILL')
    expect(await first.exit).toBe(3)
    expect(first.log.join('')).toContain('MEASURER_UNREACHABLE')
    const second = start('main.ts', '--config', file)
    await second.ready
    const [measurer = ''] = childrenOf(second.child.pid!)
    second.child.kill('SIGKILL')
    // Whoever inherits it need not be one who reaps.
    const ended = (): boolean =>
      !existsSync(`/proc/${measurer}`) || / Z /.test(readFileSync(`/proc/${measurer}/stat`, 'utf8'))
    await until(ended, 30_000)
  })

  test('the measurer is another user where one is named, and keeps what it saw to itself', async () => {
    const file = configure({ measurer: { user: '61001' } })
    const { child, ready } = start('main.ts', '--config', file)
    await ready
    expect((await call(socket(), 'POST', '/v1/token', { audience: 'https://a' })).status).toBe(200)
    const [measurer = ''] = childrenOf(child.pid!)
    for (const status of statuses(measurer)) {
      expect(status).toMatch(/^Uid:\t61001\t61001\t61001\t61001$/m)
      for (const set of ['Prm', 'Eff', 'Bnd']) expect(status).toContain(`Cap${set}:\t${THREE}`)
    }
  })

  test('two programs find each other, whoever is started first, and again', async () => {
    const measurer = { socket: join(directory, 'measurer/measurer.sock'), user: '61001' }
    const file = configure({ measurer })
    const front = start('main.ts', '--config', file)
    await front.ready
    const ask = () => call(socket(), 'POST', '/v1/token', { audience: 'https://a' })
    const asked = broker.evidence.length
    expect((await ask()).body).toMatchObject({ code: 'MEASURER_UNREACHABLE' })
    expect(broker.evidence).toHaveLength(asked)
    for (let round = 0; round < 2; round += 1) {
      const looking = start('measurer-main.ts', '--config', file)
      await looking.ready
      let status = 0
      for (let tries = 0; tries < 300 && status !== 200; tries += 1) {
        await setTimeout(100)
        ;({ status } = await ask())
      }
      expect(status).toBe(200)
      looking.child.kill('SIGKILL')
      await looking.exit
      expect((await ask()).status).toBe(503)
    }
  })

  test('nobody runs it as root, nor as somebody who is not there', async () => {
    for (const user of ['root', '0', 'nobody-of-that-name']) {
      const { exit, log } = start('main.ts', '--config', configure({ user }))
      expect([2, 3]).toContain(await exit)
      expect(log.join('')).toMatch(/PRIVILEGES|USER_UNKNOWN/)
    }
  })
})

describe('a user', () => {
  const passwd = 'root:x:0:0::/root:/bin/sh\nagent:x:901:902::/:/bin/false\n'
  test.each([
    ['agent', { uid: 901, gid: 902 }],
    ['901', { uid: 901, gid: 902 }],
    ['61000', { uid: 61_000, gid: 61_000 }],
  ])('%s is found', (name, user) => {
    expect(findUser(name, passwd)).toEqual(user)
  })
  test.each(['nobody', '', '0x10', '-1', 'agent:x'])('%j is not', (name) => {
    expect(() => findUser(name, passwd)).toThrow(expect.objectContaining({ code: 'USER_UNKNOWN' }))
  })
})
