// A unit whose facts the front would not take: an error about that unit, and about no other.
import { createServer, createConnection, type Server, type Socket } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MeasurerClient } from '../../src/front/measurer-client.ts'
import { readInstance } from '../../src/measure/instance.ts'
import type { SettledMeasurement } from '../../src/measure/messages.ts'
import type { MeasurerPool } from '../../src/measure/pool.ts'
import type { UnitChanges } from '../../src/measure/unit-events.ts'
import { serveFront } from '../../src/measure/serve.ts'

const own = readInstance(process.pid)
const measurement = (count: number): unknown => ({
  unit: {
    ...{ launcher: 'systemd', name: 'orders.service', cgroup: '/system.slice/orders.service' },
    contract: { executable: '/bin/x', arguments: Array.from({ length: count }, () => 'a') },
  },
  ...{ main: null, init: null, containerStore: null },
  ...{ processes: [], host: {}, measuredAtMs: 1 },
})

describe('a measurer', () => {
  let directory: string
  let server: Server
  let client: MeasurerClient
  let connections: number
  let told: unknown

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-serve-'))
    connections = 0
    const pool = { measure: () => Promise.resolve(told as SettledMeasurement) }
    server = createServer((socket) => {
      connections += 1
      void serveFront(socket, {
        pool: pool as unknown as MeasurerPool,
        places: { unitsDir: join(directory, 'units'), ociStateDirs: [] },
        log: () => undefined,
        changes: {
          subscribe: () => () => undefined,
          watch: () => undefined,
        } as unknown as UnitChanges,
      })
    })
    const path = join(directory, 'sock')
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const connect = (): Promise<Socket> =>
      new Promise((resolve) => {
        const socket = createConnection(path)
        socket.once('connect', () => resolve(socket))
      })
    client = new MeasurerClient(
      connect,
      () => undefined,
      () => undefined,
    )
    await expect.poll(() => client.state.up).toBe(true)
  })
  afterEach(async () => {
    client[Symbol.dispose]()
    await new Promise((resolve) => server.close(resolve))
    rmSync(directory, { recursive: true })
  })

  test('refuses a unit with more arguments than an answer has room for, and serves the others', async () => {
    told = measurement(257)
    const [refused, other] = await Promise.allSettled([client.measure(own), client.check(own)])
    expect(refused).toMatchObject({ reason: { code: 'MEASUREMENT_LIMIT' } })
    expect(other.status).toBe('fulfilled')
    told = measurement(256)
    expect((await client.measure(own)).unit.name).toBe('orders.service')
    expect(connections).toBe(1)
  })
})
