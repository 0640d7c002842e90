// What keeps token files from each other, and from the time after the agent. The rest is in token-files.system.
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { HeldToken, SessionEvent } from '../../src/front/session.ts'
import type { Sessions } from '../../src/front/sessions.ts'
import { TokenFiles, type TokenFile } from '../../src/front/token-files.ts'
import { formatKeptTokens } from '../../src/front/kept-tokens.ts'
import { readInstance } from '../../src/measure/instance.ts'

const own = readInstance(process.pid)
const token = { accessToken: 'token-1', tokenType: 'Bearer', expiresAt: 2000 } as HeldToken
/** A store that nothing was written to, and half of the token's life. */
const fresh = {
  store: { text: undefined, save: () => undefined, bootId: 'boot' },
  now: () => 1_000_000,
}
let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-files-'))
  mkdirSync(join(directory, 'tokens'), { mode: 0o700 })
})
afterEach(() => rmSync(directory, { recursive: true }))

const file = (unit: string): TokenFile => ({
  ...{ unit, audience: `https://${unit}`, path: join(directory, 'tokens', unit), owner: null },
  ...{ mode: 0o400, profile: null, ttlSeconds: null },
})

/** Sessions that answer `slow` never, and everybody else at once. */
const sessions = {
  open: (_asking: unknown, audience: string) => {
    let hear: (event: SessionEvent) => void
    return {
      watch: (heard: typeof hear) => {
        hear = heard
        return () => undefined
      },
      request: () => {
        if (audience.endsWith('slow')) return new Promise(() => undefined)
        hear({ kind: 'token', token })
        return Promise.resolve(token)
      },
    }
  },
} as unknown as Pick<Sessions, 'open'>

test('a unit that takes for ever to measure does not keep the files of others from being looked at', async () => {
  let checks = 0
  using _ = new TokenFiles([file('quick'), file('slow')], {
    ...fresh,
    sessions,
    measurer: {
      find: () => Promise.resolve([own]),
      check: () => {
        checks += 1
        return Promise.resolve()
      },
    },
    log: () => undefined,
  })
  await expect.poll(() => existsSync(join(directory, 'tokens/quick'))).toBe(true)
  await expect.poll(() => checks, { timeout: 20_000 }).toBeGreaterThan(4)
})

test('nothing is written once the agent has stopped, whatever was under way', async () => {
  const found = Promise.withResolvers<(typeof own)[]>()
  const files = new TokenFiles([file('quick')], {
    ...fresh,
    ...fresh,
    sessions,
    measurer: { find: () => found.promise, check: () => Promise.resolve() },
    log: () => undefined,
  })
  files[Symbol.dispose]()
  found.resolve([own])
  await sleep(50)
  expect(existsSync(join(directory, 'tokens/quick'))).toBe(false)
})

/** Starts after an agent that left `found` in the file, of which `said` was written down. */
const restart = (
  said: Partial<{ bootId: string; instance: typeof own; expiresAt: number; mode: number }> = {},
  found = 'token-0',
): TokenFiles => {
  const { bootId = 'boot', instance = own, expiresAt = 2000, mode = 0o400 } = said
  writeFileSync(file('quick').path, found)
  const sha256 = createHash('sha256').update('token-0').digest('hex')
  const before = { file: { ...file('quick'), mode }, instance, sha256, expiresAt }
  return new TokenFiles([file('quick')], {
    ...fresh,
    store: { ...fresh.store, text: formatKeptTokens(bootId, [before]) },
    sessions,
    measurer: { find: () => new Promise(() => undefined), check: () => Promise.resolve() },
    log: () => undefined,
  })
}
const left = (): string | undefined =>
  existsSync(file('quick').path) ? readFileSync(file('quick').path, 'utf8') : undefined

test('a token in force, of a process that runs, is still there after a restart and after a stop', () => {
  restart()[Symbol.dispose]()
  expect(left()).toBe('token-0')
})

test.each([
  ['a process that ended', { instance: { ...own, startTicks: own.startTicks - 1 } }],
  ['an earlier boot', { bootId: 'before' }],
  ['an expired token', { expiresAt: 1000 }],
  ['another mode of the file', { mode: 0o440 }],
])('what was left by %s is removed at the start', (_what, said) => {
  using _ = restart(said)
  expect(left()).toBeUndefined()
})

test('what was not written down is removed at the start, whatever it is', () => {
  using _ = restart({}, 'token-of-another')
  expect(left()).toBeUndefined()
})

test('a file that is not configured any more is removed at the start', () => {
  const text = formatKeptTokens('boot', [
    { file: file('gone'), instance: own, sha256: '', expiresAt: 2000 },
  ])
  writeFileSync(file('gone').path, 'token-0')
  using _ = new TokenFiles([], {
    ...{ ...fresh, store: { ...fresh.store, text }, sessions, log: () => undefined },
    measurer: { find: () => Promise.resolve([]), check: () => Promise.resolve() },
  })
  expect(existsSync(file('gone').path)).toBe(false)
})

test('a denied token that could not be removed is not taken for one in force by the next agent', async () => {
  let hear: (event: SessionEvent) => void = () => undefined
  let saved = ''
  const files = new TokenFiles([file('quick')], {
    ...{ ...fresh, store: { ...fresh.store, save: (text: string) => void (saved = text) } },
    sessions: {
      open: () => ({
        watch: (heard: typeof hear) => {
          hear = heard
          return () => undefined
        },
        request: () => {
          hear({ kind: 'token', token })
          return Promise.resolve(token)
        },
      }),
    } as unknown as Pick<Sessions, 'open'>,
    measurer: { find: () => Promise.resolve([own]), check: () => Promise.resolve() },
    log: () => undefined,
  })
  await expect.poll(left).toBe('token-1')
  chmodSync(join(directory, 'tokens'), 0o770) // nothing is written or removed in such a one
  const problem = { error: 'access_denied', error_description: 'denied', code: 'DENIED' } as const
  hear({ kind: 'denied', refusal: { status: 403, problem } })
  files[Symbol.dispose]()
  expect(left()).toBe('token-1')
  chmodSync(join(directory, 'tokens'), 0o700)
  using _ = new TokenFiles([file('quick')], {
    ...{ ...fresh, store: { ...fresh.store, text: saved }, sessions, log: () => undefined },
    measurer: { find: () => new Promise(() => undefined), check: () => Promise.resolve() },
  })
  expect(left()).toBeUndefined()
})

test.each([
  ['runs no more', []],
  ['runs twice', [own, own]],
  ['was started anew', [{ ...own, startCode: own.startCode + 1 }]],
])('what was left is removed when its unit %s', async (_what, instances) => {
  writeFileSync(file('slow').path, 'token-0')
  const sha256 = createHash('sha256').update('token-0').digest('hex')
  const before = { file: file('slow'), instance: own, sha256, expiresAt: 2000 }
  using _ = new TokenFiles([file('slow')], {
    ...{ ...fresh, sessions, log: () => undefined },
    store: { ...fresh.store, text: formatKeptTokens('boot', [before]) },
    measurer: { find: () => Promise.resolve(instances), check: () => Promise.resolve() },
  })
  await expect.poll(() => existsSync(file('slow').path), { timeout: 20_000 }).toBe(false)
})
