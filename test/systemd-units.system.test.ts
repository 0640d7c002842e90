// The units of deploy/systemd, as they are, in a real systemd, with what `npm run build` makes.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  bindMount,
  containerConfig,
  containersAvailable,
  startSystemd,
  systemdAvailable,
  type TestSystemd,
} from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FakeBroker, PIN } from '../packages/agent/test/fixture/fake-broker.ts'
import { until } from '../packages/agent/test/fixture/unit.ts'

const REPOSITORY = resolve(import.meta.dirname, '..')
const UNITS = join(REPOSITORY, 'deploy/systemd')
const AUDIENCE = 'https://api.demo.test'
const names = [
  'bagcheck-measurer.service',
  'bagcheck-agent.service',
  'bagcheck-actions.service',
] as const
const SOCKET = 'bagcheck-actions.socket'
const TOKEN_FILE = '/run/bagcheck-tokens/reports/api.token'
const BEARER = 'https://files.demo.test'
const inPrivateRoot = process.env['BAGCHECK_PRIVATE_ROOT'] !== undefined
/** CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE. */
const THREE = '0000010000080004'
const NONE = '0000000000000000'

/** Asks for a token each time somebody writes a line to /run/ask, or to what it is told. */
const ASK = `const { readFileSync } = require('node:fs')
const { request } = require('node:http')
const body = JSON.stringify({ audience: '${AUDIENCE}' })
const headers = { 'content-type': 'application/json', 'content-length': body.length }
const options = { socketPath: '/run/bagcheck/agent.sock', path: '/v1/token', method: 'POST', headers }
const ask = () => {
  readFileSync(process.argv[2] ?? '/run/ask')
  const call = request({ ...options, agent: false }, (response) => {
    let text = ''
    response.on('data', (chunk) => (text += chunk))
    response.on('end', () => (console.log(text), ask()))
  })
  call.on('error', (error) => (console.log(JSON.stringify({ code: error.code })), ask()))
  call.end(body)
}
ask()
`

