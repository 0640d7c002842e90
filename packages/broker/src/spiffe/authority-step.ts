// A step in the life of an authority, as the log holds it: signed by a broker, so that the history of the
// trust bundle can be audited, and no row of a database can put a key into it.
import { hash } from 'node:crypto'
import { AUTHORITY_SCHEMA, authorityStepSchema, type AuthorityStep } from '@bagcheck/api'
import { AUTHORITY_V1, type SigningKey } from '@bagcheck/attest'
import { BrokerError, quote } from '../error.ts'
import { checkSignature, readLoggedStatement, type LoggedStatement } from '../logged-statement.ts'
import type { RecordTrust } from '../logged-records.ts'
import { signEntry } from '../signed-entry.ts'
import type { EnvelopedEntry } from '../store/log-reads.ts'
import type { AuthorityInput } from '../store/writes.ts'

/** A step with the log entry that it is. */
export interface LoggedStep extends AuthorityStep {
  readonly entry: number
}

/** A step to commit. */
export function signStep(step: Omit<AuthorityStep, 'schema'>, key: SigningKey): AuthorityInput {
  const { authority: id, kind, action, at, expiresAt, supersedes } = step
  const statement = {
    subject: [{ name: `authority:${kind}`, digest: { sha256: hash('sha256', id, 'hex') } }],
    predicateType: AUTHORITY_V1,
    predicate: { schema: AUTHORITY_SCHEMA, ...step },
  }
  const entry = signEntry(statement, key)
  return { id, authorityKind: kind, action, at, expiresAt, supersedes, ...entry }
}

/** Reads a step from its log entry. @throws {BrokerError} LOG_CORRUPT – no broker of this installation said it */
export function readStep(entry: EnvelopedEntry, trust: RecordTrust): LoggedStep {
  const statement = readLoggedStatement(entry)
  if (statement.kind === 'authority') return stepOf(statement, trust)
  throw corrupt(entry.index, 'a step of an authority', statement.kind)
}

/** As {@link readStep}, from a statement of that kind. */
export function stepOf(statement: LoggedStatement, trust: RecordTrust): LoggedStep {
  const { index } = statement.entry
  checkSignature(statement, trust.brokerKeys)
  const step = authorityStepSchema.safeParse(statement.predicate)
  if (!step.success) throw corrupt(index, 'a step of an authority', 'something else')
  const { installation } = step.data
  if (installation !== trust.installation)
    throw corrupt(index, `installation ${quote(trust.installation)}`, quote(installation))
  return { ...step.data, entry: index }
}

function corrupt(index: number, expected: string, seen: string): BrokerError {
  return new BrokerError('LOG_CORRUPT', `log entry ${index}: expected ${expected}, saw ${seen}`)
}
