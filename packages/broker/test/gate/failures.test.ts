// What breaks around the gate: the clock and the store. Each time there is a code and no token.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { allowedDecisions, bodyOf, expectRefusal } from './answers.ts'
import {
  attestedClosure,
  createInstallation,
  type Installation,
  type TestNode,
} from './installation.ts'

let self: Installation
let node: TestNode
beforeEach(async () => {
  self = await createInstallation()
  await self.ready()
  node = await self.enrol()
})
afterEach(() => self[Symbol.asyncDispose]())

describe('a clock that steps back', () => {
  test('mints nothing until it has caught up', async () => {
    const evidence = await self.evidence(node)
    self.nowMs -= 5001
    await expectRefusal(await self.token(evidence), 503, 'CLOCK_STEPPED_BACK')
    await expectRefusal(
      await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'issue' }),
      503,
      'CLOCK_STEPPED_BACK',
    )
    expect((await self.request('GET', '/readyz')).status).toBe(503)
    expect(await allowedDecisions(self, node)).toBe(0)
    self.nowMs += 5001
    expect((await self.token(evidence)).status).toBe(200)
  })

  test('by a little is ordinary', async () => {
    const evidence = await self.evidence(node)
    self.nowMs -= 4000
    expect((await self.token(evidence)).status).toBe(200)
  })

  test.each([
    ['its last decision', async () => undefined],
    [
      'its last decision, also if an attestation came after it',
      async () => {
        const { request } = attestedClosure(self.ci, 'another service')
        expect((await self.request('POST', '/v1/attestations', request)).status).toBe(200)
      },
    ],
  ])('while the broker was down is noticed by %s', async (_, then) => {
    await self.token(await self.evidence(node))
    await then()
    self.nowMs -= 60_000
    await self.restart()
    await expectRefusal(
      await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'issue' }),
      503,
      'CLOCK_STEPPED_BACK',
    )
  })
})

test('once the trust root has expired nothing is issued and the broker is not ready', async () => {
  const rootExpires = '2026-11-24T09:00:00Z'
  await using other = await createInstallation({ rootExpires })
  await other.ready()
  const its = await other.enrol()
  expect((await other.request('GET', '/readyz')).status).toBe(200)
  other.nowMs = Date.parse(rootExpires)
  await expectRefusal(await other.token(await other.evidence(its)), 403, 'POLICY_NOT_IN_FORCE')
  const response = await other.request('GET', '/readyz')
  const detail = `the trust root of policy version 1 expired at ${rootExpires}`
  const policy = { name: 'policy', ok: false, detail }
  expect([response.status, await bodyOf(response)]).toMatchObject([
    503,
    { ready: false, checks: [{ ok: true }, { ok: true }, policy] },
  ])
  const metrics = await (await other.request('GET', '/metrics')).text()
  expect(metrics).toContain('policy_expires_seconds 0\n')
})

test('without its store the broker answers 503 and mints nothing', async () => {
  const evidence = await self.evidence(node)
  await self.broker.store.close()
  await expectRefusal(await self.token(evidence), 503, 'STORE_UNAVAILABLE')
  const response = await self.request('GET', '/readyz')
  expect([response.status, await bodyOf(response)]).toMatchObject([503, { ready: false }])
  expect((await self.request('GET', '/livez')).status).toBe(200)
  expect(await (await self.request('GET', '/metrics')).text()).toContain('store_up 0')
})
