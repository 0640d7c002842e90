// From the kernel's word to the renewal. The kernel's part is tested with the process ids of the host
// (measure/unit-events.host.test.ts); here its datagrams are written by hand, with the ids of this namespace.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { endianness, tmpdir } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { measurerSettings, parseConfig } from '../src/config.ts'
import { startAgent } from '../src/index.ts'
import { PROCESS_EVENTS } from '../src/measure/process-event.ts'
import { startMeasurer } from '../src/measurer.ts'
import { call } from './fixture/client.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { inPrivateRoot } from './fixture/private-root.ts'

const AUDIENCE = 'https://api.demo.test'
const [AF_UNIX, SOCK_DGRAM] = [1, 2]
const libc = koffi.load(null)
const socketpair = libc.func('int socketpair(int, int, int, _Out_ int *)')
const send = libc.func('long send(int, const uint8_t *, size_t, int)')

/** What the kernel would say of an exec by `pid`. */
function execBy(pid: number): Buffer {
  const datagram = Buffer.alloc(76)
  const put = (offset: number, value: number): void =>
    void (endianness() === 'LE'
      ? datagram.writeUInt32LE(value, offset)
      : datagram.writeUInt32BE(value, offset))
  put(0, datagram.length)
  put(16, 1)
  put(20, 1)
  put(36, PROCESS_EVENTS.exec)
  put(52, pid)
  put(56, pid)
  return datagram
}

describe.runIf(inPrivateRoot())('a change that the kernel tells', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-early-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  test('renews at once what the processes of the unit hold, and evidence says that it would', async () => {
    await using resources = new AsyncDisposableStack()
    const broker = new FakeBroker() // its tokens live for five minutes
    resources.defer(() => broker.close())
    writeFileSync(join(directory, 'join.json'), '{"join":"token"}')
    const config = parseConfig(
      JSON.stringify({
        ...{ installation: 'demo', broker: await broker.listen(), trustRootPin: PIN },
        ...{ stateDir: 'state', socket: 'run/agent.sock', spiffeSocket: null },
        ...{ unitsDir: 'units', joinToken: 'join.json', storeCheckIntervalSeconds: 0 },
        measurer: { socket: 'measurer/measurer.sock' },
      }),
      directory,
    )
    const ends = [0, 0]
    expect(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)).toBe(0)
    const [kernel = -1, connector = -1] = ends
    const log = (): void => undefined
    const measurer = resources.use(startMeasurer(measurerSettings(config), log, { fd: connector }))
    await measurer.listen(join(directory, 'measurer/measurer.sock'), process.geteuid!())
    const agent = resources.use(
      await startAgent(config, { log, signal: AbortSignal.timeout(60_000) }),
    )
    const { status } = await call(agent.socket, 'POST', '/v1/token', { audience: AUDIENCE })
    expect(status).toBe(200)
    expect(broker.evidence[0]?.host.unitEvents).toBe('process-connector')
    const renewed = broker.next()
    // Others that execute something are of no concern.
    for (const pid of [process.ppid, process.pid]) send(kernel, execBy(pid), 76, 0)
    await renewed
    expect(broker.evidence.map(({ facts }) => facts.purpose)).toEqual(['issue', 'renew'])
  })
})
