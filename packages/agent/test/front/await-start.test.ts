import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { awaitStart } from '../../src/front/await-start.ts'
import { isTransient, refusalOf } from '../../src/front/problem.ts'

const starting = new AgentError('UNIT_STARTING', 'too early')

describe('a unit that is just starting', () => {
  /** Measures a unit that has started after so many questions; what is then thrown in its place. */
  function unit(startedAfter: number, thrown?: AgentError) {
    const pauses: number[] = []
    let asked = 0
    const measure = (): Promise<string> => {
      asked += 1
      if (asked <= startedAfter) return Promise.reject(starting)
      return thrown === undefined ? Promise.resolve('measured') : Promise.reject(thrown)
    }
    const pause = (milliseconds: number): Promise<void> => {
      pauses.push(milliseconds)
      return Promise.resolve()
    }
    return { pauses, answer: () => awaitStart(measure, pause) }
  }

  test.each([
    [0, []],
    [1, [10]],
    [4, [10, 20, 40, 80]],
  ])('is measured at question %d after pauses of %j ms', async (startedAfter, expected) => {
    const { pauses, answer } = unit(startedAfter)
    expect(await answer()).toBe('measured')
    expect(pauses).toEqual(expected)
  })

  test('is waited for two seconds, and then refused for now', async () => {
    const { pauses, answer } = unit(Infinity)
    await expect(answer()).rejects.toBe(starting)
    expect(pauses.reduce((sum, pause) => sum + pause, 0)).toBe(2000)
    expect(pauses).toHaveLength(8)
    expect(isTransient(starting)).toBe(true)
    expect(refusalOf(starting)).toMatchObject({ status: 503, problem: { code: 'UNIT_STARTING' } })
  })

  test.each([0, 2])('that fails otherwise at question %d is not asked again', async (asked) => {
    const gone = new AgentError('PROCESS_GONE', 'gone')
    const { pauses, answer } = unit(asked, gone)
    await expect(answer()).rejects.toBe(gone)
    expect(pauses).toHaveLength(asked)
  })
})
