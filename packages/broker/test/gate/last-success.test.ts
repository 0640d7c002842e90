import { afterEach, beforeEach, expect, test } from 'vitest'
import { createInstallation, START, type Installation } from './installation.ts'

let self: Installation

beforeEach(async () => {
  self = await createInstallation()
  await self.ready()
})
afterEach(() => self[Symbol.asyncDispose]())

const scrape = async (): Promise<string> => (await self.request('GET', '/metrics')).text()

async function listed(): Promise<Record<string, number | null>> {
  const answer = await self.request('GET', '/v1/nodes', undefined, true)
  const { nodes } = (await answer.json()) as { nodes: { node: string; lastSuccessAt: number }[] }
  return Object.fromEntries(nodes.map(({ node, lastSuccessAt }) => [node, lastSuccessAt]))
}

test('a node and a role say when they last got a token; a denial is no success, and a restart forgets nothing', async () => {
  const [node, silent] = [await self.enrol(), await self.enrol()]
  expect(await listed()).toEqual({ [node.id]: null, [silent.id]: null })
  expect((await self.token(await self.evidence(node))).status).toBe(200)
  self.nowMs += 20_000
  const wrong = await self.evidence(silent, { edit: (e) => (e.facts.unit.name = 'other') })
  expect((await self.token(wrong)).status).toBe(403)
  self.nowMs += 20_000
  expect(await listed()).toEqual({ [node.id]: START, [silent.id]: null })
  self.nowMs += 3_600_000
  await self.restart()
  const text = await scrape()
  expect(text).toContain(`node_last_success_seconds{node="${node.id}",class="demo"} ${START}\n`)
  expect(text).not.toContain(`node="${silent.id}"`)
  expect(text).toContain(`role_last_success_seconds{role="orders",unit="orders"} ${START}\n`)
  expect(text).toContain('nodes_silent{seconds="3600"} 2\n')
  expect(text).toContain('nodes_silent{seconds="86400"} 0\n')
  expect(await listed()).toEqual({ [node.id]: START, [silent.id]: null })
  const at = self.nowMs / 1000
  expect((await self.token(await self.evidence(node))).status).toBe(200)
  self.nowMs += 6000
  expect(await scrape()).toContain(`node="${node.id}",class="demo"} ${at}\n`)
  expect(await scrape()).toContain('nodes_silent{seconds="3600"} 1\n')
})

test('a banned node is no longer missed', async () => {
  const node = await self.enrol()
  self.nowMs += 700_000
  expect(await scrape()).toContain('nodes_silent{seconds="600"} 1\n')
  await self.request('POST', `/v1/nodes/${node.id}/ban`, { reason: 'test' }, true)
  expect(await scrape()).toContain('nodes_silent{seconds="600"} 0\n')
})
