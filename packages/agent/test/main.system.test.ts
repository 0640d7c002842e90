import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { call } from './fixture/client.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startProgram } from './fixture/spawn-agent.ts'

describe.runIf(inPrivateRoot())('bagcheck-agent', () => {
  let directory: string
  let broker: FakeBroker
  let config: string

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-main-'))
    chmodSync(directory, 0o755)
    broker = new FakeBroker()
    config = join(directory, 'agent.json')
    const values = {
      installation: 'demo',
      broker: await broker.listen(),
      trustRootPin: PIN,
      user: '61000',
      stateDir: 'state',
      socket: 'run/agent.sock',
      unitsDir: 'units',
      joinToken: 'join.json',
    }
    writeFileSync(config, JSON.stringify(values))
    writeFileSync(join(directory, 'join.json'), '{}')
  })
  afterEach(async () => {
    await broker.close()
    rmSync(directory, { recursive: true })
  })

  const start = (...args: string[]) => startProgram('main.ts', ...args)

  test('says when it is ready, serves, and stops when told', async () => {
    const { child, ready, exit } = start('--config', config)
    expect(JSON.parse(await ready)).toMatchObject({ msg: 'ready', node: 'demo-1' })
    const socket = join(directory, 'run/agent.sock')
    expect((await call(socket, 'GET', '/healthz')).body).toMatchObject({
      status: 'ok',
      node: 'demo-1',
    })
    child.kill('SIGTERM')
    expect(await exit).toBe(0)
  })

  test('takes its place again after kill -9, without enrolling twice', async () => {
    const first = start('--config', config)
    await first.ready
    first.child.kill('SIGKILL')
    await first.exit
    expect(statSync(join(directory, 'run/agent.sock')).isSocket()).toBe(true)
    const second = start('--config', config)
    await second.ready
    const audience = 'https://a'
    const socket = join(directory, 'run/agent.sock')
    expect((await call(socket, 'POST', '/v1/token', { audience })).status).toBe(200)
    expect(broker.enrolments).toHaveLength(1)
    // A second agent on this state would count the same numbers, and look like a cloned key.
    expect(await start('--config', config).exit).toBe(3)
    second.child.kill('SIGTERM')
    await second.exit
  })

  test.each(['JOIN_TOKEN_USED', 'NODE_KEY_KNOWN'])(
    'ends with 3 and %s when the broker refuses to enrol it, and does not go on asking',
    async (code) => {
      broker.enrolmentRefusal = { status: 409, code }
      const { exit, log } = start('--config', config)
      expect(await exit).toBe(3)
      expect(log.join('')).toContain(code)
      expect(log.join('')).not.toContain('not enrolled yet')
    },
  )

  test('ends with 2 for a bad configuration and with 3 where it cannot run', async () => {
    expect(await start().exit).toBe(2)
    expect(await start('--config', '/nonexistent').exit).toBe(2)
    expect(await start('--nonsense').exit).toBe(2)
    rmSync(join(directory, 'join.json'))
    expect(await start('--config', config).exit).toBe(3)
  })
})
