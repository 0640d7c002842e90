import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { BrokerProblem } from '../../src/front/broker-client.ts'
import type { IssuedToken } from '../../src/front/issue.ts'
import { refusalOf } from '../../src/front/problem.ts'
import { Session, type SessionEvent } from '../../src/front/session.ts'

const denial = new BrokerProblem(403, {
  error: 'access_denied',
  error_description: 'no',
  code: 'CLOSURE_NOT_APPROVED',
})
const down = new AgentError('BROKER_UNREACHABLE', 'down')

/** A session in a world where time passes when told. */
function world(options: { ttlSeconds?: number; random?: number; wipes?: true } = {}) {
  let nowMs = 1_000_000
  let issued = 0
  const timers = new Map<number, { atMs: number; action: () => void }>()
  let nextTimer = 0
  const asked: { previousDecision: string | null; workloadKey: string | null }[] = []
  const events: SessionEvent[] = []
  const wiped: string[] = []
  const state: { answer: AgentError | 'token' } = { answer: 'token' }
  const session = new Session({
    now: () => nowMs,
    random: () => options.random ?? 0.5,
    ...(options.wipes === undefined ? {} : { wipe: ({ decision }) => void wiped.push(decision) }),
    schedule: (action, delayMs) => {
      const id = nextTimer++
      timers.set(id, { atMs: nowMs + delayMs, action })
      return () => timers.delete(id)
    },
    issue: (ask) => {
      asked.push(ask)
      if (state.answer !== 'token') return Promise.reject(state.answer)
      issued += 1
      const token: IssuedToken = {
        accessToken: `token-${issued}`,
        tokenType: 'DPoP',
        expiresAt: nowMs / 1000 + (options.ttlSeconds ?? 100),
        audience: 'a',
        decision: `decision-${issued}`,
        logIndex: issued,
      }
      return Promise.resolve(token)
    },
  })
  const settle = () => new Promise((resolve) => setImmediate(resolve))
  return {
    session,
    asked,
    events,
    wiped,
    state,
    watch: () => session.watch((event) => events.push(event)),
    ask: (workloadKey: string | null = null) =>
      session.request({ ttlSeconds: null, profile: null, workloadKey }),
    /** Milliseconds until the next timer, or undefined. */
    due: () => [...timers.values()].map(({ atMs }) => atMs - nowMs).toSorted((a, b) => a - b)[0],
    async pass(milliseconds: number) {
      const end = nowMs + milliseconds
      for (;;) {
        const [next] = [...timers].toSorted(([, a], [, b]) => a.atMs - b.atMs)
        if (next === undefined || next[1].atMs > end) break
        timers.delete(next[0])
        nowMs = Math.max(nowMs, next[1].atMs)
        next[1].action()
        await settle()
      }
      nowMs = end
      await settle()
    },
  }
}

