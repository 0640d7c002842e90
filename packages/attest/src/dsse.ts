// DSSE 1.0.2 envelopes.
//
//   {"payload":BASE64,"payloadType":TYPE,"signatures":[{"sig":BASE64,"keyid"?:STRING}…]}
//   signed bytes: PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload   (decimal lengths)
//
// Read: duplicate names refused, both base64 alphabets accepted, unrecognised members ignored (the
// specification says so), 1 to 32 signatures, 4 MiB. Written: canonical JSON, standard base64, keyid
// left out, because stock verifiers refuse an envelope whose keyid is in another form than theirs.
//
// What an attacker controls: everything until a signature over the PAE verified. `keyid` is never
// read for trust. What callers get is the payload that was verified, never the envelope again.
import { decodeBase64, encodeBase64 } from './base64.ts'
import { canonicalize } from './canonical-json.ts'
import { AttestError, quote } from './error.ts'
import { verifySignature, type SigningKey, type VerifyingKey } from './keys.ts'
import { asArray, asObject, asString, mismatch, within, type Place } from './shape.ts'
import { decodeJsonText, parseStrictJson, type JsonLimits } from './strict-json.ts'

/** The only payload type Bagcheck signs, and the default that {@link verifyEnvelope} demands. */
export const IN_TOTO_PAYLOAD_TYPE = 'application/vnd.in-toto+json'

export const MAX_ENVELOPE_BYTES: number = 4 * 1024 * 1024
export const MAX_SIGNATURES = 32

export interface Envelope {
  readonly payloadType: string
  readonly payload: Uint8Array
  /** `keyid` is an unauthenticated hint of the producer. */
  readonly signatures: readonly { readonly sig: Uint8Array; readonly keyid?: string }[]
}

/**
 * Returns the bytes that are signed for a payload.
 *
 * @see https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
 */
export function pae(payloadType: string, payload: Uint8Array): Uint8Array {
  const header = `DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `
  return new Uint8Array(Buffer.concat([Buffer.from(header), payload]))
}

/** Signs an in-toto payload with each of the keys. @throws {AttestError} DSSE_SIGNED_TWICE */
export function signEnvelope(payload: Uint8Array, keys: readonly SigningKey[]): Envelope {
  if (keys.length === 0) throw new TypeError('expected at least one key')
  let envelope: Envelope = {
    payloadType: IN_TOTO_PAYLOAD_TYPE,
    payload: new Uint8Array(payload),
    signatures: [],
  }
  for (const key of keys) envelope = addSignature(envelope, key)
  return envelope
}

/**
 * Returns the envelope with one signature more.
 *
 * @throws {AttestError} DSSE_SIGNED_TWICE – the key has signed already; DSSE_LIMIT
 */
export function addSignature(envelope: Envelope, key: SigningKey): Envelope {
  const signed = pae(envelope.payloadType, envelope.payload)
  if (envelope.signatures.some(({ sig }) => verifySignature(key, signed, sig)))
    throw new AttestError('DSSE_SIGNED_TWICE', `expected another key, saw ${key.keyId} again`)
  if (envelope.signatures.length >= MAX_SIGNATURES)
    throw new AttestError('DSSE_LIMIT', `expected at most ${MAX_SIGNATURES} signatures`)
  return { ...envelope, signatures: [...envelope.signatures, { sig: key.sign(signed) }] }
}

/** Writes an envelope as one line of canonical JSON, without a line end and without key ids. */
export function formatEnvelope(envelope: Envelope): string {
  return canonicalize({
    payload: encodeBase64(envelope.payload),
    payloadType: envelope.payloadType,
    signatures: envelope.signatures.map(({ sig }) => ({ sig: encodeBase64(sig) })),
  })
}

/**
 * Reads an envelope. Nothing in it is verified.
 *
 * @param limits default 4 MiB
 * @throws {AttestError} JSON_*; DSSE_ENVELOPE, DSSE_LIMIT
 */
export function parseEnvelope(bytes: Uint8Array, limits: JsonLimits = {}): Envelope {
  const value = parseStrictJson(bytes, { maxBytes: MAX_ENVELOPE_BYTES, ...limits })
  return envelopeFromJson(value, { at: 'envelope', code: 'DSSE_ENVELOPE' })
}

/**
 * Reads the envelopes of a JSON Lines file (`*.intoto.jsonl`), one a line. The file as a whole is
 * not authenticated: lines may have been added, left out or moved.
 *
 * @param limits for the whole file; default 4 MiB
 * @throws {AttestError} JSON_*; DSSE_ENVELOPE, DSSE_LIMIT
 */
