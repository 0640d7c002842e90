// Sigstore bundles v0.3 around a DSSE envelope, signed by a key that the verifier has already.
//
//   {"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
//    "verificationMaterial":{"publicKey":{"hint":STRING}, "tlogEntries"?:[…],
//                            "timestampVerificationData"?:{…}},
//    "dsseEnvelope":ENVELOPE with exactly one signature}
//
// This is protobuf's JSON: unknown members are refused, null means absent. Entries of a log and
// timestamps may be there (stock cosign puts them there); they prove nothing to us and are only
// checked for their form. A bundle that carries a certificate, or a chain, is refused: its key is
// the issuer's word, and no issuer is among our roots of trust.
import { canonicalize } from './canonical-json.ts'
import { encodeBase64 } from './base64.ts'
import { type Envelope, MAX_ENVELOPE_BYTES, envelopeFromJson } from './dsse.ts'
import { AttestError, quote } from './error.ts'
import { asArray, asObject, asString, refuseOthers, within, type Place } from './shape.ts'
import { parseStrictJson, type JsonLimits, type JsonObject } from './strict-json.ts'

export const BUNDLE_MEDIA_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json'

// Written by clients that knew v0.3 before its media type changed form.
const EARLIER_MEDIA_TYPE = 'application/vnd.dev.sigstore.bundle+json;version=0.3'

const MAX_LOG_ENTRIES = 32

/**
 * Writes a bundle in canonical JSON. The key's hint stays empty and the key id absent: with anything
 * in them, cosign and sigstore-go look for a key of that name and find none.
 *
 * @throws {AttestError} BUNDLE_SIGNATURES – a bundle holds exactly one signature
 */
export function formatBundle(envelope: Envelope): string {
  const [signature, ...others] = envelope.signatures
  if (signature === undefined || others.length > 0) throw wrongCount(envelope.signatures.length)
  return canonicalize({
    mediaType: BUNDLE_MEDIA_TYPE,
    verificationMaterial: { publicKey: { hint: '' } },
    dsseEnvelope: {
      payload: encodeBase64(envelope.payload),
      payloadType: envelope.payloadType,
      signatures: [{ sig: encodeBase64(signature.sig) }],
    },
  })
}

/**
 * Reads the envelope from a bundle. Nothing in it is verified.
 *
 * @param limits default 4 MiB
 * @throws {AttestError} JSON_*; BUNDLE_FORMAT, BUNDLE_MEDIA_TYPE, BUNDLE_MATERIAL,
 *   BUNDLE_SIGNATURES, DSSE_LIMIT
 * @see https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto
 */
export function parseBundle(bytes: Uint8Array, limits: JsonLimits = {}): Envelope {
  const place: Place = { at: 'bundle', code: 'BUNDLE_FORMAT' }
  const bundle = asObject(
    parseStrictJson(bytes, { maxBytes: MAX_ENVELOPE_BYTES, ...limits }),
    place,
  )
  refuseOthers(bundle, ['mediaType', 'verificationMaterial', 'dsseEnvelope'], place)
  const mediaType = bundle['mediaType']
  if (mediaType !== BUNDLE_MEDIA_TYPE && mediaType !== EARLIER_MEDIA_TYPE)
    throw new AttestError(
      'BUNDLE_MEDIA_TYPE',
      `expected ${quote(BUNDLE_MEDIA_TYPE)}, saw ${quote(mediaType)}`,
    )
  checkMaterial(bundle['verificationMaterial'], within(place, 'verificationMaterial'))
  const envelopePlace = within(place, 'dsseEnvelope')
  const json = asObject(bundle['dsseEnvelope'], envelopePlace)
  refuseOthers(json, ['payload', 'payloadType', 'signatures'], envelopePlace)
  for (const [i, entry] of asArray(
    json['signatures'],
    within(envelopePlace, 'signatures'),
  ).entries()) {
    const at = within(within(envelopePlace, 'signatures'), i)
    refuseOthers(asObject(entry, at), ['sig', 'keyid'], at)
  }
  const envelope = envelopeFromJson(json, envelopePlace)
  if (envelope.signatures.length !== 1) throw wrongCount(envelope.signatures.length)
  return envelope
}

function checkMaterial(value: unknown, place: Place): void {
  const material = asObject(value, place)
  for (const name of ['certificate', 'x509CertificateChain'])
    if (isPresent(material, name))
      throw new AttestError(
        'BUNDLE_MATERIAL',
        `expected a bundle signed by a known key ("publicKey"), saw ${quote(name)}`,
      )
  refuseOthers(
    material,
    [
      'certificate',
      'x509CertificateChain',
      'publicKey',
      'tlogEntries',
      'timestampVerificationData',
    ],
    place,
  )
  const publicKey = asObject(material['publicKey'], within(place, 'publicKey'))
  refuseOthers(publicKey, ['hint'], within(place, 'publicKey'))
  if (isPresent(publicKey, 'hint'))
    asString(publicKey['hint'], within(within(place, 'publicKey'), 'hint'))
  if (isPresent(material, 'tlogEntries')) {
    const at = within(place, 'tlogEntries')
    const entries = asArray(material['tlogEntries'], at)
    if (entries.length > MAX_LOG_ENTRIES)
      throw new AttestError(
        'BUNDLE_FORMAT',
        `expected at most ${MAX_LOG_ENTRIES} log entries, saw ${entries.length}`,
      )
    for (const [i, entry] of entries.entries()) asObject(entry, within(at, i))
  }
  if (isPresent(material, 'timestampVerificationData'))
    asObject(material['timestampVerificationData'], within(place, 'timestampVerificationData'))
}

function isPresent(object: JsonObject, name: string): boolean {
  return object[name] !== undefined && object[name] !== null
}

function wrongCount(seen: number): AttestError {
  return new AttestError('BUNDLE_SIGNATURES', `expected exactly one signature, saw ${seen}`)
}
