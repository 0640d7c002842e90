import { describe, expect, test } from 'vitest'
import { WatchedUnits } from '../../src/measure/watched-units.ts'

const exec = (pid: number) => ({ kind: 'exec', pid }) as const
const fork = (parent: number, child: number) => ({ kind: 'fork', parent, child }) as const

describe('watched units', () => {
  test('change with an exec, new ids or a tracer of any of their processes, once', () => {
    for (const kind of ['exec', 'credentials', 'ptrace'] as const) {
      const units = new WatchedUnits()
      units.watch('orders', [10, 11])
      expect(units.take({ kind, pid: 12 })).toBeUndefined()
      expect(units.take({ kind, pid: 11 })).toEqual({ unit: 'orders', change: kind })
      expect(units.take({ kind, pid: 10 })).toBeUndefined()
    }
  })

  test('change with an exec by what their processes have forked, and theirs', () => {
    const units = new WatchedUnits()
    units.watch('orders', [10])
    expect(units.take(fork(10, 20))).toBeUndefined()
    expect(units.take(fork(20, 30))).toBeUndefined()
    expect(units.take(fork(99, 40))).toBeUndefined()
    expect(units.take(exec(40))).toBeUndefined()
    expect(units.take(exec(30))).toEqual({ unit: 'orders', change: 'exec' })
  })

  test('do not change with a process that came to an old pid', () => {
    const units = new WatchedUnits()
    units.watch('orders', [10, 20])
    units.take(fork(99, 20))
    expect(units.take(exec(20))).toBeUndefined()
    expect(units.take(exec(10))?.unit).toBe('orders')
  })

  test('are watched anew by each measurement, with its processes', () => {
    const units = new WatchedUnits()
    units.watch('orders', [10, 11])
    units.watch('orders', [10, 12])
    expect(units.take(exec(11))).toBeUndefined()
    expect(units.take(exec(12))?.unit).toBe('orders')
  })

  test('give a process to the unit that named it last, and forget with a unit only its own', () => {
    const units = new WatchedUnits()
    units.watch('orders', [10])
    units.watch('reports', [10])
    units.forget('orders')
    expect(units.take(exec(10))?.unit).toBe('reports')
  })

  test('all change when events were lost', () => {
    const units = new WatchedUnits()
    units.watch('orders', [10])
    units.watch('reports', [11])
    expect(units.takeAll()).toEqual(['orders', 'reports'])
    expect(units.take(exec(10))).toBeUndefined()
  })

  test('are bounded in number: the one that was measured longest ago goes', () => {
    const units = new WatchedUnits()
    for (let index = 0; index <= 4096; index += 1) units.watch(`unit ${index}`, [index + 1])
    expect(units.take(exec(1))).toBeUndefined()
    expect(units.take(exec(2))?.unit).toBe('unit 1')
  })

  test('follow a bounded number of processes', () => {
    const units = new WatchedUnits()
    units.watch('orders', [1])
    for (let child = 2; child <= 70_000; child += 1) units.take(fork(1, child))
    expect(units.take(exec(70_000))).toBeUndefined()
    expect(units.take(exec(60_000))?.unit).toBe('orders')
  })
})
