// What a new broker is given before it can issue anything.
import { setTimeout as sleep } from 'node:timers/promises'
import { expectJson, json, type HttpClient } from './http.ts'
import type { Installation } from './installation.ts'

/** Publishes a policy, submits all attestations, and waits until every replica has the policy. */
export async function furnish(
  installation: Installation,
  replicas: readonly HttpClient[],
  size: { roots: number; roles: number },
): Promise<void> {
  const [first] = replicas
  if (first === undefined) throw new TypeError('expected a broker')
  const { json: policy, envelope } = installation.policy(size)
  await expectJson(first.send('POST', '/v1/policy', json({ policy, envelope })), 200)
  for (const { submission } of installation.services)
    await expectJson(first.send('POST', '/v1/attestations', json(submission)), 200)
  for (const replica of replicas)
    while ((await replica.send('GET', '/v1/policy')).status !== 200) await sleep(200)
}
