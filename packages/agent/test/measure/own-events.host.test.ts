import { readFileSync, readlinkSync } from 'node:fs'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { measurerSettings, parseConfig } from '../../src/config.ts'
import { closeProcessConnector, openProcessConnector } from '../../src/measure/process-connector.ts'
import { startOwnMeasurer } from '../../src/own-measurer.ts'
import { until } from '../fixture/unit.ts'

const connector = openProcessConnector()
if ('reason' in connector)
  console.warn(`the test of a measurer with events is skipped: ${connector.reason}`)
else closeProcessConnector(connector)

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
    const proc = `/proc/${child.pid}`
    await until(() => readFileSync(`${proc}/cmdline`, 'utf8').includes('--dropped'))
    const fd = /--events\0(\d+)\0/.exec(readFileSync(`${proc}/cmdline`, 'utf8'))?.[1]
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`${proc}/fd/${fd}`))?.[1]
    // sk, Eth (the protocol: 11 is NETLINK_CONNECTOR), Pid, Groups, …, Inode
    const rows = readFileSync('/proc/net/netlink', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
    expect(rows.find((row) => row.at(-1) === inode)?.[1]).toBe('11')
    expect(readFileSync(`${proc}/status`, 'utf8')).toMatch(/^CapBnd:\t0000010000080004$/m)
    const ended = new Promise((resolve) => child.once('exit', resolve))
    socket.destroy()
    await ended
  })
})
