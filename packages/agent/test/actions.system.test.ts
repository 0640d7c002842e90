// `bagcheck-agent --actions` as a service of a real systemd, asked by another process.
import { realpathSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { startSystemd, systemdAvailable, type TestSystemd } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { inPrivateRoot } from './fixture/private-root.ts'
import { until } from './fixture/unit.ts'

const REPOSITORY = resolve(import.meta.dirname, '../../..')
const MAIN = join(REPOSITORY, 'packages/agent/src/main.ts')
const ETC = '/etc/systemd/system'
const SOCKET = '/run/bagcheck-actions/actions.sock'
const sleep = realpathSync('/bin/sleep')
const CONFIG = {
  ...{ installation: 'demo', broker: 'http://127.0.0.1:1', trustRootPin: 'a'.repeat(64) },
  actions: [
    { id: 'again', do: 'restart', on: { units: ['orders.service'] }, minIntervalSeconds: 86_400 },
  ],
}
/** Asks as the agent does, and prints what came of it. */
const ASK = `import { requestAction } from ${JSON.stringify(join(REPOSITORY, 'packages/agent/src/front/actions/request.ts'))}
const [unit] = process.argv.slice(2)
await requestAction('${SOCKET}', { action: 'again', unit, what: 'restart' }).then(
  () => console.log('done'),
  (error) => console.log(error.message),
)
`

describe.runIf(inPrivateRoot() && systemdAvailable())('the process that restarts', () => {
  let systemd: TestSystemd
  beforeAll(async () => {
    const service = `[Service]\nExecStart=${sleep} 1000\n`
    const actions = `[Service]
ExecStart=${process.execPath} -C @bagcheck/source ${MAIN} --actions --config ${ETC}/agent.json
`
    systemd = await startSystemd(
      {
        ...{ 'orders.service': service, 'other.service': service, 'actions.service': actions },
        ...{ 'agent.json': JSON.stringify(CONFIG), 'ask.ts': ASK },
        'actions.socket': `[Socket]\nListenStream=${SOCKET}\nSocketMode=0600\nSocketUser=nobody\n`,
      },
      [REPOSITORY, dirname(process.execPath), '/nix'],
    )
    systemd.run('systemctl', 'start', 'orders.service', 'other.service', 'actions.socket')
  })
  afterAll(() => systemd[Symbol.asyncDispose]())

  const ask = (unit: string): string =>
    systemd
      .run(
        ...['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
        ...[process.execPath, '-C', '@bagcheck/source', `${ETC}/ask.ts`, unit],
      )
      .trim()

  test('restarts the listed service for a user without any privilege, and no other, and not twice', async () => {
    const before = systemd.mainPid('orders.service')
    const other = systemd.mainPid('other.service')
    expect(ask('orders.service')).toBe('done')
    await until(() => systemd.mainPid('orders.service') !== before, 60_000)
    const after = systemd.mainPid('orders.service')
    expect(ask('other.service')).toContain('ACTION_REFUSED')
    expect(ask('orders.service')).toContain('ACTION_LIMIT')
    expect(systemd.mainPid('other.service')).toBe(other)
    expect(systemd.mainPid('orders.service')).toBe(after)
  })
})
