// What a log entry says, read from the envelope whose digest its leaf holds. A leaf is signed for by every
// later checkpoint; the columns beside it (`kind`, `ref`, `body_sha256`) are not, and decide nothing here.
import { hash } from 'node:crypto'
import {
  AUTHORITY_V1,
  BAN_V1,
  ENROLMENT_V1,
  hashedRekordLeaf,
  NIX_CLOSURE_V1,
  OBSERVATION_V1,
  pae,
  POLICY_V1,
  SLSA_VSA_V1,
  verifySignature,
  type Envelope,
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
  [OBSERVATION_V1, 'observation'],
  [AUTHORITY_V1, 'authority'],
])

/** A statement as far as its entry vouches for it: nobody has looked at a signature. */
export interface LoggedStatement {
  readonly entry: EnvelopedEntry
  readonly kind: EntryKind
  readonly predicate: Readonly<Record<string, unknown>>
  readonly envelope: Envelope
}

/**
 * Reads the statement of an entry.
 * @throws {BrokerError} LOG_CORRUPT – its envelope is gone or not the one in the leaf, or the entry is
 * kept as one of another kind
 */
export function readLoggedStatement(entry: EnvelopedEntry): LoggedStatement {
  const envelope = envelopeOf(entry)
  const { predicateType, predicate } = parseObject(entry, envelope.payload)
  const kind = KINDS.get(predicateType)
  if (kind === undefined || kind !== entry.kind)
    throw corrupt(entry, `the statement of one ${quote(entry.kind)}`, quote(predicateType))
  return { entry, kind, predicate: (predicate ?? {}) as LoggedStatement['predicate'], envelope }
}

/**
 * Checks that one of `keys` signed the statement, and that the leaf holds that very signature.
 * @throws {BrokerError} LOG_CORRUPT
 */
export function checkSignature(
  { entry, envelope }: LoggedStatement,
  keys: readonly VerifyingKey[],
): void {
  const key = keys.find((one) => Buffer.from(hashedRekordLeaf(envelope, 0, one)).equals(entry.leaf))
  const [signature] = envelope.signatures
  const signed = pae(envelope.payloadType, envelope.payload)
  if (!key || !signature || !verifySignature(key, signed, signature.sig))
    throw corrupt(entry, 'a statement that a broker signed', 'another')
}

/**
 * The envelope of an entry, once the digest of its payload is the leaf's. Read without strictness: nothing
 * counts but the payload, whose bytes were strict when they were logged, and the first signature.
 */
function envelopeOf(entry: EnvelopedEntry): Envelope {
  if (entry.envelope === null) throw corrupt(entry, 'an envelope', 'none')
  const { payload, payloadType, signatures } = parseObject(entry, entry.envelope)
  const sig = Array.isArray(signatures) ? (signatures[0]?.sig as unknown) : undefined
  if (typeof payload !== 'string' || typeof payloadType !== 'string' || typeof sig !== 'string')
    throw corrupt(entry, 'an envelope', 'something else')
  const bytes = Buffer.from(payload, 'base64')
  const digest = hash('sha256', pae(payloadType, bytes), 'base64')
  // A leaf is canonical JSON and no other value in it holds a quote: this is its one digest or none of it.
  if (!bufferOf(entry.leaf).includes(`"digest":"${digest}"`))
    throw corrupt(entry, 'the envelope in its leaf', 'another')
  return { payloadType, payload: bytes, signatures: [{ sig: Buffer.from(sig, 'base64') }] }
}

function parseObject(entry: EnvelopedEntry, bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(bufferOf(bytes).toString())
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Says the same as JSON of another shape.
  }
  throw corrupt(entry, 'an object in JSON', 'something else')
}

/** The same bytes, not a copy: there are as many of them as the log has. */
function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function corrupt({ index }: EnvelopedEntry, expected: string, seen: string): BrokerError {
  const message = `log entry ${index}: expected ${expected}, saw ${seen}`
  return new BrokerError('LOG_CORRUPT', message)
}
