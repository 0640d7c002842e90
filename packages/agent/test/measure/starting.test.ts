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
import { findStartedUnit } from '../../src/measure/starting.ts'

describe('a unit that is just starting', () => {
  let directory: string
  let units: string
  // Any directory does as the cgroup hierarchy: only the inode of the unit's own is looked at.
  let mount: string
  let launched: string

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-starting-'))
    units = join(directory, 'units')
    mount = join(directory, 'cgroup')
    mkdirSync(units, { mode: 0o700 })
    mkdirSync(join(mount, 'orders/child'), { recursive: true })
    launched = JSON.stringify({
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
  const record = (): void => writeFileSync(join(units, 'orders.json'), launched, { mode: 0o600 })
  const find = (cgroup: string) => findStartedUnit(units, mount, cgroup)
  const starting = expect.objectContaining({ code: 'UNIT_STARTING' })

  test.each(['/orders', '/orders/child'])('is told as such to a process in %s', (cgroup) => {
    mark('/orders\n')
    expect(() => find(cgroup)).toThrow(starting)
    // As `bagcheck exec` does it: the record complete, and then the mark goes.
    record()
    expect(find(cgroup)).toMatchObject({ name: 'orders', cgroup: '/orders' })
    rmSync(join(units, 'orders.starting'))
    expect(find(cgroup)).toMatchObject({ name: 'orders', cgroup: '/orders' })
  })

  test('is nothing to a process of another cgroup, nor to one beside it of a like name', () => {
    mark('/orders')
    expect(find('/reports')).toBeUndefined()
    expect(find('/orders-2')).toBeUndefined()
  })

  test.each(['', '\n', '/', 'orders'])('is not told by a mark of %j', (text) => {
    mark(text)
    expect(find('/orders')).toBeUndefined()
  })

  test('is told also while the mark of another goes', () => {
    symlinkSync('gone', join(units, 'aaa.starting')) // listed, and not there to be read
    mark('/orders')
    expect(() => find('/orders')).toThrow(starting)
  })

  test('has the record that is there now, though the one before it is remembered', async () => {
    const file = join(units, 'orders.json')
    record()
    await setTimeout(150) // what changed just now is not remembered
    expect(find('/orders')?.pid).toBe(2)
    // In place, and as another file of the same size.
    writeFileSync(file, launched.replace('"pid":2', '"pid":7'))
    expect(find('/orders')?.pid).toBe(7)
    const other = join(units, 'new')
    writeFileSync(other, launched.replace('"pid":2', '"pid":8'), { mode: 0o600 })
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

  test('is found beside what is remembered of others, and a second record of it is refused', async () => {
    const other = launched.replace('"orders"', '"reports"').replace('"/orders"', '"/reports"')
    writeFileSync(join(units, 'reports.json'), other, { mode: 0o600 })
    await setTimeout(150)
    expect(find('/orders')).toBeUndefined()
    record()
    expect(find('/orders')?.name).toBe('orders')
    await setTimeout(150)
    expect(find('/orders')?.name).toBe('orders')
    writeFileSync(join(units, 'orders@2.json'), launched, { mode: 0o600 })
    expect(() => find('/orders')).toThrow(expect.objectContaining({ code: 'UNIT_RECORD' }))
    rmSync(join(units, 'orders@2.json'))
    expect(find('/orders')?.name).toBe('orders')
    // Another unit's file gives way to one of ours.
    rmSync(join(units, 'orders.json'))
    await setTimeout(150)
    expect(find('/orders')).toBeUndefined()
    record()
    renameSync(join(units, 'orders.json'), join(units, 'reports.json'))
    expect(() => find('/orders')).toThrow('name')
    renameSync(join(units, 'reports.json'), join(units, 'orders.json'))
    expect(find('/orders')?.name).toBe('orders')
    rmSync(join(units, 'orders.json'))
    expect(find('/orders')).toBeUndefined()
  })

  test('is none without a mark or a directory', () => {
    expect(find('/orders')).toBeUndefined()
    rmSync(units, { recursive: true })
    expect(find('/orders')).toBeUndefined()
  })
})
