// Observation of real units, before a broker that says what it would decide.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig, startAgent, type RunningAgent } from '../src/index.ts'
import { call, fetchText } from './fixture/client.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startUnit, until, type TestUnit } from './fixture/unit.ts'

const WAIT_MS = 60_000
const AUDIENCES = ['https://one.demo.test', 'https://two.demo.test']

let directory: string
let broker: FakeBroker
let agent: RunningAgent | undefined
const units: TestUnit[] = []
const lines: string[] = []

async function start(observeIntervalSeconds: number): Promise<void> {
  const config = {
    ...{ installation: 'demo', broker: await broker.listen(), trustRootPin: PIN },
    ...{ stateDir: 'state', socket: 'run/agent.sock', unitsDir: 'run/units' },
    ...{ joinToken: 'join.json', storeCheckIntervalSeconds: 0, observeIntervalSeconds },
  }
  agent = await startAgent(parseConfig(JSON.stringify(config), directory), {
    log: (_level, msg, fields) => lines.push(JSON.stringify({ msg, ...fields })),
    signal: AbortSignal.timeout(110_000),
  })
}

const launch = async (name: string): Promise<void> => {
  const command = ['/bin/busybox', 'sleep', '1000'] as const
  units.push(
    await startUnit({ name, unitsDir: join(directory, 'run/units'), command: [...command] }),
  )
}

const role = (name: string, observe: boolean) => ({
  ...{ unit: { launcher: 'bagcheck-exec', name }, roots: [], observe },
  audiences: Object.fromEntries(AUDIENCES.map((audience) => [audience, {}])),
})

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-observe-'))
  writeFileSync(join(directory, 'join.json'), '{"join":"token"}')
  broker = new FakeBroker()
  broker.policy = {
    version: 1,
    trustDomain: 'demo.test',
    roles: { silent: role('silent', true), other: role('other', false) },
  }
  lines.length = 0
})

afterEach(async () => {
  await agent?.[Symbol.asyncDispose]()
  agent = undefined
  for (const unit of units.splice(0)) await unit[Symbol.asyncDispose]()
  await broker.close()
  rmSync(directory, { recursive: true })
})

describe.runIf(inPrivateRoot())('an agent observes', () => {
  test('a unit that never calls, for all its audiences, and none that the policy does not name', async () => {
    await launch('silent')
    await launch('other')
    await start(0.2)
    const seen = (): Set<string> => new Set(broker.observations.map(({ facts }) => facts.audience))
    await until(() => seen().size === 2, WAIT_MS)
    const [first] = broker.observations
    expect(first).toMatchObject({
      ...{ schema: 'bagcheck.observation/v1', iss: 'demo-1', installation: 'demo' },
      facts: { purpose: 'observe', unit: { name: 'silent' }, callerPid: units[0]?.pid },
    })
    expect(new Set(broker.observations.map(({ facts }) => facts.unit.name))).toEqual(
      new Set(['silent']),
    )
    const counters = broker.observations.map(({ counter }) => counter)
    expect(counters).toEqual([...new Set(counters)].toSorted((a, b) => a - b))
    expect(broker.evidence).toEqual([])
    const { text } = await fetchText(agent?.socket ?? '', '/metrics')
    expect(text).toContain(
      `observed_would_allow{launcher="bagcheck-exec",unit="silent",audience="${AUDIENCES[0]}"} 1\n`,
    )
    expect(text).toMatch(/observations_total\{code="WOULD_ALLOW"\} \d/)
    expect(text).toContain('tokens_held 0\n')
  })

  test('what would be denied, says so, and drops nothing for it', async () => {
    await launch('silent')
    await start(0.2)
    await call(agent?.socket ?? '', 'POST', '/v1/token', { audience: AUDIENCES[0] })
    broker.wouldDeny = 'CLOSURE_NOT_APPROVED'
    await until(() => lines.some((line) => line.includes('"wouldAllow":false')), WAIT_MS)
    const { text } = await fetchText(agent?.socket ?? '', '/metrics')
    expect(text).toContain('tokens_held 1\n')
    expect(text).toMatch(/observations_total\{code="CLOSURE_NOT_APPROVED"\} \d/)
  })

  test('nothing once the policy wants nothing observed', async () => {
    await launch('silent')
    await start(0.2)
    await until(() => broker.observations.length > 0, WAIT_MS)
    broker.policy = {
      version: 2,
      trustDomain: 'demo.test',
      roles: { silent: role('silent', false) },
    }
    await until(() => lines.some((line) => line.includes('"version":2')), WAIT_MS)
    const before = broker.observations.length
    const looked = broker.challenges
    await until(() => broker.challenges > looked + 2, WAIT_MS)
    expect(broker.observations).toHaveLength(before)
  })
})
