// What breaks around the gate: the clock and the store. Each time there is a code and no token.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { allowedDecisions, bodyOf, expectRefusal } from './answers.ts'
import { createInstallation, type Installation, type TestNode } from './installation.ts'

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

  test('while the broker was down is noticed by its last decision', async () => {
    await self.token(await self.evidence(node))
    self.nowMs -= 60_000
    await self.restart()
    await expectRefusal(
      await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'issue' }),
      503,
      'CLOCK_STEPPED_BACK',
    )
  })
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