export function parseEnvelopeLines(bytes: Uint8Array, limits: JsonLimits = {}): Envelope[] {
  const text = decodeJsonText(bytes, limits.maxBytes ?? MAX_ENVELOPE_BYTES)
  const lines = text.replace(/\n$/, '').split('\n')
  return lines.map((line) => parseEnvelope(Buffer.from(line), limits))
}

/** Reads an envelope from a JSON value that is part of something else. */
export function envelopeFromJson(value: unknown, place: Place): Envelope {
  const object = asObject(value, place)
  const signaturesPlace = within(place, 'signatures')
  const signatures = asArray(object['signatures'], signaturesPlace)
  if (signatures.length === 0) throw mismatch(signaturesPlace, 'at least one signature', [])
  if (signatures.length > MAX_SIGNATURES)
    throw new AttestError(
      'DSSE_LIMIT',
      `expected at most ${MAX_SIGNATURES} signatures, saw ${signatures.length}`,
    )
  return {
    payloadType: asString(object['payloadType'], within(place, 'payloadType')),
    payload: asBytes(object['payload'], within(place, 'payload')),
    signatures: signatures.map((entry, i) => signatureFromJson(entry, within(signaturesPlace, i))),
  }
}

function signatureFromJson(value: unknown, place: Place): { sig: Uint8Array; keyid?: string } {
  const object = asObject(value, place)
  const sig = asBytes(object['sig'], within(place, 'sig'))
  if (object['keyid'] === undefined || object['keyid'] === null) return { sig }
  const keyid = asString(object['keyid'], within(place, 'keyid'))
  // An empty keyid means the same as none.
  return keyid === '' ? { sig } : { sig, keyid }
}

function asBytes(value: unknown, place: Place): Uint8Array {
  const bytes = decodeBase64(asString(value, place))
  if (bytes === undefined) throw mismatch(place, 'base64', value)
  return bytes
}

/** A payload whose signatures were checked; only {@link verifyEnvelope} makes one. */
class VerifiedEnvelope {
  // Private, so that no object literal is a VerifiedEnvelope.
  readonly #payload: Uint8Array
  readonly payloadType: string
  /** The trusted keys that signed, each once, in the order they were given. */
  readonly signers: readonly VerifyingKey[]

  constructor(payloadType: string, payload: Uint8Array, signers: readonly VerifyingKey[]) {
    this.payloadType = payloadType
    this.#payload = payload
    this.signers = signers
  }

  /** The verified bytes. */
  get payload(): Uint8Array {
    return this.#payload
  }
}

export type { VerifiedEnvelope }

/**
 * Verifies that at least `threshold` of `keys` signed the envelope.
 *
 * Keys are told apart by their bytes: a key given twice, or signing twice, counts once. Signatures
 * by other keys are ignored.
 *
 * @param payloadType the type demanded; default {@link IN_TOTO_PAYLOAD_TYPE}
 * @throws {AttestError} DSSE_PAYLOAD_TYPE, SIGNATURE_INVALID – none of the keys signed,
 *   THRESHOLD_NOT_MET – some did, too few
 */
export function verifyEnvelope(
  envelope: Envelope,
  keys: readonly VerifyingKey[],
  threshold: number,
  payloadType: string = IN_TOTO_PAYLOAD_TYPE,
): VerifiedEnvelope {
  if (!Number.isSafeInteger(threshold) || threshold < 1)
    throw new TypeError(`expected a threshold of 1 or more, saw ${threshold}`)
  if (envelope.payloadType !== payloadType)
    throw new AttestError(
      'DSSE_PAYLOAD_TYPE',
      `expected payload type ${quote(payloadType)}, saw ${quote(envelope.payloadType)}`,
    )
  if (envelope.signatures.length > MAX_SIGNATURES)
    throw new AttestError('DSSE_LIMIT', `expected at most ${MAX_SIGNATURES} signatures`)
  const trusted = new Map(keys.map((key) => [encodeBase64(key.spki), key]))
  const signed = pae(envelope.payloadType, envelope.payload)
  const signers = [...trusted.values()].filter((key) =>
    envelope.signatures.some(({ sig }) => verifySignature(key, signed, sig)),
  )
  if (signers.length === 0)
    throw new AttestError(
      'SIGNATURE_INVALID',
      `expected a signature by one of ${trusted.size} trusted keys, saw none that verifies`,
    )
  if (signers.length < threshold)
    throw new AttestError(
      'THRESHOLD_NOT_MET',
      `expected signatures by ${threshold} different trusted keys, saw ${signers.length}`,
      { detail: { threshold, signers: signers.map((key) => key.keyId) } },
    )
  return new VerifiedEnvelope(envelope.payloadType, envelope.payload, signers)
}
