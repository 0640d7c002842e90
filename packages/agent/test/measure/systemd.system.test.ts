// Units of a real systemd, with a real D-Bus between it and the measurer.
import { createHash } from 'node:crypto'
import { mkdirSync, realpathSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { startSystemd, systemdAvailable, type TestSystemd } from '@bagcheck/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Measurement } from '../../src/measure/messages.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { until } from '../fixture/unit.ts'

const REPOSITORY = resolve(import.meta.dirname, '../../../..')
const MEASURE = join(import.meta.dirname, '../fixture/measure-child.ts')
const ETC = '/etc/systemd/system'
const NOBODY = 65_534
const sleep = realpathSync('/bin/sleep')
const shell = realpathSync('/bin/sh')

const service = (command: string, ...more: string[]): string =>
  ['[Service]', `ExecStart=${command}`, 'User=nobody', 'NoNewPrivileges=yes', ...more, ''].join(
    '\n',
  )

/** Moves itself below its own cgroup, into one that is called as another service. */
const CLAIM = `own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$own/orders.service"
echo 0 > "$own/orders.service/cgroup.procs"
exec sleep 1000
`
/** Has a child of its own program, and tells PID 1 that this is the main process. */
const CHILD = `${shell} ${ETC}/again.sh &
systemd-notify --ready MAINPID=$!
wait
`
/** Once told, runs its own program again. */
const AGAIN = `read told < /run/again
exec ${shell} ${ETC}/again.sh
`

/** A store path that holds a unit file; its name is all that is real about it. */
const BAG = `/nix/store/${'z'.repeat(32)}-payments-1.0`
const BAG_UNIT = `${BAG}/lib/systemd/system/payments.service`
const LINKED = `${ETC}/payments.service`

describe.runIf(inPrivateRoot() && systemdAvailable())(
  'a service whose unit file is in the store',
  () => {
    let systemd: TestSystemd
    const text = service(
      `${sleep} 1000`,
      'SystemCallFilter=@system-service',
      'CapabilityBoundingSet=CAP_NET_BIND_SERVICE',
      'ProtectSystem=strict',
    )
    beforeAll(async () => {
      mkdirSync(dirname(BAG_UNIT), { recursive: true })
      writeFileSync(BAG_UNIT, text)
      utimesSync(BAG_UNIT, 1, 1) // as Nix does
      systemd = await startSystemd({}, [REPOSITORY, dirname(process.execPath), '/nix'])
    })
    afterAll(async () => {
      await systemd?.[Symbol.asyncDispose]()
      rmSync(BAG, { recursive: true, force: true })
    })
    // Each test has a systemd that knows the unit from its file alone.
    beforeEach(() => {
      systemd.run('ln', '-sfn', BAG_UNIT, LINKED)
      systemd.run('systemctl', 'daemon-reload')
      systemd.run('systemctl', 'restart', 'payments.service')
    })
    afterEach(() => {
      systemd.run(
        'sh',
        '-c',
        `rm -rf ${LINKED}* /run/systemd/*/payments.service* /etc/systemd/*/payments.service.d`,
      )
      systemd.run('systemctl', 'stop', 'payments.service')
      systemd.run('systemctl', 'daemon-reload')
    })

    let life = 0
    const measure = (firstSights = `/run/sights-${(life += 1)}.json`): Measurement => {
      const pid = systemd.mainPid('payments.service')
      const args = ['-C', '@bagcheck/source', MEASURE, firstSights, String(pid)]
      return JSON.parse(systemd.run(process.execPath, ...args)) as Measurement
    }
    const settings = (firstSights?: string) => measure(firstSights).unit.service

    test('is told with that file, and with what PID 1 made of it', () => {
      const { unit, processes } = measure()
      expect(unit.service).toMatchObject({
        fragment: {
          path: LINKED,
          file: BAG_UNIT,
          sha256: createHash('sha256').update(text).digest('hex'),
          isStoreFile: true,
        },
        dropIns: [],
        source: '',
        transient: false,
        needDaemonReload: false,
        asStarted: true,
        settings: {
          user: 'nobody',
          noNewPrivileges: true,
          capabilityBoundingSet: '0000000000000400',
          systemCallFilter: { allowList: true },
          protectSystem: 'strict',
        },
      })
      expect(unit.service?.settings.systemCallFilter.calls).toBeGreaterThan(100)
      expect(processes[0]).toMatchObject({
        seccomp: 2,
        noNewPrivs: true,
        capabilities: { bounding: '0000000000000400' },
      })
    })

    test.each([
      ['in /etc', `${ETC}/payments.service.d/override.conf`],
      // Where systemctl edit --runtime puts it.
      ['in /run', '/run/systemd/system/payments.service.d/override.conf'],
      ['for all services', `${ETC}/service.d/all.conf`],
    ])(
      'is told with a drop-in %s, which it is not started with before a restart',
      (_where, path) => {
        const sights = `/run/sights-${(life += 1)}.json`
        expect(settings(sights)).toMatchObject({ dropIns: [], asStarted: true })
        systemd.write(path, '[Service]\nSystemCallFilter=\n')
        try {
          // Without a reload it is in force nowhere.
          expect(settings(sights)).toMatchObject({ dropIns: [], asStarted: true })
          systemd.run('systemctl', 'daemon-reload')
          expect(settings(sights)).toMatchObject({
            needDaemonReload: false,
            asStarted: false,
            dropIns: [{ path, file: path, isStoreFile: false }],
          })
          systemd.run('systemctl', 'restart', 'payments.service')
          expect(measure(sights)).toMatchObject({
            unit: { service: { asStarted: true, dropIns: [{ path }] } },
            processes: [{ seccomp: 0 }],
          })
          systemd.write(path, '[Service]\nNoNewPrivileges=no\n')
          systemd.run('touch', '-d', '+1 hour', path)
          expect(settings(sights)).toMatchObject({ needDaemonReload: true, asStarted: false })
        } finally {
          systemd.run('rm', '-rf', dirname(path))
        }
      },
    )

    test('is told with what systemctl set-property wrote', () => {
      const sights = `/run/sights-${(life += 1)}.json`
      expect(settings(sights)).toMatchObject({ dropIns: [], asStarted: true })
      systemd.run('systemctl', 'set-property', '--runtime', 'payments.service', 'MemoryMax=1G')
      const control = '/run/systemd/system.control/payments.service.d/50-MemoryMax.conf'
      expect(settings(sights)).toMatchObject({ asStarted: false, dropIns: [{ path: control }] })
    })

    test('is not told as started with a file that its link leads to since', () => {
      const other = BAG.replace('payments-1.0', 'payments-1.1')
      const loose = service(`${sleep} 1000`)
      mkdirSync(other, { recursive: true })
      writeFileSync(join(other, 'payments.service'), loose)
      utimesSync(join(other, 'payments.service'), 1, 1)
      try {
        systemd.run('ln', '-sfn', join(other, 'payments.service'), LINKED)
        // PID 1 sees no other time at the file, and says that nothing need be read again.
        expect(settings()).toMatchObject({
          fragment: { file: join(other, 'payments.service') },
          needDaemonReload: false,
          asStarted: false,
        })
        systemd.run('systemctl', 'restart', 'payments.service')
        expect(settings()).toMatchObject({ asStarted: false })
        systemd.run('systemctl', 'daemon-reload')
        expect(settings()).toMatchObject({ asStarted: false })
        systemd.run('systemctl', 'restart', 'payments.service')
        expect(settings()).toMatchObject({ asStarted: true })
      } finally {
        rmSync(other, { recursive: true })
      }
    })

    test('stays as started over a reload that changes nothing of it', () => {
      const sights = `/run/sights-${(life += 1)}.json`
      expect(settings(sights)).toMatchObject({ asStarted: true })
      systemd.run('systemctl', 'daemon-reload')
      expect(settings(sights)).toMatchObject({ asStarted: true })
      expect(settings()).toMatchObject({ asStarted: false }) // to an agent that never saw it before
    })

    test('that is a transient one, or a copy of the file, is told so', () => {
      systemd.run('systemctl', 'stop', 'payments.service')
      systemd.run('rm', LINKED)
      systemd.run('systemctl', 'daemon-reload')
      systemd.run('systemd-run', '--unit=payments', '--property=User=nobody', '--', sleep, '1000')
      expect(settings()).toMatchObject({
        transient: true,
        fragment: { path: '/run/systemd/transient/payments.service', isStoreFile: false },
      })
      systemd.run('systemctl', 'stop', 'payments.service')
      systemd.write(LINKED, text)
      systemd.run('systemctl', 'daemon-reload')
      systemd.run('systemctl', 'start', 'payments.service')
      expect(settings()).toMatchObject({
        transient: false,
        fragment: { path: LINKED, file: LINKED, isStoreFile: false },
      })
    })
  },
)

describe.runIf(inPrivateRoot() && systemdAvailable())('a unit of a real systemd', () => {
  let systemd: TestSystemd
  beforeAll(async () => {
    const units = {
      'orders.service': service(`${sleep} 1000`),
      'orders@.service': service(`${sleep} %i`),
      'claim.service': service(`${shell} ${ETC}/claim.sh`, 'Delegate=yes'),
      'claim.sh': CLAIM,
      'child.service': service(`${shell} ${ETC}/child.sh`, 'NotifyAccess=all', 'Type=notify'),
      'child.sh': CHILD,
      'again.service': service(`${shell} ${ETC}/again.sh`),
      'again.sh': AGAIN,
    }
    systemd = await startSystemd(units, [REPOSITORY, dirname(process.execPath), '/nix'])
    systemd.run('mkfifo', '--mode=666', '/run/again')
  })
  afterAll(() => systemd[Symbol.asyncDispose]())

  type Answer = Measurement & { code?: string }
  const measureAll = (pids: readonly number[], firstSights = '/run/first-sights.json'): Answer[] =>
    systemd
      .run(process.execPath, '-C', '@bagcheck/source', MEASURE, firstSights, ...pids.map(String))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Answer)
  const measure = (pid: number, firstSights?: string): Answer =>
    measureAll([pid], firstSights)[0] as Answer
  const start = (name: string): number => {
    systemd.run('systemctl', 'restart', name)
    return systemd.mainPid(name)
  }
  /** Starts a process of root's in a cgroup that is made if there is none. */
  const startIn = (cgroup: string): number => {
    const directory = `/sys/fs/cgroup${cgroup}`
    const script = `mkdir -p "$1"; echo 0 > "$1/cgroup.procs"; sleep 1000 > /dev/null 2>&1 & echo $!`
    return Number(systemd.run('sh', '-c', script, 'sh', directory))
  }

  test('is what PID 1 says it started, and runs it still', () => {
    const pid = start('orders.service')
    const { unit, processes } = measure(pid)
    expect(unit).toEqual({
      launcher: 'systemd',
      name: 'orders.service',
      cgroup: '/system.slice/orders.service',
      contract: {
        executable: sleep,
        arguments: ['1000'],
        uid: NOBODY,
        gid: expect.any(Number),
        noNewPrivs: true,
        pid,
        startTicks: expect.any(Number),
        intact: true,
      },
      container: null,
      service: expect.objectContaining({
        fragment: expect.objectContaining({ path: `${ETC}/orders.service`, isStoreFile: false }),
        dropIns: [],
        asStarted: true,
      }),
    })
    expect(processes.map((process) => process.pid)).toEqual([pid])
    expect(processes[0]).toMatchObject({ noNewPrivs: true, argv: [sleep, '1000'] })
  })

  test('may be a transient one, or an instance whose name has to be escaped', () => {
    const properties = ['--property=User=nobody', '--property=NoNewPrivileges=yes']
    systemd.run('systemd-run', '--unit=passing', ...properties, '--', shell, '-c', 'sleep 9; :')
    const transient = measure(systemd.mainPid('passing.service'))
    expect(transient.unit).toMatchObject({
      name: 'passing.service',
      cgroup: '/system.slice/passing.service',
      contract: { executable: shell, arguments: ['-c', 'sleep 9; :'], uid: NOBODY, intact: true },
    })
    const instance = measure(start('orders@3000.service'))
    expect(instance.unit).toMatchObject({
      name: 'orders@3000.service',
      contract: { arguments: ['3000'], intact: true },
    })
  })

  test('is not the one whose name a process gives to a cgroup that was delegated to it', async () => {
    const pid = start('claim.service')
    await until(() => systemd.run('cat', `/proc/${pid}/cgroup`).includes('/orders.service'))
    await until(() => systemd.run('readlink', `/proc/${pid}/exe`).trim() === sleep)
    const { unit } = measure(pid)
    expect(unit).toMatchObject({ name: 'claim.service', cgroup: '/system.slice/claim.service' })
    // It was started as a shell, and is not one any more.
    expect(unit.contract).toMatchObject({ executable: shell, intact: false })
  })

  test('is not a cgroup of its name elsewhere, nor one that PID 1 never started', () => {
    start('orders.service')
    for (const [cgroup, name] of [
      ['/elsewhere/orders.service', 'orders.service'],
      ['/orders.service', 'orders.service'],
      ['/system.slice/visit.scope', 'visit.scope'],
    ] as const)
      expect(measure(startIn(cgroup)).unit).toEqual({
        launcher: 'systemd',
        name,
        cgroup,
        contract: null,
        container: null,
        service: null,
      })
  })

  test('is all that is in its cgroup, so that who is put there is measured with it', () => {
    const main = start('orders.service')
    const stray = startIn('/system.slice/orders.service')
    const { unit, processes } = measure(stray)
    expect(unit.contract?.pid).toBe(main)
    expect(processes.map(({ pid }) => pid)).toEqual([main, stray].toSorted((a, b) => a - b))
    // Nobody but root gets there.
    const intrude = 'echo 0 > /sys/fs/cgroup/system.slice/orders.service/cgroup.procs'
    const drop = ['--reuid=nobody', '--clear-groups']
    expect(() => systemd.run('setpriv', ...drop, 'sh', '-c', intrude)).toThrow(/ermission denied/)
  })

  test('keeps the contract that it was started with when a drop-in says another', () => {
    const old = start('orders.service')
    const unseen = start('orders@1000.service')
    expect(measure(old).unit.contract).toMatchObject({ arguments: ['1000'], intact: true })
    const other = `[Service]\nExecStart=\nExecStart=${sleep} 4000\n`
    for (const unit of ['orders.service', 'orders@.service'])
      systemd.write(`${ETC}/${unit}.d/override.conf`, other)
    systemd.run('systemctl', 'daemon-reload')
    // PID 1 tells the new command of a process that runs the old one.
    expect(measure(old).unit.contract).toMatchObject({ arguments: ['1000'], intact: true })
    // Not seen before, nobody knows what it was started with.
    expect(measure(unseen).unit.contract).toMatchObject({ arguments: ['4000'], intact: false })
    const restarted = measure(start('orders.service'))
    expect(restarted.unit.contract).toMatchObject({ arguments: ['4000'], intact: true })
    expect(restarted.processes[0]?.argv).toEqual([sleep, '4000'])
    systemd.run('rm', '-r', `${ETC}/orders.service.d`, `${ETC}/orders@.service.d`)
    systemd.run('systemctl', 'daemon-reload')
  })

  test('stays what it is when PID 1 reads its files or its own program anew', () => {
    const pid = start('orders.service')
    const before = measure(pid)
    systemd.run('systemctl', 'daemon-reload')
    systemd.run('systemctl', 'daemon-reexec')
    expect(measure(pid).unit).toEqual(before.unit)
  })

  test('that runs its own program anew is not intact, also to an agent that was restarted', async () => {
    const pid = start('again.service')
    expect(measure(pid).unit.contract).toMatchObject({
      arguments: [`${ETC}/again.sh`],
      intact: true,
    })
    const stack = (): string => systemd.run('cut', '-d ', '-f28', `/proc/${pid}/stat`)
    const before = stack()
    systemd.run('sh', '-c', 'echo now > /run/again')
    await until(() => stack() !== before)
    const after = measure(pid)
    expect(after.unit.contract).toMatchObject({ pid, intact: false })
    expect(after.processes[0]?.argv).toEqual([shell, `${ETC}/again.sh`])
    // Why first sights must not be forgotten: nothing else tells the two programs apart.
    expect(measure(pid, '/run/forgotten.json').unit.contract).toMatchObject({ intact: true })
  })

  test('that names a main process of its own making has no intact contract', () => {
    const first = start('child.service')
    const { unit, processes } = measure(first)
    expect(processes.length).toBeGreaterThan(1)
    expect(unit.contract).toMatchObject({ pid: first, executable: shell, intact: false })
  })

  test('that PID 1 cannot be asked about is an error, and not a unit without a contract', () => {
    const pid = start('orders.service')
    systemd.run('systemctl', 'stop', 'dbus.socket', 'dbus.service')
    try {
      expect(measure(pid)).toMatchObject({ code: 'UNIT_RECORD' })
    } finally {
      systemd.run('systemctl', 'start', 'dbus.service')
    }
  })
})
