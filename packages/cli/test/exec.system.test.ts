// Real processes in real cgroups. Needs root and a writable unified hierarchy, as `npm test` has them.
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { PRIVATE_ROOT_VARIABLE } from '../src/demo/private-root.ts'
import { findCgroupMount } from '../src/unit/cgroup.ts'
import { launchUnit } from '../src/unit/launch.ts'

const main = join(import.meta.dirname, '../src/main.ts')
const uid = '61050'

const ready = process.getuid?.() === 0 && process.env[PRIVATE_ROOT_VARIABLE] !== undefined
if (!ready) {
  const reason = 'not in a private root (npm test makes one when it runs as root)'
  if (process.env['CI'] === 'true')
    throw new Error(`tests of bagcheck exec are required: ${reason}`)
  console.warn(`tests of bagcheck exec are skipped: ${reason}`)
}

describe.runIf(ready)('bagcheck exec', () => {
  let folder: string
  let units: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bagcheck-exec-'))
    units = join(folder, 'units')
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const argv = (name: string, ...more: string[]): string[] => [
    ...['-C', '@bagcheck/source', main, 'exec', '--units-dir', units, '--name', name],
    ...['--user', uid, ...more],
  ]
  const runUnit = (name: string, ...more: string[]): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, argv(name, ...more), { encoding: 'utf8' })

  /** Starts a unit and waits for its record. */
  async function startUnit(
    name: string,
    ...more: string[]
  ): Promise<{ child: ChildProcess; record: Record<string, unknown> }> {
    const child = spawn(process.execPath, argv(name, ...more), { stdio: 'ignore' })
    for (let attempt = 0; attempt < 400; attempt++) {
      const file = existsSync(units) && readdirSync(units).find((entry) => entry.endsWith('.json'))
      if (file) return { child, record: JSON.parse(readFileSync(join(units, file), 'utf8')) }
      await sleep(25)
    }
    throw new Error('the unit was not recorded')
  }

  const ended = (child: ChildProcess): Promise<unknown> =>
    new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)))

  /** False for a zombie too: in a PID namespace of tests nobody may reap it. */
  function isAlive(pid: string): boolean {
    try {
      return !/^(Z|X)/.test(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? '')
    } catch {
      return false
    }
  }

  async function cgroupOf(record: Record<string, unknown>): Promise<string> {
    return join((await findCgroupMount()) ?? '', String(record['cgroup']))
  }

  test('the directory above the records is open to all, because the agent serves its socket there', () => {
    const parent = join(folder, 'run')
    units = join(parent, 'units')
    const umask = process.umask(0o077)
    try {
      runUnit('first', '--', '/bin/true')
    } finally {
      process.umask(umask)
    }
    expect(statSync(parent).mode & 0o777).toBe(0o755)
    expect(statSync(units).mode & 0o777).toBe(0o700)
  })

  test('the unit runs as the user, alone in its groups, with no new privileges and no capabilities', () => {
    const script =
      'id -u; id -G; grep -E "^(NoNewPrivs|Cap(Inh|Prm|Eff|Bnd|Amb))" /proc/self/status'
    const { stdout } = runUnit('who', '--', '/bin/sh', '-c', script)
    const none = '\t0000000000000000'
    expect(String(stdout)).toBe(
      `${uid}\n${uid}\nCapInh:${none}\nCapPrm:${none}\nCapEff:${none}\nCapBnd:${none}\nCapAmb:${none}\nNoNewPrivs:\t1\n`,
    )
  })

  test('the environment is PATH and what was given, nothing of ours', () => {
    const { stdout } = runUnit('env', '--env', 'A=b c', '--', '/usr/bin/env')
    const lines = String(stdout).trim().split('\n').toSorted()
    expect(lines.filter((line) => !line.startsWith('PWD='))).toEqual([
      'A=b c',
      'PATH=/usr/bin:/bin',
    ])
  })

  test('the unit holds no file that its launcher inherited, however high its number', () => {
    const secret = join(folder, 'secret')
    writeFileSync(secret, 'of root', { mode: 0o600 })
    const stdio = Array.from({ length: 90 }, (_, number) => (number < 3 ? 'pipe' : 'ignore'))
    const high = openSync(secret, 'r')
    const { stdout } = spawnSync(
      process.execPath,
      argv('files', '--', '/bin/sh', '-c', 'ls -l /proc/$$/fd'),
      { encoding: 'utf8', stdio: [...stdio, high] as StdioOptions },
    )
    closeSync(high)
    const numbers = String(stdout).match(/ [0-9]+ -> /g)
    expect(numbers).toEqual([' 0 -> ', ' 1 -> ', ' 2 -> '])
  })

  test('a signal that comes before the start starts nothing', async () => {
    const launch = {
      ...{
        name: 'early',
        instance: '',
        program: '/bin/sleep',
        arguments: ['100'],
        environment: {},
      },
      ...{ account: { uid: Number(uid), gid: Number(uid) }, unitsDirectory: units },
      cgroupParent: process.env['BAGCHECK_CGROUP_PARENT'],
    }
    const signal = AbortSignal.abort(new Error('ended by SIGTERM'))
    await expect(launchUnit(launch, signal)).rejects.toThrow('ended by SIGTERM')
    expect(readdirSync(units)).toEqual([])
  })

  test('a unit of root that made cgroups of its own is cleared away, and its exit code told', async () => {
    const parent = process.env['BAGCHECK_CGROUP_PARENT'] ?? ''
    const script = `mkdir -p ${parent}/nested/a/b; echo $$ > ${parent}/nested/a/b/cgroup.procs; exit 5`
    expect(runUnit('nested', '--user', '0', '--', '/bin/sh', '-c', script).status).toBe(5)
    expect(existsSync(join(parent, 'nested'))).toBe(false)
  })

  test('what a killed launcher left is not taken for the next unit, and the message says how to end it', async () => {
    const script = 'setsid sleep 100 & sleep 100'
    const { child, record } = await startUnit('left', '--', '/bin/sh', '-c', script)
    const cgroup = await cgroupOf(record)
    const processes = (): number =>
      readFileSync(join(cgroup, 'cgroup.procs'), 'utf8').split('\n').length - 1
    for (let attempt = 0; attempt < 400 && processes() < 3; attempt++) await sleep(25)
    child.kill('SIGKILL')
    await ended(child)
    const second = runUnit('left', '--', '/bin/true')
    expect(second.status).toBe(3)
    const [, file = ''] = /"echo 1 > (.*)"/.exec(String(second.stderr)) ?? []
    writeFileSync(file, '1')
    for (let attempt = 0; attempt < 400 && processes() > 0; attempt++) await sleep(25)
    expect(runUnit('left', '--', '/bin/sh', '-c', 'exit 4').status).toBe(4)
  })

  test('the exit code is that of the program; a signal that ends it gives 128 + N', async () => {
    expect(runUnit('code', '--', '/bin/sh', '-c', 'exit 7').status).toBe(7)
    const { child } = await startUnit('signal', '--', '/bin/sleep', '100')
    child.kill('SIGTERM')
    expect(await ended(child)).toBe(143)
  })

  test.each(['SIGINT', 'SIGQUIT'] as const)(
    '%s of a terminal ends a shell that waits for its command, as it does without us',
    async (signal) => {
      const { child } = await startUnit('waits', '--', '/bin/sh', '-c', 'sleep 100; exit 0')
      await sleep(200) // sleep runs by then, or the shell ends before it does: both are right
      child.kill(signal)
      expect(await ended(child)).toBe(128 + constants.signals[signal])
    },
  )

  test('the record names the program, its arguments and its process, for root alone', async () => {
    const { child, record } = await startUnit('record', '--', '/bin/sleep', '100')
    expect(record).toMatchObject({
      schema: 'bagcheck.unit/v1',
      name: 'record',
      arguments: ['100'],
      uid: Number(uid),
      noNewPrivs: true,
    })
    expect(statSync(units).mode & 0o777).toBe(0o700)
    expect(statSync(join(units, 'record.json')).mode & 0o777).toBe(0o600)
    const pid = String(record['pid'])
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    expect([record['startTicks'], record['startCode'], record['startStack']]).toEqual(
      [stat[19], stat[23], stat[25]].map(Number),
    )
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).toContain(`0::${String(record['cgroup'])}`)
    expect(String(statSync(await cgroupOf(record)).ino)).toBe(record['cgroupInode'])
    const device = spawnSync('stat', ['-L', '-c', '%Hd:%Ld %i', `/proc/${pid}/exe`])
    expect(device.stdout.toString().trim()).toBe(
      `${String(record['executableDevice'])} ${String(record['executableInode'])}`,
    )
    child.kill('SIGTERM')
    await ended(child)
  })

  test('record and cgroup go with the unit, and so do its children', async () => {
    const pidFile = join(folder, 'child')
    writeFileSync(pidFile, '')
    chmodSync(folder, 0o755)
    chmodSync(pidFile, 0o666)
    const script = `setsid sleep 100 & echo $! > ${pidFile}; sleep 1`
    const { child, record } = await startUnit('family', '--', '/bin/sh', '-c', script)
    await ended(child)
    const pid = readFileSync(pidFile, 'utf8').trim()
    expect(pid).not.toBe('')
    expect(isAlive(pid)).toBe(false)
    expect(existsSync(await cgroupOf(record))).toBe(false)
    expect(readdirSync(units)).toEqual([])
  })

  test('when bagcheck exec is killed, its unit ends too, and the name can be used again', async () => {
    const { child, record } = await startUnit('orphan', '--', '/bin/sleep', '100')
    child.kill('SIGKILL')
    await ended(child)
    const pid = String(record['pid'])
    for (let attempt = 0; attempt < 100 && isAlive(pid); attempt++) await sleep(20)
    expect(isAlive(pid)).toBe(false)
    expect(runUnit('orphan', '--', '/bin/sh', '-c', 'exit 3').status).toBe(3)
  })

  test('a second unit of the same name is refused unless it is another instance', async () => {
    const { child } = await startUnit('twice', '--', '/bin/sleep', '100')
    const second = runUnit('twice', '--', '/bin/true')
    expect(second.status).toBe(3)
    expect(String(second.stderr)).toMatch(/^bagcheck: UNIT_RUNNING: /)
    expect(runUnit('twice', '--instance', 'b', '--', '/bin/true').status).toBe(0)
    child.kill('SIGTERM')
    await ended(child)
  })

  test.each([
    ['is not there', '/no/such/program', /is not there/],
    ['is no program', '/etc/passwd', /is not an executable file/],
    ['is a directory', '/tmp', /is not an executable file/],
  ])('a file that %s is not started', (_what, file, message) => {
    const { status, stderr } = runUnit('none', '--', file)
    expect(status).toBe(3)
    expect(String(stderr)).toMatch(/^bagcheck: COMMAND_NOT_STARTED: /)
    expect(String(stderr)).toMatch(message)
  })

  test('a script is refused: what is started is its interpreter', () => {
    const script = join(folder, 'script')
    writeFileSync(script, '#!/bin/sh\n', { mode: 0o755 })
    const { status, stderr } = runUnit('script', '--', script)
    expect(status).toBe(3)
    expect(String(stderr)).toMatch(/start its interpreter/)
  })

  test('a program that executes another is not recorded as what it has become', async () => {
    const { child, record } = await startUnit('becomes', '--', '/bin/sh', '-c', 'exec sleep 100')
    expect(String(record['executable'])).toMatch(/\/(da)?sh$/)
    child.kill('SIGTERM')
    await ended(child)
  })

  test('without a place for cgroups it says what to do', () => {
    const { status, stderr } = runUnit(
      'nowhere',
      '--cgroup-parent',
      '/proc/none',
      '--',
      '/bin/true',
    )
    expect(status).toBe(3)
    expect(String(stderr)).toMatch(/^bagcheck: CGROUP_UNAVAILABLE: .*--cgroup-parent/)
  })
})
