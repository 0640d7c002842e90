// What keeps token files from each other, and from the time after the agent. The rest is in token-files.system.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { HeldToken, SessionEvent } from '../../src/front/session.ts'
import type { Sessions } from '../../src/front/sessions.ts'
import { TokenFiles } from '../../src/front/token-files.ts'
import { readInstance } from '../../src/measure/instance.ts'

const own = readInstance(process.pid)
const token = { accessToken: 'token-1', tokenType: 'Bearer' } as HeldToken
let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-files-'))
  mkdirSync(join(directory, 'tokens'), { mode: 0o700 })
})
afterEach(() => rmSync(directory, { recursive: true }))

const file = (unit: string) => ({
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
    sessions,
    measurer: { find: () => found.promise, check: () => Promise.resolve() },
    log: () => undefined,
  })
  files[Symbol.dispose]()
  found.resolve([own])
  await sleep(50)
  expect(existsSync(join(directory, 'tokens/quick'))).toBe(false)
})
