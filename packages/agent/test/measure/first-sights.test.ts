import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { FirstSights, MAX_FIRST_SIGHTS, parseFirstSights } from '../../src/measure/first-sights.ts'
import type {
  LaunchContract,
  ProcessInstance,
  ServiceFacts,
  UnitFacts,
} from '../../src/measure/messages.ts'

const at = (pid: number, startStack = 1): ProcessInstance => ({
  ...{ pid, startTicks: 1, device: '8:1', inode: '1', startCode: 1, startStack },
})
/** What PID 1 says, as measured. */
const contract = (...args: string[]): LaunchContract => ({
  ...{ source: 'systemd', executable: '/nix/store/x/bin/node', arguments: args, uid: 1, gid: 1 },
  ...{ noNewPrivs: true, pid: 1, startTicks: 1, intact: true },
})

/** A disk that outlives the agent. */
function disk(bootId = 'boot-1') {
  const store = { bootId, text: undefined as string | undefined, writes: 0, full: false }
  const open = (lives: (instance: ProcessInstance) => boolean = () => true) => {
    const save = (text: string): void => {
      if (store.full) throw new Error('ENOSPC')
      store.text = text
      store.writes += 1
    }
    const sights = new FirstSights({ bootId: store.bootId, text: store.text, save }, lives)
    return {
      settle: (instance: ProcessInstance, args = ['a.mjs'], witnessed = true) =>
        sights.settle(contract(...args), { instance, witnessed }),
      matches: (instance: ProcessInstance) =>
        sights.settle(contract('a.mjs'), { instance, witnessed: true }).intact,
    }
  }
  return { store, open }
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

  test('is the contract for good, whatever PID 1 reads in its unit files later', () => {
    const { open } = disk()
    const sights = open()
    expect(sights.settle(at(1), ['a.mjs'])).toEqual(contract('a.mjs'))
    expect(sights.settle(at(1), ['b.mjs'], false)).toEqual(contract('a.mjs'))
    expect(open().settle(at(1), ['b.mjs'], false)).toEqual(contract('a.mjs'))
    // Restarted, it is another process, of which PID 1 knows what it ran.
    expect(sights.settle(at(2), ['b.mjs'])).toEqual(contract('b.mjs'))
  })

  test('after PID 1 read its unit files anew is none, at any later look', () => {
    const { store, open } = disk()
    const sights = open()
    const broken = { ...contract('b.mjs'), intact: false }
    expect(sights.settle(at(1), ['b.mjs'], false)).toEqual(broken)
    expect(sights.settle(at(1), ['b.mjs'], false)).toEqual(broken)
    expect(store.writes).toBe(0)
  })

  test('of a program that PID 1 did not start is none', () => {
    const { store, open } = disk()
    const broken = { ...contract(), intact: false }
    const sights = new FirstSights(
      { bootId: 'b', text: undefined, save: () => (store.writes += 1) },
      () => true,
    )
    expect(sights.settle(broken, { instance: at(1), witnessed: true }).intact).toBe(false)
    expect(store.writes).toBe(0)
    expect(open().matches(at(1))).toBe(true)
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
    const full = Array.from({ length: MAX_FIRST_SIGHTS }, (_, index) => sight(index + 1))
    const { bootId } = store
    store.text = JSON.stringify({ schema: 'bagcheck.first-sights/v1', bootId, seen: full })
    const sights = open()
    sights.matches(at(1))
    for (let pid = 10_000; pid < 10_010; pid += 1) sights.matches(at(pid))
    expect(sights.matches(at(1, 2))).toBe(false)
    expect(sights.matches(at(12, 2))).toBe(false)
    expect(parseFirstSights(store.text, store.bootId)).toHaveLength(MAX_FIRST_SIGHTS)
    expect(open().matches(at(2, 2))).toBe(true) // the one that was asked about longest ago
  })
})

describe('the settings of a service', () => {
  const service = (user: string, asStarted: boolean): ServiceFacts =>
    ({
      ...{ fragment: null, dropIns: [], source: '', transient: false },
      needDaemonReload: false,
      asStarted,
      settings: { user },
    }) as unknown as ServiceFacts
  const unit = (facts: ServiceFacts): UnitFacts => ({
    ...{ launcher: 'systemd', name: 'a.service', cgroup: '/a.service', container: null },
    ...{ contract: contract('a.mjs'), service: facts },
  })

  test('are those it was started with, for as long as PID 1 tells the same', () => {
    const { store } = disk()
    const open = () =>
      new FirstSights(
        { bootId: 'b', text: store.text, save: (text) => (store.text = text) },
        () => true,
      )
    const look = (sights: FirstSights, facts: ServiceFacts, pid = 1, witnessed = true) =>
      sights.settleUnit(unit(facts), { instance: at(pid), witnessed }).service?.asStarted
    const sights = open()
    expect(look(sights, service('a', true))).toBe(true)
    // After a reload PID 1 vouches no more: what it tells has to be the same.
    expect(look(sights, service('a', false), 1, false)).toBe(true)
    expect(look(sights, service('b', false), 1, false)).toBe(false)
    expect(look(open(), service('b', true))).toBe(false)
    expect(look(open(), service('a', false))).toBe(true)
    // Not known at first sight, never known.
    expect(look(sights, service('a', false), 2)).toBe(false)
    expect(look(sights, service('a', true), 2)).toBe(false)
    // A first sight of no contract is none.
    expect(look(sights, service('a', true), 3, false)).toBe(false)
  })
})

const sight = (pid: number, changes: object = {}, startStack = 1) => {
  const instance = { ...at(pid, startStack), ...changes }
  return {
    settings: null,
    instance,
    executable: '/nix/store/x/bin/node',
    arguments: ['a.mjs', 'ü "'],
  }
}

describe('a file of first sights', () => {
  const seen = [sight(1), sight(2)]
  const good = { schema: 'bagcheck.first-sights/v1', bootId: 'b', seen }
  const outcome = (text: string): unknown => {
    try {
      return parseFirstSights(text, 'b')
    } catch (error) {
      if (error instanceof AgentError && error.code === 'STATE_INVALID') return error.code
      throw error
    }
  }
  const of = (changes: object): string => JSON.stringify({ ...good, ...changes })

  test.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['another schema', of({ schema: 'bagcheck.first-sights/v2' })],
    ['a member too many', of({ more: 1 })],
    ['no boot', JSON.stringify({ schema: good.schema, seen })],
    ['a boot that is no text', of({ bootId: 1 })],
    ['no list', of({ seen: {} })],
    ['too many', of({ seen: Array(MAX_FIRST_SIGHTS + 1).fill(sight(1)) })],
    ['a process twice', of({ seen: [sight(1), sight(1, {}, 2)] })],
    ['a process without a stack', of({ seen: [sight(1, { startStack: null })] })],
    ['a pid below none', of({ seen: [sight(-1)] })],
    ['an inode that is a number', of({ seen: [sight(1, { inode: 1 })] })],
    ['a program that is no path', of({ seen: [{ ...sight(1), executable: 'node' }] })],
    ['arguments that are no texts', of({ seen: [{ ...sight(1), arguments: [1] }] })],
    ['settings that are no digest', of({ seen: [{ ...sight(1), settings: 'x' }] })],
    ['no arguments', of({ seen: [{ ...sight(1), arguments: undefined }] })],
    ['another boot and a bad list', of({ bootId: 'c', seen: [1] })],
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
        (from, put) => void outcome(text.slice(0, from) + put + text.slice(from + 1)),
      ),
    )
  })
})