describe.runIf(inPrivateRoot && systemdAvailable())('bagcheck in a real systemd', () => {
  let directory: string
  let node: string
  let systemd: TestSystemd
  const broker = new FakeBroker()

  beforeAll(async () => {
    // Not below /tmp, /var/tmp or /home, which these units do not see.
    mkdirSync('/nix/store', { recursive: true })
    directory = mkdtempSync('/nix/bagcheck-units-')
    chmodSync(directory, 0o755)
    const dist = join(directory, 'dist')
    const build = ['-C', '@bagcheck/source', join(REPOSITORY, 'scripts/build.ts'), dist]
    expect(spawnSync(process.execPath, build)).toMatchObject({ status: 0 })
    node = join(dist, 'node')
    copyFileSync(process.execPath, node)
    await new Promise<void>((done) => broker.server.listen(join(directory, 'broker.sock'), done))
    chmodSync(join(directory, 'broker.sock'), 0o666)
    writeFileSync(join(directory, 'ask.js'), ASK)
    const orders = `[Service]
ExecStart=${node} ${join(directory, 'ask.js')}
User=nobody
NoNewPrivileges=yes
StandardOutput=append:/run/answers
StandardError=append:/run/answers
`
    const reports = `[Service]
ExecStart=${realpathSync('/bin/sleep')} 100000
User=nobody
NoNewPrivileges=yes
`
    const units = Object.fromEntries(
      [...names, SOCKET].map((name) => [name, readFileSync(join(UNITS, name), 'utf8')]),
    )
    systemd = await startSystemd(
      { ...units, 'orders.service': orders, 'reports.service': reports },
      ['/nix'],
    )
    const config = {
      installation: 'demo',
      broker: `unix:${join(directory, 'broker.sock')}`,
      issuer: 'https://broker.test',
      trustRootPin: PIN,
      joinToken: 'join.json',
      storeCheckIntervalSeconds: 0,
      measurer: { socket: '/run/bagcheck-measurer/measurer.sock' },
      tokenFiles: [{ unit: 'reports.service', audience: BEARER, path: TOKEN_FILE }],
      actions: [
        { id: 'again', do: 'restart', on: { units: ['orders.service'] } },
        {
          ...{ id: 'back', do: 'rollback', profile: '/nix/var/nix/profiles/orders' },
          on: { units: ['orders.service'], codes: ['CLOSURE_REVOKED'] },
        },
      ],
    }
    systemd.write('/etc/bagcheck/agent.json', JSON.stringify(config))
    systemd.write('/etc/bagcheck/join.json', '{}')
    const prepare = `
      printf 'bagcheck-agent:x:901:901::/:/bin/false\\nbagcheck-measurer:x:902:902::/:/bin/false\\n' >> /etc/passwd
      printf 'bagcheck-agent:x:901:\\nbagcheck-measurer:x:902:\\n' >> /etc/group
      chgrp -R bagcheck-agent /etc/bagcheck; chmod 750 /etc/bagcheck; chmod 640 /etc/bagcheck/*
      mkdir -p /opt /var/lib; ln -s "$1" /opt/bagcheck; mkfifo -m 666 /run/ask
      systemd-tmpfiles --create /etc/tmpfiles.d/bagcheck.conf /etc/tmpfiles.d/reports.conf`
    const tmpfiles = readFileSync(join(REPOSITORY, 'deploy/tmpfiles.d/bagcheck.conf'), 'utf8')
    systemd.write('/etc/tmpfiles.d/bagcheck.conf', tmpfiles)
    const directoryOf = 'd /run/bagcheck-tokens/reports 2750 bagcheck-agent nogroup\n'
    systemd.write('/etc/tmpfiles.d/reports.conf', directoryOf)
    systemd.run('sh', '-c', prepare, 'sh', dist)
    // There is no journal to log to, and this systemd may not make devices.
    const here = '[Service]\nStandardError=append:/run/log\nPrivateDevices=no\n'
    for (const name of names) systemd.write(`/etc/systemd/system/${name}.d/here.conf`, here)
    systemd.run('systemctl', 'daemon-reload')
    systemd.run('systemctl', 'start', ...names.slice(0, 2), SOCKET)
    await until(() => systemd.run('cat', '/run/log').includes('"serving"'), 60_000).catch(() => {
      const how = systemd.run('systemctl', 'show', '--property=Id,Result,ExecMainStatus', ...names)
      throw new Error(how + systemd.run('cat', '/run/log'))
    })
    systemd.run('systemctl', 'start', 'orders.service')
  })
  afterAll(async () => {
    await systemd?.[Symbol.asyncDispose]()
    await broker.close()
    rmSync(directory, { recursive: true })
  })

  let heard = 0
  /** What orders.service hears when it asks. */
  const ask = async (): Promise<Record<string, unknown>> => {
    const lines = (): string[] =>
      systemd.run('sh', '-c', 'cat /run/answers 2> /dev/null || true').split('\n').slice(0, -1)
    systemd.run('sh', '-c', 'echo > /run/ask')
    heard += 1
    await until(() => lines().length >= heard, 60_000)
    return JSON.parse(lines()[heard - 1] ?? '') as Record<string, unknown>
  }
  const statuses = (unit: string): string[] => {
    const read = 'for task in /proc/$1/task/*; do cat $task/status; echo; done'
    return systemd
      .run('sh', '-c', read, 'sh', String(systemd.mainPid(unit)))
      .trim()
      .split('\n\n')
  }

  test('a service gets a token, and its unit is told as PID 1 knows it', async () => {
    expect(await ask()).toMatchObject({ accessToken: 'token-1' })
    const { unit, processes } = broker.evidence.at(-1)?.facts ?? {}
    expect(unit).toMatchObject({
      launcher: 'systemd',
      name: 'orders.service',
      contract: { executable: node, intact: true },
    })
    // Seen from a namespace of the measurer's own, it is in the host's.
    expect(processes).toMatchObject([
      { hostRoot: true, hostUserNamespace: true, verifiedStoreMount: true, noNewPrivs: true },
    ])
  })

  const tokenFile = (): string =>
    systemd.run('sh', '-c', 'cat "$1" 2> /dev/null || true', 'sh', TOKEN_FILE)

  test('a token file outlives a restart of the agent, and goes at a denial', async () => {
    broker.tokenType = 'Bearer'
    systemd.run('systemctl', 'start', 'reports.service')
    await until(() => tokenFile() !== '', 60_000)
    const first = tokenFile()
    expect(systemd.run('stat', '--format=%U:%G %a', TOKEN_FILE)).toBe(
      'bagcheck-agent:nogroup 440\n',
    )
    const asked = (): number =>
      broker.evidence.filter(({ facts }) => facts.unit.name === 'reports.service').length
    const before = asked()
    broker.verdict = 'busy'
    systemd.run('systemctl', 'restart', 'bagcheck-agent.service')
    await until(() => asked() > before, 60_000)
    expect(tokenFile()).toBe(first)
    broker.verdict = 'allow'
    await until(() => tokenFile() !== first, 60_000)
    expect(tokenFile()).toMatch(/^token-\d+$/)
    broker.denied.set(BEARER, 'CLOSURE_REVOKED')
    systemd.run('systemctl', 'restart', 'bagcheck-agent.service')
    await until(() => tokenFile() === '', 60_000)
    systemd.run('systemctl', 'stop', 'reports.service')
  })

  test('a denial restarts the service whose it is, and once', async () => {
    const before = systemd.mainPid('orders.service')
    broker.denied.set(AUDIENCE, 'FILE_NOT_IN_CLOSURE')
    expect(await ask()).toMatchObject({ code: 'FILE_NOT_IN_CLOSURE' })
    await until(() => systemd.mainPid('orders.service') !== before, 60_000)
    const after = systemd.mainPid('orders.service')
    await until(() => systemd.run('cat', '/run/log').includes('"acted on a denial"'), 60_000)
    // It may do so once in five minutes.
    expect(await ask()).toMatchObject({ code: 'FILE_NOT_IN_CLOSURE' })
    expect(systemd.mainPid('orders.service')).toBe(after)
    broker.denied.clear()
    expect(await ask()).toHaveProperty('accessToken')
  })

  test('a rollback is tried when its code comes, and the policy that it needs is there', async () => {
    const policy = '/run/bagcheck/policy.json'
    expect(systemd.run('stat', '--format=%U %a', policy)).toBe('bagcheck-agent 644\n')
    expect(JSON.parse(systemd.run('cat', policy))).toMatchObject({ version: 1 })
    broker.denied.set(AUDIENCE, 'CLOSURE_REVOKED')
    expect(await ask()).toMatchObject({ code: 'CLOSURE_REVOKED' })
    // Nobody has signed this broker's policy.
    const said = (): string => systemd.run('cat', '/run/log')
    await until(() => /"no action".*"reason":"(TRUST_ROOT|POLICY)_/.test(said()), 60_000)
    broker.denied.clear()
  })

  test('the process that restarts has no capability, and answers the agent alone', () => {
    for (const status of statuses('bagcheck-actions.service')) {
      expect(status).toMatch(/^Uid:\t0\t0\t0\t0$/m)
      for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'])
        expect(status).toContain(`Cap${set}:\t${NONE}`)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Seccomp:\t2$/m)
    }
    const socket = '/run/bagcheck-actions/actions.sock'
    expect(systemd.run('stat', '--format=%U %a', socket)).toBe('bagcheck-agent 600\n')
    const connect = `require('node:net').connect('${socket}').on('error', ({ code }) => console.log(code))`
    const other = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] as const
    expect(systemd.run(...other, node, '-e', connect)).toBe('EACCES\n')
  })

  test('a container of runc is measured from within the sandbox of the shipped unit', async (context) => {
    if (!containersAvailable('runc', 'unified')) return context.skip()
    const config = containerConfig({
      args: [node, join(directory, 'ask.js'), '/run/box/ask'],
      uid: 65_534,
      mounts: ['/nix', '/usr', '/run/bagcheck', '/run/box'].map((path) => bindMount(path)),
      linux: { cgroupsPath: '/boxes/box-1' },
    })
    systemd.write('/var/box/config.json', JSON.stringify(config))
    const start = `cd /var/box; mkdir -p rootfs/proc rootfs/dev rootfs/nix rootfs/usr rootfs/run/bagcheck rootfs/run/box
      for path in /bin /lib /lib64; do cp -P $path rootfs/; done
      mkdir /run/box; mkfifo -m 666 /run/box/ask; mknod -m 666 /dev/tty c 5 0
      runc run --detach --bundle /var/box box-1 > /run/box/answers 2>&1 < /dev/null || cat /run/box/answers >&2`
    systemd.run('sh', '-c', start)
    systemd.run('sh', '-c', 'echo > /run/box/ask')
    const answers = (): string => systemd.run('cat', '/run/box/answers')
    await until(() => answers().includes('\n'), 60_000)
    expect(JSON.parse(answers())).toHaveProperty('accessToken')
    expect(broker.evidence.at(-1)?.facts.unit).toMatchObject({
      ...{ launcher: 'oci', name: 'box-1', cgroup: '/boxes/box-1' },
      container: { runtime: 'runc', store: 'host' },
      contract: { executable: node, intact: true },
    })
    systemd.run('runc', 'delete', '--force', 'box-1')
  })

  test('each thread of the measurer has three capabilities, and of the front none', () => {
    for (const status of statuses('bagcheck-measurer.service')) {
      expect(status).toMatch(/^Uid:\t902\t902\t902\t902$/m)
      for (const set of ['Prm', 'Eff', 'Bnd']) expect(status).toContain(`Cap${set}:\t${THREE}`)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Seccomp:\t2$/m)
    }
    // It had two more, with which it opens the process connector where pids are the host's.
    expect(systemd.run('cat', '/run/log')).toContain('not in the initial pid namespace')
    for (const status of statuses('bagcheck-agent.service')) {
      expect(status).toMatch(/^Uid:\t901\t901\t901\t901$/m)
      for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'])
        expect(status).toContain(`Cap${set}:\t${NONE}`)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Seccomp:\t2$/m)
    }
  })

  test('without its measurer the front denies, and goes on when it is back', async () => {
    systemd.run('systemctl', 'stop', 'bagcheck-measurer.service')
    const asked = broker.evidence.length
    expect(await ask()).toMatchObject({ code: 'MEASURER_UNREACHABLE' })
    expect(broker.evidence).toHaveLength(asked)
    systemd.run('systemctl', 'start', 'bagcheck-measurer.service')
    let answer: Record<string, unknown> = {}
    for (let attempt = 0; attempt < 30 && answer['accessToken'] === undefined; attempt += 1)
      answer = await ask()
    expect(answer).toHaveProperty('accessToken')
    // The measurer knows still what the service ran when it was first seen.
    expect(broker.evidence.at(-1)?.facts.unit.contract).toMatchObject({ intact: true })
  })

  test('a measurer that was killed is back by itself', async () => {
    systemd.run('systemctl', 'kill', '--signal=KILL', 'bagcheck-measurer.service')
    let answer: Record<string, unknown> = {}
    for (let attempt = 0; attempt < 60 && answer['accessToken'] === undefined; attempt += 1) {
      if (attempt > 0) await sleep(500) // systemd lets it rest for a second
      answer = await ask()
    }
    expect(answer).toHaveProperty('accessToken')
  })

  test('nobody but the front is answered by the measurer, not even root', () => {
    const probe = `const socket = require('node:net').connect('/run/bagcheck-measurer/measurer.sock')
      const body = Buffer.from(JSON.stringify({ id: 1, ask: 'instance', pid: 1 }))
      const head = Buffer.alloc(4)
      head.writeUInt32BE(body.length)
      socket.on('error', () => {}).on('data', (data) => console.log('heard ' + data))
      socket.on('close', () => console.log('closed'))
      socket.write(Buffer.concat([head, body]))`
    const as = (user: string): string =>
      systemd.run(
        ...(['setpriv', '--reuid', user, '--regid', user, '--clear-groups'] as const),
        ...[node, '-e', probe],
      )
    expect(as('0')).toBe('closed\n')
    expect(as('65534')).toBe('closed\n')
    expect(systemd.run('sh', '-c', 'cat /run/answers')).not.toContain('heard')
  })

  test.each(names)('%s is well formed, and exposed as little as Node allows', (name) => {
    expect(systemd.run('systemd-analyze', 'verify', `/etc/systemd/system/${name}`)).toBe('')
    const said = systemd.run('systemd-analyze', 'security', '--no-pager', name)
    const exposure = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(said)?.[1])
    expect(exposure).toBeLessThanOrEqual(3)
  })
})
