// Token files of a real unit, before a broker that is told what to answer.
import { spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig, startAgent, type RunningAgent } from '../src/index.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startUnit, until, type TestUnit } from './fixture/unit.ts'

const AUDIENCE = 'https://reports.demo.test'
const WAIT_MS = 60_000

let directory: string
let file: string
let broker: FakeBroker
let agent: RunningAgent | undefined
let unit: TestUnit | undefined
const lines: string[] = []

async function start(): Promise<void> {
  const config = {
    ...{ installation: 'demo', broker: await url, trustRootPin: PIN, stateDir: 'state' },
    ...{ socket: 'run/agent.sock', unitsDir: 'run/units', joinToken: 'join.json' },
    storeCheckIntervalSeconds: 0,
    tokenFiles: [{ unit: 'sleeper', audience: AUDIENCE, path: 'tokens/api', mode: '0400' }],
  }
  agent = await startAgent(parseConfig(JSON.stringify(config), directory), {
    log: (_level, msg, fields) => lines.push(JSON.stringify({ msg, ...fields })),
    signal: AbortSignal.timeout(110_000),
  })
}

const launch = async (): Promise<TestUnit> =>
  startUnit({
    name: 'sleeper',
    unitsDir: join(directory, 'run/units'),
    command: ['/bin/busybox', 'sh', '-c', 'read line < "$0"; exec /bin/busybox sleep 1000', fifo],
  })
let url: Promise<string>
let fifo: string
const written = (): boolean => existsSync(file)

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-token-files-'))
  writeFileSync(join(directory, 'join.json'), '{"join":"token"}')
  mkdirSync(join(directory, 'tokens'), { mode: 0o700 })
  file = join(directory, 'tokens', 'api')
  fifo = join(directory, 'fifo')
  spawnSync('mkfifo', [fifo])
  broker = new FakeBroker()
  broker.tokenType = 'Bearer'
  url = broker.listen()
  lines.length = 0
})

afterEach(async () => {
  await agent?.[Symbol.asyncDispose]()
  await unit?.[Symbol.asyncDispose]()
  agent = unit = undefined
  await broker.close()
  rmSync(directory, { recursive: true })
})

describe.runIf(inPrivateRoot())('a token file', () => {
  test('appears when its unit runs, and is renewed; the evidence is about the main process', async () => {
    writeFileSync(file, 'left by an agent that was killed')
    broker.ttlSeconds = 2
    await start()
    expect(written()).toBe(false)
    await sleep(1500)
    expect([written(), broker.evidence]).toEqual([false, []])
    unit = await launch()
    await until(written, WAIT_MS)
    const first = readFileSync(file, 'utf8')
    expect(first).toMatch(/^token-\d+$/)
    expect(statSync(file).mode & 0o7777).toBe(0o400)
    expect(broker.evidence[0]).toMatchObject({
      workloadKey: null,
      instance: { pid: unit.pid },
      facts: { callerPid: unit.pid, purpose: 'issue', unit: { name: 'sleeper' } },
    })
    await until(() => readFileSync(file, 'utf8') !== first, WAIT_MS)
    expect(broker.evidence.some(({ facts }) => facts.purpose === 'renew')).toBe(true)
    expect(lines.join('\n')).not.toMatch(/token-\d/)
  })

  test('outlives a restart of the agent for as long as its token, and no denial', async () => {
    broker.ttlSeconds = 8
    await start()
    unit = await launch()
    await until(written, WAIT_MS)
    const [first, asked] = [readFileSync(file, 'utf8'), broker.evidence.length]
    const restart = async (verdict: typeof broker.verdict): Promise<void> => {
      await agent?.[Symbol.asyncDispose]()
      agent = undefined
      broker.verdict = verdict
      await start()
    }
    await restart('busy')
    expect(readFileSync(file, 'utf8')).toBe(first)
    await until(() => broker.evidence.length > asked, WAIT_MS)
    // The broker was asked and said nothing: the token lives out its life.
    await until(() => !written(), WAIT_MS)
    broker.verdict = 'allow'
    broker.ttlSeconds = 300
    await until(written, WAIT_MS)
    const second = readFileSync(file, 'utf8')
    await restart('allow')
    await until(() => written() && readFileSync(file, 'utf8') !== second, WAIT_MS)
    await restart('deny')
    await until(() => !written(), WAIT_MS)
  })

  test('is removed at a denial, and comes back when the bag is right again', async () => {
    broker.ttlSeconds = 2
    await start()
    unit = await launch()
    await until(written, WAIT_MS)
    broker.verdict = 'deny'
    await until(() => !written(), WAIT_MS)
    broker.verdict = 'allow'
    await until(written, WAIT_MS)
  })

  test('is removed when the unit ends', async () => {
    await start()
    unit = await launch()
    await until(written, WAIT_MS)
    await unit[Symbol.asyncDispose]()
    unit = undefined
    await until(() => !written(), WAIT_MS)
  })

  test('is removed when the main process executes something else', async () => {
    await start()
    unit = await launch()
    await until(written, WAIT_MS)
    writeFileSync(fifo, 'go\n')
    await until(() => !written(), WAIT_MS)
    const asked = broker.evidence.length
    await sleep(2500)
    // The record's contract is broken: it is nobody's main process any more, and nothing is asked for it.
    expect([written(), broker.evidence.length]).toEqual([false, asked])
  })

  test('never holds a token that is bound to a key', async () => {
    broker.tokenType = 'DPoP'
    await start()
    unit = await launch()
    await until(() => lines.some((line) => line.includes('TOKEN_FILE_BOUND')), WAIT_MS)
    expect(written()).toBe(false)
  })

  test('is not written for a process outside of its unit, whatever it calls itself', async () => {
    await start()
    const child = spawn('/bin/busybox', ['sleep', '1000'], { argv0: 'sleeper', stdio: 'ignore' })
    await sleep(2500)
    child.kill('SIGKILL')
    expect([written(), broker.evidence]).toEqual([false, []])
  })
})
