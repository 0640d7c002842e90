import { spawn, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { measurerSettings, parseConfig } from '../../src/config.ts'
import { closeProcessConnector, openProcessConnector } from '../../src/measure/process-connector.ts'
import { startOwnMeasurer } from '../../src/own-measurer.ts'
import { until } from '../fixture/unit.ts'

const connector = openProcessConnector()
if ('reason' in connector)
  console.warn(`the tests of a measurer with events are skipped: ${connector.reason}`)
else closeProcessConnector(connector)

const PROGRAM = join(import.meta.dirname, '../../src/measurer-main.ts')
const EVENTS = join(import.meta.dirname, '../fixture/events-child.ts')
const [MEASURER, FRONT] = [61_234, 61_235]
const THREE = ['CAP_DAC_READ_SEARCH', 'CAP_SYS_PTRACE', 'CAP_CHECKPOINT_RESTORE']
const THREE_AS_SET = '0000010000080004'

// open(2), as fdinfo shows it
const O_CLOEXEC = 0o2000000

/**
 * The inode of the socket that the measurer was told to read events from, once it has dropped what it had and keeps it
 * to itself.
 */
async function eventSocketOf({ pid }: ChildProcess): Promise<string | undefined> {
  const read = (): string => readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  await until(() => read().includes('--dropped'))
  const fd = /--events\0(\d+)\0/.exec(read())?.[1]
  const flags = (): number =>
    Number.parseInt(
      /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? '',
      8,
    )
  await until(() => (flags() & O_CLOEXEC) !== 0)
  return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
}

/** The netlink protocol of a socket: 11 is NETLINK_CONNECTOR. */
function protocolOf(inode: string | undefined): string | undefined {
  // sk, Eth (the protocol), Pid, Groups, …, Inode
  const rows = readFileSync('/proc/net/netlink', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
  return rows.find((row) => row.at(-1) === inode)?.[1]
}

describe.runIf(!('reason' in connector))('a measurer that root starts', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-own-events-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  test('opens the connector, and keeps it and not the capability for it', async () => {
    const config = {
      ...{ installation: 'demo', broker: 'https://broker.test', trustRootPin: 'a'.repeat(64) },
      measurer: { user: '61234' },
    }
    const settings = measurerSettings(parseConfig(JSON.stringify(config), directory))
    const { child, socket } = startOwnMeasurer({ ...settings, stateDir: join(directory, 'state') })
    expect(protocolOf(await eventSocketOf(child))).toBe('11')
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
    expect(status).toContain(`CapBnd:\t${THREE_AS_SET}\n`)
    const ended = new Promise((resolve) => child.once('exit', resolve))
    socket.destroy()
    await ended
  })
})

describe.runIf(!('reason' in connector))('a measurer that a service manager starts', () => {
  let directory: string
  const children: ChildProcess[] = []
  const config = {
    ...{ installation: 'demo', broker: 'https://broker.test', trustRootPin: 'a'.repeat(64) },
    user: String(FRONT),
    measurer: { user: String(MEASURER), socket: 'run/measurer.sock', stateDir: 'state' },
  }
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-unit-events-'))
    chmodSync(directory, 0o755)
    for (const made of ['state', 'run']) {
      mkdirSync(join(directory, made), { mode: made === 'run' ? 0o755 : 0o700 })
      chownSync(join(directory, made), MEASURER, MEASURER)
    }
    writeFileSync(join(directory, 'agent.json'), JSON.stringify(config))
  })
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    rmSync(directory, { recursive: true })
  })

  interface Started {
    readonly child: ChildProcess
    readonly log: () => string
    readonly ended: Promise<number | null>
  }

  /** As systemd does it: a user of its own, with these capabilities and no way to more. */
  function start(
    capabilities: readonly string[],
    program = PROGRAM,
    args = ['--config', join(directory, 'agent.json')],
  ): Started {
    const set = ['-all', ...capabilities.map((name) => name.replace('CAP_', '+').toLowerCase())]
    const child = spawn('setpriv', [
      ...['--reuid', String(MEASURER), '--regid', String(MEASURER), '--clear-groups'],
      ...['--inh-caps', '--ambient-caps', '--bounding-set'].map((kind) => `${kind}=${set.join()}`),
      ...['--no-new-privs', '--', process.execPath, '-C', '@bagcheck/source', program, ...args],
    ])
    children.push(child)
    let log = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
    return { child, log: () => log, ended }
  }

  /** What the unit that is shipped gives it. */
  function unitCapabilities(): string[] {
    const file = '../../../../deploy/systemd/bagcheck-measurer.service'
    const unit = readFileSync(join(import.meta.dirname, file), 'utf8')
    const [ambient = '', bounding] = ['Ambient', 'Bounding'].map(
      (kind) => new RegExp(`^(?:Capability)?${kind}\\w+=(.*)$`, 'm').exec(unit)?.[1],
    )
    expect(bounding).toBe(ambient)
    return ambient.split(' ')
  }

  test('with the capabilities of its unit has three left when it serves, and the connector', async () => {
    expect(unitCapabilities()).toEqual([...THREE, 'CAP_NET_ADMIN', 'CAP_SETPCAP'])
    const { child, ended } = start(unitCapabilities())
    await new Promise((resolve) => child.stdout?.once('data', resolve)) // that it is ready
    expect(protocolOf(await eventSocketOf(child))).toBe('11')
    const threads = readdirSync(`/proc/${child.pid}/task`).map((tid) =>
      readFileSync(`/proc/${child.pid}/task/${tid}/status`, 'utf8'),
    )
    expect(threads.length).toBeGreaterThan(4)
    for (const status of threads) {
      for (const set of ['Prm', 'Eff', 'Bnd'])
        expect(status).toContain(`Cap${set}:\t${THREE_AS_SET}\n`)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Uid:\t61234\t61234\t61234\t61234$/m)
    }
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  test('hears of an exec after it gave up what opening the connector took', async () => {
    const measured = spawn('/bin/sh', [], { stdio: ['pipe', 'ignore', 'ignore'] })
    children.push(measured)
    const { child, log } = start(unitCapabilities(), EVENTS, [String(measured.pid)])
    let said = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (said += text))
    await until(() => said.includes('watching'))
    const tell = setInterval(() => measured.stdin?.write('( sleep 0 ) &\n'), 300) // its thread takes a moment to listen
    await until(() => said.includes('"exec"') || log() !== '').finally(() => clearInterval(tell))
    expect(log()).toBe('')
    const notice = { cgroup: '/orders', pids: [measured.pid], change: 'exec' }
    expect(JSON.parse(said.split('\n')[1] ?? '')).toEqual(notice)
  })

  test('with three capabilities runs all the same, without the connector', async () => {
    const { child, ended } = start(THREE)
    await new Promise((resolve) => child.stdout?.once('data', resolve)) // that it is ready
    expect(readFileSync(`/proc/${child.pid}/cmdline`, 'utf8')).not.toContain('--events')
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  test.each([
    ['a capability that is not its own', [...THREE, 'CAP_NET_ADMIN', 'CAP_SETPCAP', 'CAP_CHOWN']],
    ['one that it could not give up for good', [...THREE, 'CAP_NET_ADMIN']],
    ['one missing', [...THREE.slice(1), 'CAP_NET_ADMIN', 'CAP_SETPCAP']],
    ['none', []],
  ])('with %s does not run', async (_what, capabilities) => {
    const { log, ended } = start(capabilities)
    expect(await ended).toBe(3)
    expect(log()).toContain('PRIVILEGES')
  })
})
