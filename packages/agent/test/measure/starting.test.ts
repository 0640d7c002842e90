import { spawn } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { awaitExecRecord } from '../../src/measure/starting.ts'

describe('a unit that is just starting', () => {
  let directory: string
  let units: string
  // Any directory does as the cgroup hierarchy: only the inode of the unit's own is looked at.
  let mount: string
  let record: string

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-starting-'))
    units = join(directory, 'units')
    mount = join(directory, 'cgroup')
    mkdirSync(units, { mode: 0o700 })
    mkdirSync(join(mount, 'orders/child'), { recursive: true })
    record = JSON.stringify({
      schema: 'bagcheck.unit/v1',
      name: 'orders',
      cgroup: '/orders',
      cgroupInode: statSync(join(mount, 'orders'), { bigint: true }).ino.toString(),
      executable: '/nix/store/x/bin/orders',
      arguments: [],
      uid: 1,
      gid: 1,
      noNewPrivs: true,
      pid: 2,
      startTicks: 3,
      startCode: 4,
      startStack: 5,
      executableDevice: '8:1',
      executableInode: '6',
    })
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  const mark = (cgroup: string): void => writeFileSync(join(units, 'orders.starting'), cgroup)
  const find = (cgroup: string, waitMs?: number) => awaitExecRecord(units, mount, cgroup, waitMs)

  test.each(['/orders', '/orders/child'])('is waited for by a process in %s', (cgroup) => {
    mark('/orders\n')
    // As `bagcheck exec` does it: the record complete under another name, renamed, and then the mark goes.
    const script =
      'sleep 0.2; umask 077; printf %s "$1" > new; mv new orders.json; rm orders.starting'
    spawn('/bin/sh', ['-c', script, 'sh', record], { cwd: units, stdio: 'ignore' })
    expect(find(cgroup)).toMatchObject({ name: 'orders', cgroup: '/orders' })
  })

  test('is not waited for by a process of another cgroup, nor by one beside it of a like name', () => {
    mark('/orders')
    // Would take an hour if it waited.
    expect(find('/reports', 3_600_000)).toBeUndefined()
    expect(find('/orders-2', 3_600_000)).toBeUndefined()
  })

  test('is nobody when its start takes too long, or the mark was left behind', () => {
    mark('/orders')
    expect(find('/orders', 50)).toBeUndefined()
  })

  test('is found beside a mark that was left behind', () => {
    mark('/orders')
    writeFileSync(join(units, 'orders.json'), record, { mode: 0o600 })
    expect(find('/orders', 3_600_000)?.name).toBe('orders')
  })

  test('has the record that is there now, though the one before it is remembered', async () => {
    const file = join(units, 'orders.json')
    writeFileSync(file, record, { mode: 0o600 })
    await setTimeout(150) // what changed just now is not remembered
    expect(find('/orders')?.pid).toBe(2)
    // In place, and as another file of the same size.
    writeFileSync(file, record.replace('"pid":2', '"pid":7'))
    expect(find('/orders')?.pid).toBe(7)
    const other = join(units, 'new')
    writeFileSync(other, record.replace('"pid":2', '"pid":8'), { mode: 0o600 })
    renameSync(other, file)
    await setTimeout(150)
    expect(find('/orders')?.pid).toBe(8)
    chmodSync(file, 0o644)
    const refused = expect.objectContaining({ code: 'UNIT_RECORD' })
    expect(() => find('/orders')).toThrow(refused)
    chmodSync(file, 0o600)
    renameSync(file, other)
    symlinkSync(other, file)
    expect(() => find('/orders')).toThrow(refused)
    rmSync(file)
    expect(find('/orders')).toBeUndefined()
  })

  test('without a mark or a directory is not waited for', () => {
    expect(find('/orders', 3_600_000)).toBeUndefined()
    rmSync(units, { recursive: true })
    expect(find('/orders', 3_600_000)).toBeUndefined()
  })
})
