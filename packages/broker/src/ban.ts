// Banning a node: a signed entry in the log, and from then on no token for it. The store refuses its
// decisions in every replica at once; this process also refuses them before looking at anything.
import { BAN_V1 } from '@bagcheck/attest'
import { z } from 'zod'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import { thumbprintHex } from './keys.ts'
import { signEntry } from './signed-entry.ts'

/** `schema` of a ban. */
export const BAN_SCHEMA = 'bagcheck.ban/v1'

const banSchema = z.strictObject({
  schema: z.literal(BAN_SCHEMA),
  installation: z.string(),
  node: z.string(),
  keyThumbprint: z.string(),
  reason: z.string(),
  bannedAt: z.int().nonnegative(),
})

/** Predicate of a ban's statement. */
export type Ban = z.infer<typeof banSchema>

/** What a ban says, from a statement that was verified. @throws {BrokerError} LOG_CORRUPT */
export function readBan(predicate: unknown): Ban {
  const ban = banSchema.safeParse(predicate)
  if (ban.success) return ban.data
  throw new BrokerError('LOG_CORRUPT', 'expected a ban of this version, saw something else')
}

/**
 * Bans a node for good and returns the log index of the entry.
 * @param cause for the metrics: a code or `admin`
 * @throws {BrokerError} NODE_UNKNOWN, STORE_*
 */
export async function banNode(
  broker: Broker,
  id: string,
  reason: string,
  cause: 'NODE_KEY_CLONED' | 'admin',
): Promise<number> {
  const node = await broker.nodes.find(id)
  if (node === undefined)
    throw new BrokerError('NODE_UNKNOWN', `expected an enrolled node, saw ${quote(id)}`)
  const bannedAt = Math.floor(broker.clock.nowMs() / 1000)
  const statement = {
    subject: [{ name: `node:${id}`, digest: { sha256: thumbprintHex(node.keyThumbprint) } }],
    predicateType: BAN_V1,
    predicate: {
      schema: BAN_SCHEMA,
      installation: broker.config.installation,
      node: id,
      keyThumbprint: node.keyThumbprint,
      reason,
      bannedAt,
    },
  }
  const { index } = await broker.store.banNode({
    node: id,
    reason,
    bannedAt,
    ...signEntry(statement, broker.keys.decision),
  })
  broker.nodes.ban(id, bannedAt, reason)
  broker.metrics.nodesBanned.add(cause)
  broker.logger.warn({ node: id, cause }, 'node banned')
  return index
}

/** The same counter under two nonces: two holders of one node key, and no telling which is the node. */
export async function banClone(
  broker: Broker,
  node: string,
  counter: number,
): Promise<BrokerError> {
  const reason = `counter ${counter} was used twice`
  await banNode(broker, node, reason, 'NODE_KEY_CLONED')
  return new BrokerError(
    'NODE_KEY_CLONED',
    `the key of node ${node} is in use twice (${reason}); the node is banned`,
  )
}
