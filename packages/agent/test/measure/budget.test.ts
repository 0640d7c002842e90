import { expect, test } from 'vitest'
import { Budget, HashAllowances } from '../../src/measure/budget.ts'

const GIB = 1024n ** 3n
const limit = expect.objectContaining({ code: 'MEASUREMENT_LIMIT' })

test('a measurement hashes so much, looks at so many, and takes so long', () => {
  let now = 0
  const budget = new Budget(() => now)
  budget.spendBytes(4n * GIB)
  expect(() => budget.spendBytes(1n)).toThrow(limit)
  budget.spendMappings(200_000)
  expect(() => budget.spendMappings(1)).toThrow(limit)
  budget.spendDescriptors(100_000)
  expect(() => budget.spendDescriptors(1)).toThrow(limit)
  now = 10_000
  budget.checkTime()
  now = 10_001
  expect(() => budget.checkTime()).toThrow(limit)
  expect(() => budget.spendBytes(0n)).toThrow(limit)
})

test('what a unit had hashed comes back with time, and is nobody else’s loss', () => {
  let now = 0
  const allowances = new HashAllowances(() => now)
  expect(allowances.left('/a')).toBe(4n * GIB)
  allowances.spend('/a', 4n * GIB)
  expect(allowances.left('/a')).toBe(0n)
  expect(allowances.left('/b')).toBe(4n * GIB)
  now = 4_000
  expect(allowances.left('/a')).toBe(4_000n * 256n * 1024n)
  now = 1_000_000
  expect(allowances.left('/a')).toBe(4n * GIB)
})

test('a budget that a unit used up elsewhere is used up', () => {
  const budget = new Budget()
  budget.limitBytes(100n)
  budget.spendBytes(60n)
  expect(() => budget.spendBytes(41n)).toThrow(limit)
  expect(budget.spentBytes).toBe(60n)
})

test('units that come and go do not fill the memory', () => {
  const allowances = new HashAllowances(() => 0)
  for (let i = 0; i < 10_000; i += 1) allowances.spend(`/${i}`, 1n)
  // The first is forgotten, the last is not.
  expect(allowances.left('/0')).toBe(4n * GIB)
  expect(allowances.left('/9999')).toBe(4n * GIB - 1n)
})
