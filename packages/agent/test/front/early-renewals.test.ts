import { expect, test } from 'vitest'
import { EarlyRenewals } from '../../src/front/early-renewals.ts'

function world() {
  const state = { nowMs: 1_000_000 }
  const renewed: [pid: number, atLeastMs: number][] = []
  const early = new EarlyRenewals(() => state.nowMs)
  const pool = (...held: number[]) => ({
    *of(pids: ReadonlySet<number>) {
      for (const pid of held)
        if (pids.has(pid))
          yield {
            renewWithin: (_delayMs: number, atLeastMs = 0) => void renewed.push([pid, atLeastMs]),
          }
    },
  })
  early.add(pool(10, 11, 12))
  early.add(pool(11))
  const hear = (cgroup: string, ...pids: number[]): void =>
    early.hear({ cgroup, pids, change: 'exec' })
  return { state, renewed, hear }
}

test('a change renews what the processes of that unit hold, of every kind, at once', () => {
  const { hear, renewed } = world()
  hear('/orders', 10, 11)
  expect(renewed).toEqual([
    [10, 0],
    [11, 0],
    [11, 0],
  ])
})

test('a unit that changes all the time is renewed early every five seconds, and holds up no other', () => {
  const { state, hear, renewed } = world()
  hear('/orders', 10)
  state.nowMs += 1000
  hear('/orders', 10)
  hear('/reports', 12)
  state.nowMs += 1000
  hear('/orders', 10)
  state.nowMs += 20_000
  hear('/orders', 10)
  expect(renewed).toEqual([
    [10, 0],
    [10, 4000],
    [12, 0],
    [10, 3000],
    [10, 0],
  ])
})
