// What a mistake of ours would look like: an observation that allows.
import type { Broker } from '../../src/broker.ts'
import { signEntry } from '../../src/signed-entry.ts'

export function commitObservationAsAllow(broker: Broker, node: string): Promise<unknown> {
  const statement = { subject: [], predicateType: 'x', predicate: {} }
  return broker.store.commitDecision({
    ...{ entryKind: 'observation', id: 'forged', allow: true, node, nonce: null, counter: 4711 },
    ...{ role: 'orders', audience: 'https://a', unit: 'orders', issuedAt: 1, expiresAt: 9 },
    ...{ code: null, evidence: Buffer.from('x'), expect: { policyVersion: 1, authority: null } },
    ...signEntry(statement, broker.log.key),
  })
}
