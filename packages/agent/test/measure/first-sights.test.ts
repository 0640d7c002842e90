import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { FirstSights, MAX_FIRST_SIGHTS, parseFirstSights } from '../../src/measure/first-sights.ts'
import type { ProcessInstance } from '../../src/measure/messages.ts'

const at = (pid: number, startStack = 1): ProcessInstance => ({
  ...{ pid, startTicks: 1, device: '8:1', inode: '1', startCode: 1, startStack },
})

/** A disk that outlives the agent. */
function disk(bootId = 'boot-1') {
  const store = { bootId, text: undefined as string | undefined, writes: 0, full: false }
  return {
    store,
    open: (lives: (instance: ProcessInstance) => boolean = () => true) =>
      new FirstSights(
        {
          bootId: store.bootId,
          text: store.text,
          save: (text) => {
            if (store.full) throw new Error('ENOSPC')
            store.text = text
            store.writes += 1
          },
        },
        lives,
      ),
  }
}

describe('the first sight of a service', () => {
  test('is matched by the same program only, though the process is the same', () => {
    const sights = disk().open()
    expect(sights.matches(at(1))).toBe(true)
    expect(sights.matches(at(1))).toBe(true)
    expect(sights.matches(at(1, 2))).toBe(false)
    expect(sights.matches({ ...at(1), inode: '2' })).toBe(false)
    expect(sights.matches(at(1))).toBe(true)
    expect(sights.matches({ ...at(1, 2), startTicks: 2 })).toBe(true) // another process of that pid
  })

  test('is on disk before it is answered, once, and outlives the agent', () => {
    const { store, open } = disk()
    const first = open()
    first.matches(at(1))
    first.matches(at(1))
    expect(store.writes).toBe(1)
    expect(open().matches(at(1, 2))).toBe(false)
  })

  test('that cannot be written down is none', () => {
    const { store, open } = disk()
    const sights = open()
    store.full = true
    const refused = expect.objectContaining({ code: 'STATE_INVALID' })
    expect(() => sights.matches(at(1))).toThrow(refused)
    expect(() => sights.matches(at(1))).toThrow(refused)
    store.full = false
    expect(sights.matches(at(1))).toBe(true)
    // What is known already needs no space.
    store.full = true
    expect(sights.matches(at(1))).toBe(true)
    expect(sights.matches(at(1, 2))).toBe(false)
  })

  test('is of one boot, and of processes that still run', () => {
    const { store, open } = disk()
    const sights = open()
    for (const pid of [1, 2]) sights.matches(at(pid))
    expect(open(({ pid }) => pid === 2).matches(at(1, 2))).toBe(true)
    expect(open(({ pid }) => pid === 2).matches(at(2, 2))).toBe(false)
    store.bootId = 'boot-2'
    expect(open().matches(at(2, 2))).toBe(true)
  })

  test('of a service that stays is kept, however many come and go', () => {
    const { store, open } = disk()
    const full = Array.from({ length: MAX_FIRST_SIGHTS }, (_, index) => at(index + 1))
    store.text = JSON.stringify({
      schema: 'bagcheck.first-sights/v1',
      bootId: store.bootId,
      seen: full,
    })
    const sights = open()
    sights.matches(at(1))
    for (let pid = 10_000; pid < 10_010; pid += 1) sights.matches(at(pid))
    expect(sights.matches(at(1, 2))).toBe(false)
    expect(sights.matches(at(12, 2))).toBe(false)
    expect(parseFirstSights(store.text, store.bootId)).toHaveLength(MAX_FIRST_SIGHTS)
    expect(open().matches(at(2, 2))).toBe(true) // the one that was asked about longest ago
  })
})

describe('a file of first sights', () => {
  const seen = [at(1), at(2)]
  const good = { schema: 'bagcheck.first-sights/v1', bootId: 'b', seen }
  const outcome = (text: string): unknown => {
    try {
      return parseFirstSights(text, 'b')
    } catch (error) {
      if (error instanceof AgentError && error.code === 'STATE_INVALID') return error.code
      throw error
    }
  }

  test.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['another schema', JSON.stringify({ ...good, schema: 'bagcheck.first-sights/v2' })],
    ['a member too many', JSON.stringify({ ...good, more: 1 })],
    ['no boot', JSON.stringify({ schema: good.schema, seen })],
    ['a boot that is no text', JSON.stringify({ ...good, bootId: 1 })],
    ['no list', JSON.stringify({ ...good, seen: {} })],
    ['too many', JSON.stringify({ ...good, seen: Array(MAX_FIRST_SIGHTS + 1).fill(at(1)) })],
    ['a process twice', JSON.stringify({ ...good, seen: [at(1), at(1, 2)] })],
    [
      'a process without a stack',
      JSON.stringify({ ...good, seen: [{ ...at(1), startStack: null }] }),
    ],
    ['a pid below none', JSON.stringify({ ...good, seen: [at(-1)] })],
    ['an inode that is a number', JSON.stringify({ ...good, seen: [{ ...at(1), inode: 1 }] })],
    ['another boot and a bad list', JSON.stringify({ ...good, bootId: 'c', seen: [1] })],
  ])('with %s is refused', (_, text) => {
    expect(outcome(text)).toBe('STATE_INVALID')
  })

  test('cut off anywhere is refused', () => {
    const text = JSON.stringify(good)
    expect(outcome(text)).toEqual(seen)
    for (let length = 0; length < text.length; length += 1)
      expect(outcome(text.slice(0, length))).toBe('STATE_INVALID')
  })

  test('altered anywhere is refused, or has a value', () => {
    const text = JSON.stringify(good)
    fc.assert(
      fc.property(
        fc.nat(text.length - 1),
        fc.string({ unit: 'binary', maxLength: 4 }),
        (at, put) => void outcome(text.slice(0, at) + put + text.slice(at + 1)),
      ),
    )
  })
})
