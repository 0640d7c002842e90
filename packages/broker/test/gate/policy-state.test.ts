import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { sha256Hex } from '@bagcheck/attest'
import { PolicyState } from '../../src/policy-state.ts'
import { createInstallation, START } from './installation.ts'
import type { Installation } from './installation.ts'

type StoredPolicy = Awaited<ReturnType<Installation['broker']['store']['installedPolicy']>>

let self: Installation
beforeEach(async () => {
  self = await createInstallation()
})
afterEach(() => self[Symbol.asyncDispose]())

describe('a store that says something else than before', () => {
  /** Policy state over the real texts, with the row of the installed version in our hands. */
  const follow = (): { state: PolicyState; show: (version: number, row?: number) => void } => {
    const first = self.policy({ version: 1, state: 'active' })
    const second = self.policy({ version: 2, prev: first.sha256, state: 'revoked' })
    const texts = [first, second]
    const bodies = new Map<string, Buffer>(
      texts
        .flatMap(({ policy, envelope }) => [policy, envelope])
        .map((text) => [sha256Hex(text), Buffer.from(text)]),
    )
    let shown: StoredPolicy
    const state = new PolicyState({
      store: {
        ...self.broker.store,
        installedPolicy: async () => shown,
        body: async ({ sha256 }) => bodies.get(sha256),
      },
      root: self.broker.root,
      rootChain: [],
    })
    const show = (version: number, row = version): void => {
      const { policy, envelope } = texts[version - 1] as (typeof texts)[number]
      const digests = { sha256: sha256Hex(policy), envelopeSha256: sha256Hex(envelope) }
      shown = { ...digests, version: row, entryIndex: version, installedAt: START }
    }
    return { state, show }
  }

  test('and is older does not bring back what was revoked since', async () => {
    const { state, show } = follow()
    show(2)
    await state.reload()
    show(1)
    await expect(state.reload()).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect(state.installed().version).toBe(2)
  })

  test('and is newer is followed', async () => {
    const { state, show } = follow()
    show(1)
    await state.reload()
    show(2)
    await state.reload()
    expect(state.installed().version).toBe(2)
  })

  test('cannot pass an older text off as the version after', async () => {
    const { state, show } = follow()
    show(2)
    await state.reload()
    show(1, 3)
    await expect(state.reload()).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect(state.installed().version).toBe(2)
  })
})
