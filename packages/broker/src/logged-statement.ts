// What a log entry says, read from the envelope whose digest its leaf holds. A leaf is signed for by every
// later checkpoint; the columns beside it (`kind`, `ref`, `body_sha256`) are not, and decide nothing here.
import { hash } from 'node:crypto'
import {
  AttestError,
  BAN_V1,
  ENROLMENT_V1,
  hashedRekordLeaf,
  NIX_CLOSURE_V1,
  pae,
  parseEnvelope,
  POLICY_V1,
  SLSA_VSA_V1,
  verifyStatement,
  type VerifyingKey,
} from '@bagcheck/attest'
import { BrokerError, quote } from './error.ts'
import type { EnvelopedEntry } from './store/log-reads.ts'
import type { EntryKind } from './store/schema.ts'

/** What kind of entry a statement makes. */
const KINDS: ReadonlyMap<unknown, EntryKind> = new Map([
  [SLSA_VSA_V1, 'decision'],
  [NIX_CLOSURE_V1, 'attestation'],
  [POLICY_V1, 'policy'],
  [ENROLMENT_V1, 'enrolment'],
  [BAN_V1, 'ban'],
])

/** A statement as far as its entry vouches for it: nobody has looked at a signature. */
export interface LoggedStatement {
  readonly kind: EntryKind
  readonly predicate: Readonly<Record<string, unknown>>
}

/**
 * Reads the statement of an entry.
 * @throws {BrokerError} LOG_CORRUPT – its envelope is gone or not the one in the leaf, or the entry is
 * kept as one of another kind
 */
export function readLoggedStatement(entry: EnvelopedEntry): LoggedStatement {
  const payload = payloadOf(entry)
  const { predicateType, predicate } = parseObject(entry, payload)
  const kind = KINDS.get(predicateType)
  if (kind === undefined || kind !== entry.kind)
    throw corrupt(entry, `the statement of one ${quote(entry.kind)}`, quote(predicateType))
  return { kind, predicate: (predicate ?? {}) as LoggedStatement['predicate'] }
}

/**
 * The predicate of a statement that a broker signed, in the entry whose leaf holds that very signature.
 * @throws {BrokerError} LOG_CORRUPT – anything else
 */
export function verifyLoggedStatement(
  entry: EnvelopedEntry,
  keys: readonly VerifyingKey[],
  predicateType: string,
): unknown {
  try {
    const envelope = parseEnvelope(envelopeOf(entry))
    const { statement, signers } = verifyStatement(envelope, keys, 1, predicateType)
    const logged = signers.some((key) =>
      Buffer.from(hashedRekordLeaf(envelope, 0, key)).equals(entry.leaf),
    )
    if (!logged) throw corrupt(entry, 'the signature of its envelope', 'another')
    return statement.predicate
  } catch (cause) {
    if (!(cause instanceof AttestError)) throw cause
    throw corrupt(entry, 'a statement that a broker signed', cause.message, cause)
  }
}

/** The payload in an envelope, once its digest is the leaf's. Other than that nothing in it is believed. */
function payloadOf(entry: EnvelopedEntry): Buffer {
  const { payload, payloadType } = parseObject(entry, envelopeOf(entry))
  if (typeof payload !== 'string' || typeof payloadType !== 'string')
    throw corrupt(entry, 'an envelope', 'something else')
  const bytes = Buffer.from(payload, 'base64')
  const digest = hash('sha256', pae(payloadType, bytes), 'base64')
  // A leaf is canonical JSON and its other values hold no quotes: this is its one digest or none of it.
  if (!Buffer.from(entry.leaf).includes(`"digest":"${digest}"`))
    throw corrupt(entry, 'the envelope in its leaf', 'another')
  return bytes
}

function envelopeOf(entry: EnvelopedEntry): Uint8Array {
  if (entry.envelope === null) throw corrupt(entry, 'an envelope', 'none')
  return entry.envelope
}

function parseObject(entry: EnvelopedEntry, bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString())
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Says the same as JSON of another shape.
  }
  throw corrupt(entry, 'an object in JSON', 'something else')
}

function corrupt(
  { index }: EnvelopedEntry,
  expected: string,
  seen: string,
  cause?: unknown,
): BrokerError {
  const message = `log entry ${index}: expected ${expected}, saw ${seen}`
  return new BrokerError('LOG_CORRUPT', message, { cause })
}
