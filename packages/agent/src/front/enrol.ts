// Enrolment, once in the life of a node: the join token and a proof of the node key.
//
// A join token is good once, so an answer that gets lost must not cost it. Key and join token are durable
// before the broker is asked, and the broker answers the same key and join token alike however often. The
// crash points:
//   before the ask          nothing is used up; the next start asks
//   after the ask           the next start asks the same again, also if the operator took the token away
//   after node.json         the node is enrolled; what is left of the join token goes at the next start
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { AgentError, quote } from '../error.ts'
import { BrokerProblem, type BrokerClient } from './broker-client.ts'
import { signJws, type SigningKey } from './jws.ts'
import type { AgentState, NodeIdentity } from './state.ts'

/** What enrolling needs. */
export interface EnrolContext {
  readonly state: AgentState
  readonly key: SigningKey
  readonly broker: Pick<BrokerClient, 'enrol'>
  readonly issuer: string
  /** File of the configured join token. */
  readonly joinToken: string | null
  readonly readText?: (file: string) => string
  readonly now: () => number
}

/**
 * The node as enrolled, now or before.
 * @throws {AgentError} NOT_ENROLLED without a join token; STATE_INVALID if the key is not the enrolled
 *   one; what the broker client throws
 */
export async function ensureEnrolled(context: EnrolContext): Promise<NodeIdentity> {
  const { state, key, joinToken } = context
  const known = state.readNode()
  if (known !== undefined) {
    state.dropPendingJoin()
    if (known.keyThumbprint === key.thumbprint) return known
    throw new AgentError('STATE_INVALID', `the key in ${state.keyFile} is not the one enrolled`)
  }
  const pending = state.readPendingJoin()
  if (pending === undefined) return enrol(readJoinToken(context), context)
  try {
    return await enrol(pending, context)
  } catch (error) {
    // Refused, so it did not enrol us: perhaps the operator has put another in its place.
    if (!isRefusal(error) || joinToken === null) throw error
    const configured = readJoinToken(context)
    if (configured === pending) throw error
    return enrol(configured, context)
  }
}

async function enrol(envelope: string, context: EnrolContext): Promise<NodeIdentity> {
  const { state, key, broker, issuer, now } = context
  state.writePendingJoin(envelope)
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
  state.dropPendingJoin()
  return identity
}

/**
 * The broker looked at the join token, and said no. That stays so, also where the same status is said of a
 * conflict that passes: an agent that goes on asking with a join token that somebody else used hides a theft.
 */
export function isRefusal(error: unknown): boolean {
  return error instanceof BrokerProblem && error.status < 500 && error.status !== 429
}

function readJoinToken({ joinToken: file, readText = readFile }: EnrolContext): string {
  if (file === null)
    throw new AgentError('NOT_ENROLLED', 'this node is not enrolled: configure joinToken')
  try {
    return readText(file)
  } catch (cause) {
    throw new AgentError('NOT_ENROLLED', `cannot read the join token at ${quote(file)}`, { cause })
  }
}

const readFile = (file: string): string => readFileSync(file, 'utf8')
