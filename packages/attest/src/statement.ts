// in-toto Statement v1: `{_type, subject: [{name, digest}…], predicateType, predicate}`.
//
// Subjects are matched by digest alone. Unrecognised members are ignored (in-toto's parsing rules);
// what a predicate may hold is its own reader's business. At most 1024 subjects, as in stock tools.
import { canonicalize } from './canonical-json.ts'
import { AttestError, quote } from './error.ts'
import { type Envelope, type VerifiedEnvelope, verifyEnvelope } from './dsse.ts'
import type { VerifyingKey } from './keys.ts'
import { asArray, asObject, asString, mismatch, within, type Place } from './shape.ts'
import { parseStrictJson, type JsonObject } from './strict-json.ts'
import { STATEMENT_TYPE } from './uris.ts'

export const MAX_SUBJECTS = 1024

export interface Subject {
  /** Empty if the statement gives none. */
  name: string
  /** Algorithm → lower-case hex. */
  digest: Readonly<Record<string, string>>
  annotations?: JsonObject
}

export interface Statement<P = unknown> {
  _type: typeof STATEMENT_TYPE
  subject: readonly Subject[]
  predicateType: string
  predicate: P
}

/** Returns the payload bytes of a statement: canonical JSON. @throws {AttestError} JSON_VALUE */
export function formatStatement(statement: Statement): Uint8Array {
  return new Uint8Array(Buffer.from(canonicalize(statement)))
}

/**
 * Reads a statement from bytes that were verified.
 *
 * @throws {AttestError} JSON_*; STATEMENT_FORMAT, STATEMENT_LIMIT
 * @see https://github.com/in-toto/attestation/blob/v1.2.0/spec/v1/statement.md
 */
export function parseStatement(payload: Uint8Array): Statement {
  const place: Place = { at: 'statement', code: 'STATEMENT_FORMAT' }
  const object = asObject(parseStrictJson(payload), place)
  const type = object['_type']
  if (type !== STATEMENT_TYPE)
    throw mismatch(within(place, '_type'), quote(STATEMENT_TYPE), object['_type'])
  const subject = asArray(object['subject'], within(place, 'subject'))
  if (subject.length === 0) throw mismatch(within(place, 'subject'), 'at least one subject', [])
  if (subject.length > MAX_SUBJECTS)
    throw new AttestError(
      'STATEMENT_LIMIT',
      `expected at most ${MAX_SUBJECTS} subjects, saw ${subject.length}`,
    )
  const predicateType = asString(object['predicateType'], within(place, 'predicateType'))
  if (predicateType === '') throw mismatch(within(place, 'predicateType'), 'a type', '')
  return {
    _type: STATEMENT_TYPE,
    subject: subject.map((entry, i) => parseSubject(entry, within(within(place, 'subject'), i))),
    predicateType,
    predicate: object['predicate'] ?? null,
  }
}

const HEX = /^[0-9a-f]+$/
const SHA256_HEX = /^[0-9a-f]{64}$/

function parseSubject(value: unknown, place: Place): Subject {
  const object = asObject(value, place)
  const digest = asObject(object['digest'], within(place, 'digest'))
  if (Object.keys(digest).length === 0) throw mismatch(within(place, 'digest'), 'a digest', {})
  for (const [algorithm, hex] of Object.entries(digest)) {
    const pattern = algorithm === 'sha256' ? SHA256_HEX : HEX
    if (typeof hex !== 'string' || !pattern.test(hex))
      throw mismatch(within(within(place, 'digest'), algorithm), 'lower-case hex', hex)
  }
  return {
    name: object['name'] === undefined ? '' : asString(object['name'], within(place, 'name')),
    digest: digest as Readonly<Record<string, string>>,
    ...(object['annotations'] === undefined
      ? {}
      : { annotations: asObject(object['annotations'], within(place, 'annotations')) }),
  }
}

/** A statement and the envelope that was verified for it. */
export interface VerifiedStatement {
  readonly statement: Statement
  readonly signers: readonly VerifyingKey[]
  readonly verified: VerifiedEnvelope
}

/**
 * Verifies an envelope and reads the statement of one type from the verified bytes.
 *
 * @throws {AttestError} what {@link verifyEnvelope} and {@link parseStatement} throw;
 *   STATEMENT_PREDICATE_TYPE
 */
export function verifyStatement(
  envelope: Envelope,
  keys: readonly VerifyingKey[],
  threshold: number,
  predicateType: string,
): VerifiedStatement {
  const verified = verifyEnvelope(envelope, keys, threshold)
  const statement = parseStatement(verified.payload)
  if (statement.predicateType !== predicateType)
    throw new AttestError(
      'STATEMENT_PREDICATE_TYPE',
      `expected predicate type ${quote(predicateType)}, saw ${quote(statement.predicateType)}`,
    )
  return { statement, signers: verified.signers, verified }
}
