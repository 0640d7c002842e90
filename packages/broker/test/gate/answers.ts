import { expect } from 'vitest'
import type { Installation } from './installation.ts'

/** A parsed answer, for looking at. */
// oxlint-disable-next-line typescript/no-explicit-any
export const bodyOf = async (response: Response): Promise<any> => response.json()

/** Expects a refusal with this status and code and returns the problem. */
export async function expectRefusal(
  response: Response,
  status: number,
  code: string,
): Promise<Record<string, unknown>> {
  const problem = await bodyOf(response)
  expect([response.status, problem.code, problem.access_token]).toEqual([status, code, undefined])
  expect(response.headers.get('cache-control')).toBe('no-store')
  return problem
}

/** How many tokens the log allows this node. */
export async function allowedDecisions(self: Installation, node: { id: string }): Promise<number> {
  const decisions = await self.broker.store.decisions({ allow: true, limit: 1000 })
  return decisions.filter((decision) => decision.node === node.id).length
}

/** The code under which the last decision was logged; null for an allow. */
export async function lastLoggedCode(self: Installation): Promise<string | null | undefined> {
  return (await self.broker.store.decisions({ limit: 1 }))[0]?.code
}

/** As {@link allowedDecisions}, asked over the admin socket. */
export async function allowedDecisionsOf(
  self: Installation,
  node: { id: string },
): Promise<number> {
  const response = await self.request('GET', '/v1/decisions?allow=true', undefined, true)
  const { decisions } = (await response.json()) as { decisions: { node: string }[] }
  return decisions.filter((decision) => decision.node === node.id).length
}