describe('a session', () => {
  test.each([
    [0, 45_000],
    [0.5, 50_000],
    [0.999_999, 55_000],
  ])('with chance %d renews after %d of 100,000 ms', async (random, due) => {
    const { ask, due: next } = world({ random })
    await ask()
    expect(Math.round(next()!)).toBe(due)
  })

  test('renews with the decision before it, as long as it is asked to live', async () => {
    const { ask, asked, pass, watch, events } = world()
    await ask('key')
    watch()
    await pass(175_000)
    expect(asked).toEqual([
      { ttlSeconds: null, profile: null, workloadKey: 'key', previousDecision: null },
      { ttlSeconds: null, profile: null, workloadKey: 'key', previousDecision: 'decision-1' },
      { ttlSeconds: null, profile: null, workloadKey: 'key', previousDecision: 'decision-2' },
      { ttlSeconds: null, profile: null, workloadKey: 'key', previousDecision: 'decision-3' },
    ])
    expect(events.map((event) => event.kind === 'token' && event.token.renewed)).toEqual([
      false,
      true,
      true,
      true,
    ])
  })

  test('drops its token at a denial, tells it, and backs off from 1 s to 60 s', async () => {
    const { ask, asked, pass, watch, events, state, session, due } = world()
    await ask()
    watch()
    state.answer = denial
    await pass(50_000)
    expect(session.token).toBeUndefined()
    expect(events.at(-1)).toMatchObject({ kind: 'denied', refusal: { status: 403 } })
    const delays: number[] = []
    for (let i = 0; i < 8; i += 1) {
      delays.push(Math.round(due()!))
      await pass(due()!)
    }
    expect(delays).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
    expect(asked.slice(2).every(({ previousDecision }) => previousDecision === null)).toBe(true)
    state.answer = 'token'
    await pass(60_000)
    expect(events.at(-1)).toMatchObject({ kind: 'token', token: { renewed: false } })
  })

  test('keeps its token through its second half while the broker is down, and no longer', async () => {
    const { ask, asked, pass, watch, events, state, session } = world()
    await ask()
    watch()
    state.answer = down
    await pass(99_000)
    expect(session.token?.decision).toBe('decision-1')
    expect(asked.length).toBeGreaterThan(4)
    expect(asked.at(-1)?.previousDecision).toBe('decision-1')
    await pass(10_000)
    expect(session.token).toBeUndefined()
    expect(events.at(-1)).toMatchObject({
      kind: 'denied',
      refusal: { status: 503, problem: { code: 'BROKER_UNREACHABLE' } },
    })
    state.answer = 'token'
    const before = asked.length
    await pass(60_000)
    expect(asked[before]?.previousDecision).toBeNull()
    expect(session.token).toBeDefined()
  })

  test('does not renew with another key: that is an issue, and the old token is gone', async () => {
    const { ask, asked, session, state } = world()
    await ask('first')
    state.answer = down
    await expect(ask('second')).rejects.toBe(down)
    expect(session.token).toBeUndefined()
    expect(asked[1]).toMatchObject({ workloadKey: 'second', previousDecision: null })
  })

  test('passes nothing on to one that expects another profile', async () => {
    const { ask, session, state } = world()
    await ask('key')
    state.answer = down
    const other = session.request({ ttlSeconds: null, profile: 'bound', workloadKey: 'key' })
    await expect(other).rejects.toBe(down)
    expect(session.token).toBeUndefined()
  })

  test('answers the same question asked twice at once with one token', async () => {
    const { ask, asked } = world()
    const [a, b, c] = await Promise.all([ask('key'), ask('key'), ask('other')])
    expect(a).toBe(b)
    expect(c?.decision).not.toBe(a?.decision)
    expect(asked).toHaveLength(2)
  })

  test('that was refused at first and is not watched asks no more by itself', async () => {
    const { ask, asked, pass, state, session, watch } = world()
    state.answer = denial
    await expect(ask()).rejects.toBe(denial)
    await pass(600_000)
    expect(asked).toHaveLength(1)
    expect(session.isIdle).toBe(true)
    const stop = watch()
    state.answer = 'token'
    await pass(60_000)
    expect(session.token).toBeDefined()
    stop()
  })

  test('that ended does nothing more, whatever was under way', async () => {
    const { ask, asked, pass, session, watch, events } = world()
    watch()
    const running = ask()
    session.end()
    await running
    await pass(1_000_000)
    expect(asked).toHaveLength(1)
    expect(events).toEqual([])
    expect(session.token).toBeUndefined()
  })

  describe('for its watchers alone', () => {
    test('tells who watches, wipes, and tells nobody later', async () => {
      const { ask, watch, events, wiped, session } = world({ wipes: true })
      watch()
      await ask()
      expect(events).toHaveLength(1)
      expect(wiped).toEqual(['decision-1'])
      watch()
      expect(events).toHaveLength(1)
      expect(session.hasEnded).toBe(false)
    })

    test('ends with its last watcher, also while something is under way', async () => {
      const { ask, asked, watch, wiped, pass, session, events } = world({ wipes: true })
      const [one, two] = [watch(), watch()]
      one()
      const running = ask()
      two()
      await running
      expect(session.hasEnded).toBe(true)
      expect([events, wiped]).toEqual([[], ['decision-1']])
      await pass(1_000_000)
      expect(asked).toHaveLength(1)
    })

    test('renews what is held when told to, and not what is not', async () => {
      const { ask, asked, watch, pass, session } = world({ wipes: true })
      watch()
      session.renewWithin(1000)
      await pass(1000)
      expect(asked).toHaveLength(0)
      await ask()
      session.renewWithin(1000)
      await pass(1000)
      expect(asked.map(({ previousDecision }) => previousDecision)).toEqual([null, 'decision-1'])
    })
  })

  test('is renewed sooner when told to, and never later', async () => {
    const { ask, due, session } = world()
    await ask()
    const first = due()!
    session.renewWithin(0, first + 1_000_000)
    expect(due()).toBe(first)
    session.renewWithin(0, 1000)
    expect(due()).toBeLessThan(first)
  })

  test('that holds a token drops it when its bag is denied elsewhere, and measures anew at once', async () => {
    const { ask, asked, pass, watch, events, session } = world()
    await ask()
    watch()
    session.deny(refusalOf(denial))
    expect(session.token).toBeUndefined()
    expect(events.at(-1)).toMatchObject({ kind: 'denied' })
    await pass(0)
    expect(asked.at(-1)?.previousDecision).toBeNull()
    expect(events.at(-1)).toMatchObject({ kind: 'token', token: { renewed: false } })
  })

  test('whose bag is denied elsewhere hands out nothing of what was under way', async () => {
    const { ask, asked, session, due } = world()
    const running = ask()
    session.deny(refusalOf(denial))
    await expect(running).rejects.toThrow('no')
    expect(session.token).toBeUndefined()
    expect(asked).toHaveLength(1)
    expect(due()).toBeUndefined()
  })

  test('wipes what it must not hand out', async () => {
    const { ask, watch, session, wiped, events } = world({ wipes: true })
    watch()
    const asked = ask()
    session.deny(refusalOf(denial))
    await expect(asked).rejects.toThrow()
    expect([wiped, events.map(({ kind }) => kind)]).toEqual([['decision-1'], ['denied']])
  })

  test('that holds nothing is not driven by denials elsewhere', async () => {
    const { ask, asked, session, state, pass } = world()
    state.answer = denial
    await expect(ask()).rejects.toBe(denial)
    for (let n = 0; n < 10; n += 1) session.deny(refusalOf(denial))
    await pass(0)
    expect(asked).toHaveLength(1)
  })
})
