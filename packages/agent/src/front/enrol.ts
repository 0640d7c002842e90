// Enrolment, once in the life of a node: the join token and a proof of the node key. The key is durable
// before it is shown to the broker.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import type { BrokerClient } from './broker-client.ts'
import { signJws, type SigningKey } from './jws.ts'
import type { AgentState, NodeIdentity } from './state.ts'

/**
 * The node as enrolled, now or before.
 * @throws {AgentError} NOT_ENROLLED without a join token; STATE_INVALID if the key is not the enrolled
 *   one; what the broker client throws
 */
export async function ensureEnrolled(options: {
  readonly state: AgentState
  readonly key: SigningKey
  readonly broker: BrokerClient
  readonly issuer: string
  readonly joinToken: string | null
  readonly now: () => number
}): Promise<NodeIdentity> {
  const { state, key, broker, issuer, joinToken, now } = options
  const known = state.readNode()
  if (known !== undefined) {
    if (known.keyThumbprint === key.thumbprint) return known
    throw new AgentError('STATE_INVALID', `the key in ${state.keyFile} is not the one enrolled`)
  }
  if (joinToken === null)
    throw new AgentError('NOT_ENROLLED', 'this node is not enrolled: configure joinToken')
  const envelope = readJoinToken(joinToken)
  const proof = signJws(
    { typ: 'bagcheck-enrol+jwt', jwk: key.jwk },
    {
      aud: issuer,
      iat: Math.floor(now() / 1000),
      joinToken: createHash('sha256').update(envelope).digest('hex'),
    },
    key,
  )
  const { node, nodeClass, expiresAt } = await broker.enrol({ joinToken: envelope, proof })
  const identity = { node, nodeClass, expiresAt, keyThumbprint: key.thumbprint }
  state.writeNode(identity)
  return identity
}

function readJoinToken(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new AgentError('NOT_ENROLLED', `cannot read the join token at ${quote(file)}`, { cause })
  }
}
