// Join tokens: an `enrolment` key of the trust root allows one new node of one class, once, for a while.
// That it is used once is the broker's business; here is who signed it, for whom and until when.
import {
  type Envelope,
  type SigningKey,
  JOIN_TOKEN_V1,
  STATEMENT_TYPE,
  formatStatement,
  parseEnvelope,
  signEnvelope,
  verifyStatement,
} from '@bagcheck/attest'
import { PolicyError, messageOf } from './error.ts'
import { installationName } from './installation-name.ts'
import {
  type Read,
  integer,
  literal,
  matching,
  readStrictly,
  record,
  simpleName,
  time,
} from './reader.ts'
import { type TrustRoot, subjectOf } from './trust-root.ts'

export const JOIN_TOKEN_SCHEMA = 'bagcheck.join-token/v1'

const tokenReader = record({
  schema: literal(JOIN_TOKEN_SCHEMA),
  installation: installationName,
  tokenId: matching('32 lower-case hex digits', /^[0-9a-f]{32}$/),
  nodeClass: simpleName,
  notBefore: time,
  expires: time,
  nodeExpiresSeconds: integer(60, 10 * 366 * 86_400),
})

/** Permission for one node to enrol. `nodeExpiresSeconds` is how long the node's key may be used. */
export type JoinToken = Read<typeof tokenReader>

/** Signs a join token. @throws {PolicyError} JOIN_TOKEN_FORMAT */
export function createJoinToken(token: Omit<JoinToken, 'schema'>, key: SigningKey): Envelope {
  const predicate = readToken({ ...token, schema: JOIN_TOKEN_SCHEMA })
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [subjectOf(token.installation)],
    predicateType: JOIN_TOKEN_V1,
    predicate,
  } as const
  return signEnvelope(formatStatement(statement), [key])
}

/**
 * Verifies who signed a join token, and for which installation; says nothing about time or use.
 * @throws {PolicyError} JOIN_TOKEN_FORMAT, JOIN_TOKEN_SIGNATURE, JOIN_TOKEN_INSTALLATION
 */
export function verifyJoinTokenDocument(envelope: string, root: TrustRoot): JoinToken {
  const { keys, threshold } = root.roles.enrolment
  let predicate: unknown
  try {
    const parsed = parseEnvelope(Buffer.from(envelope))
    predicate = verifyStatement(parsed, keys, threshold, JOIN_TOKEN_V1).statement.predicate
  } catch (cause) {
    throw new PolicyError(
      'JOIN_TOKEN_SIGNATURE',
      `expected a join token signed by an enrolment key: ${messageOf(cause)}`,
      { cause },
    )
  }
  const token = readToken(predicate)
  if (token.installation !== root.installation)
    throw new PolicyError(
      'JOIN_TOKEN_INSTALLATION',
      `expected a join token of installation ${root.installation}, saw ${token.installation}`,
    )
  return token
}

/**
 * Verifies a join token that is to be used now.
 * @throws {PolicyError} what {@link verifyJoinTokenDocument} throws; JOIN_TOKEN_NOT_YET_VALID, JOIN_TOKEN_EXPIRED
 */
export function verifyJoinToken(envelope: string, root: TrustRoot, now: Date): JoinToken {
  const token = verifyJoinTokenDocument(envelope, root)
  // Written so that a time that is not one refuses.
  if (!(now.getTime() >= Date.parse(token.notBefore)))
    throw new PolicyError(
      'JOIN_TOKEN_NOT_YET_VALID',
      `the join token is valid from ${token.notBefore}`,
    )
  if (!(now.getTime() < Date.parse(token.expires)))
    throw new PolicyError('JOIN_TOKEN_EXPIRED', `the join token expired at ${token.expires}`)
  return token
}

function readToken(value: unknown): JoinToken {
  const token = readStrictly(tokenReader, value, 'JOIN_TOKEN_FORMAT', 'join token')
  if (token.notBefore >= token.expires)
    throw new PolicyError(
      'JOIN_TOKEN_FORMAT',
      `expected notBefore before expires, saw ${token.notBefore} and ${token.expires}`,
    )
  return token
}
