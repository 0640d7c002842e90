import { bundleFromJSON } from '@sigstore/bundle'
import { Verifier, toSignedEntity, type TrustMaterial } from '@sigstore/verify'
import { describe, expect, test } from 'vitest'
import {
  AttestError,
  formatBundle,
  generateSigningKey,
  hashedRekordLeaf,
  pae,
  parseBundle,
  sha256Hex,
  signEnvelope,
  verifyEnvelope,
  type VerifyingKey,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const ci = generateSigningKey().signing
const other = generateSigningKey().signing
const payload = bytes('{"_type":"https://in-toto.io/Statement/v1"}')
const envelope = signEnvelope(payload, [ci])
const text = formatBundle(envelope)

// JSON of a bundle, changed at one place.
type Json = { [name: string]: unknown }
function changed(path: string, value: unknown): string {
  const bundle = JSON.parse(text) as Json
  const names = path.split('.')
  const last = names.pop() ?? ''
  let object = bundle
  for (const name of names) object = object[name] as Json
  if (value === undefined) delete object[last]
  else object[last] = value
  return JSON.stringify(bundle)
}

describe('a bundle', () => {
  test('gives back the envelope', () => {
    expect(parseBundle(bytes(text))).toEqual(envelope)
  })

  test('has no key id and no hint, which stock verifiers would look for', () => {
    expect(text).not.toContain('keyid')
    expect(text).toContain('"publicKey":{"hint":""}')
  })

  test('cannot hold two signatures', () => {
    expect(codeOf(() => formatBundle(signEnvelope(payload, [ci, other])))).toBe('BUNDLE_SIGNATURES')
  })

  const dsse = (JSON.parse(text) as { dsseEnvelope: Json }).dsseEnvelope
  const signature = (dsse['signatures'] as Json[])[0]
  const material = 'verificationMaterial'
  test.each<[claim: string, text: string, code: string]>([
    [
      'of version 0.2',
      changed('mediaType', 'application/vnd.dev.sigstore.bundle+json;version=0.2'),
      'BUNDLE_MEDIA_TYPE',
    ],
    ['without media type', changed('mediaType', undefined), 'BUNDLE_MEDIA_TYPE'],
    ['with an unknown member', changed('extra', 1), 'BUNDLE_FORMAT'],
    ['without material', changed(material, undefined), 'BUNDLE_FORMAT'],
    ['with material that is null', changed(material, null), 'BUNDLE_FORMAT'],
    ['without a key', changed(`${material}.publicKey`, undefined), 'BUNDLE_FORMAT'],
    [
      'with a certificate',
      changed(`${material}.certificate`, { rawBytes: 'AA==' }),
      'BUNDLE_MATERIAL',
    ],
    ['with a chain', changed(`${material}.x509CertificateChain`, {}), 'BUNDLE_MATERIAL'],
    ['with unknown material', changed(`${material}.extra`, {}), 'BUNDLE_FORMAT'],
    ['with a hint that is no text', changed(`${material}.publicKey.hint`, 1), 'BUNDLE_FORMAT'],
    [
      'with an unknown member in the key',
      changed(`${material}.publicKey.extra`, 1),
      'BUNDLE_FORMAT',
    ],
    ['with log entries that are no list', changed(`${material}.tlogEntries`, {}), 'BUNDLE_FORMAT'],
    ['with log entries that are text', changed(`${material}.tlogEntries`, ['']), 'BUNDLE_FORMAT'],
    [
      'with 33 log entries',
      changed(`${material}.tlogEntries`, Array(33).fill({})),
      'BUNDLE_FORMAT',
    ],
    [
      'with timestamps that are a list',
      changed(`${material}.timestampVerificationData`, []),
      'BUNDLE_FORMAT',
    ],
    ['of a message and no envelope', changed('messageSignature', {}), 'BUNDLE_FORMAT'],
    ['without an envelope', changed('dsseEnvelope', undefined), 'BUNDLE_FORMAT'],
    ['with an unknown member in the envelope', changed('dsseEnvelope.extra', 1), 'BUNDLE_FORMAT'],
    ['without payload', changed('dsseEnvelope.payload', undefined), 'BUNDLE_FORMAT'],
    ['without payload type', changed('dsseEnvelope.payloadType', undefined), 'BUNDLE_FORMAT'],
    ['without signatures', changed('dsseEnvelope.signatures', []), 'BUNDLE_FORMAT'],
    [
      'with two signatures',
      changed('dsseEnvelope.signatures', [signature, signature]),
      'BUNDLE_SIGNATURES',
    ],
    [
      'with an unknown member in the signature',
      changed('dsseEnvelope.signatures.0.extra', 1),
      'BUNDLE_FORMAT',
    ],
    [
      'with a signature that is no base64',
      changed('dsseEnvelope.signatures.0.sig', '?'),
      'BUNDLE_FORMAT',
    ],
    ['that is a list', `[${text}]`, 'BUNDLE_FORMAT'],
    [
      'with its payload twice',
      text.replace('"payload":', '"payload":"","payload":'),
      'JSON_DUPLICATE_KEY',
    ],
  ])('%s is refused', (_claim, json, code) => {
    expect(codeOf(() => parseBundle(bytes(json)))).toBe(code)
  })

  test.each<[claim: string, text: string]>([
    [
      'with the media type of early clients',
      changed('mediaType', 'application/vnd.dev.sigstore.bundle+json;version=0.3'),
    ],
    ['without a hint, which is empty then', changed(`${material}.publicKey`, {})],
    ['with a hint', changed(`${material}.publicKey.hint`, 'ci')],
    [
      'with log entries and timestamps',
      changed(material, { publicKey: {}, tlogEntries: [{}], timestampVerificationData: {} }),
    ],
    [
      'with nulls for what is absent',
      changed(material, {
        publicKey: { hint: null },
        tlogEntries: null,
        timestampVerificationData: null,
      }),
    ],
    ['with an empty key id', changed('dsseEnvelope.signatures.0.keyid', '')],
    ['spaced', JSON.stringify(JSON.parse(text), null, 2)],
  ])('%s is read', (_claim, json) => {
    expect(verifyEnvelope(parseBundle(bytes(json)), [ci], 1).payload).toEqual(payload)
  })

  test('of other bytes than were signed does not verify', () => {
    const tampered = changed('dsseEnvelope.payload', Buffer.from('{}').toString('base64'))
    expect(codeOf(() => verifyEnvelope(parseBundle(bytes(tampered)), [ci], 1))).toBe(
      'SIGNATURE_INVALID',
    )
  })

  test('is refused with a code at every prefix', () => {
    const data = bytes(text)
    for (let length = 0; length < data.length; length += 1)
      expect(() => parseBundle(data.subarray(0, length))).toThrow(AttestError)
  })

  test('never verifies another payload after one flipped bit', () => {
    const data = bytes(text)
    for (let bit = 0; bit < data.length * 8; bit += 1) {
      const flipped = data.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        expect(verifyEnvelope(parseBundle(flipped), [ci], 1).payload).toEqual(payload)
      } catch (error) {
        if (!(error instanceof AttestError)) throw error
      }
    }
  })
})

