import { expect, test } from 'vitest'
import { Denials, denialKey } from '../../src/front/denials.ts'
import type { UnitFacts } from '../../src/measure/messages.ts'

const unit = (launcher: UnitFacts['launcher'], cgroup: string): string =>
  denialKey({ launcher, name: '', cgroup, contract: null, container: null, service: null })

test('callers without a unit are counted as one, in whatever cgroup they are', () => {
  expect(unit('none', '/user/a')).toBe(unit('none', '/user/b'))
})

test('32 denials are let through at once, then one a minute, and no other unit is held back', () => {
  let now = 0
  const denials = new Denials(() => now)
  const [orders, reports] = [
    unit('systemd', '/orders.service'),
    unit('systemd', '/reports.service'),
  ]
  for (let n = 0; n < 32; n += 1) {
    denials.check(orders)
    denials.count(orders, 'CLOSURE_NOT_APPROVED')
  }
  const limited = expect.objectContaining({
    code: 'REQUEST_LIMIT',
    message: expect.stringContaining('CLOSURE_NOT_APPROVED'),
  })
  expect(() => denials.check(orders)).toThrow(limited)
  denials.check(reports)
  now = 61_000
  denials.check(orders)
  denials.count(orders, 'CLOSURE_NOT_APPROVED')
  expect(() => denials.check(orders)).toThrow(limited)
})
