import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { call } from './fixture/client.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'

const MAIN = join(import.meta.dirname, '../src/main.ts')

describe.runIf(inPrivateRoot())('bagcheck-agent', () => {
  let directory: string
  let broker: FakeBroker
  let config: string

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-main-'))
    broker = new FakeBroker()
    config = join(directory, 'agent.json')
    const values = {
      installation: 'demo',
      broker: await broker.listen(),
      trustRootPin: PIN,
      stateDir: 'state',
      socket: 'agent.sock',
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

  function start(...args: string[]) {
    const child = spawn(process.execPath, ['-C', '@bagcheck/source', MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const log: string[] = []
    child.stderr.on('data', (chunk: Buffer) => log.push(chunk.toString()))
    const ready = new Promise<string>((resolve) =>
      createInterface({ input: child.stdout }).once('line', resolve),
    )
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve))
    return { child, ready, exit, log }
  }

  test('says when it is ready, serves, and stops when told', async () => {
    const { child, ready, exit } = start('--config', config)
    expect(JSON.parse(await ready)).toMatchObject({ msg: 'ready', node: 'demo-1' })
    const socket = join(directory, 'agent.sock')
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
    expect(statSync(join(directory, 'agent.sock')).isSocket()).toBe(true)
    const second = start('--config', config)
    await second.ready
    const audience = 'https://a'
    const socket = join(directory, 'agent.sock')
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