describe('the verifier of sigstore-js', () => {
  test('accepts our bundle', () => {
    expect(() => stockVerify(text, ci)).not.toThrow()
  })

  test('refuses it with another key', () => {
    expect(() => stockVerify(text, other)).toThrow()
  })

  test('refuses it with another payload, type or signature', () => {
    const signature = Buffer.from(signEnvelope(payload, [other]).signatures[0]?.sig ?? []).toString(
      'base64',
    )
    for (const json of [
      changed('dsseEnvelope.payload', 'e30='),
      changed('dsseEnvelope.payloadType', 'text/plain'),
      changed('dsseEnvelope.signatures.0.sig', signature),
    ]) {
      expect(() => stockVerify(json, ci)).toThrow()
      expect(() => verifyEnvelope(parseBundle(bytes(json)), [ci], 1)).toThrow(AttestError)
    }
  })
})

describe('a log entry', () => {
  const leaf = hashedRekordLeaf(envelope, 0, ci)

  test('is the canonical hashedrekord over the PAE', () => {
    const base64 = (data: Uint8Array): string => Buffer.from(data).toString('base64')
    const digest = base64(Buffer.from(sha256Hex(pae(envelope.payloadType, payload)), 'hex'))
    const [signature] = envelope.signatures
    expect(Buffer.from(leaf).toString()).toBe(
      '{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":' +
        `{"algorithm":"SHA2_256","digest":"${digest}"},"signature":{"content":` +
        `"${base64(signature?.sig ?? new Uint8Array())}","verifier":{"keyDetails":` +
        `"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":"${base64(ci.spki)}"}}}}}}`,
    )
  })

  test('is another one for another payload, signature or key', () => {
    const both = signEnvelope(payload, [ci, other])
    const leaves = [
      leaf,
      hashedRekordLeaf(signEnvelope(bytes('{}'), [ci]), 0, ci),
      hashedRekordLeaf(both, 1, other),
      hashedRekordLeaf(both, 1, ci),
    ].map((data) => Buffer.from(data).toString())
    expect(new Set(leaves).size).toBe(leaves.length)
  })

  test('for a signature that is not there is a bug of the caller', () => {
    expect(() => hashedRekordLeaf(envelope, 1, ci)).toThrow(TypeError)
  })
})

function stockVerify(json: string, key: VerifyingKey): void {
  const material: TrustMaterial = {
    certificateAuthorities: [],
    timestampAuthorities: [],
    tlogs: [],
    ctlogs: [],
    publicKey: () => ({ publicKey: key.key, validFor: () => true }),
  }
  const thresholds = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 }
  const bundle = bundleFromJSON(JSON.parse(json))
  new Verifier(material, thresholds).verify(toSignedEntity(bundle))
}
