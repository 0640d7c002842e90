import { createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  AttestError,
  addSignature,
  formatEnvelope,
  generateSigningKey,
  pae,
  parseEnvelope,
  signEnvelope,
  verifyEnvelope,
  verifyingKeyFromSpki,
  type Envelope,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const alice = generateSigningKey().signing
const bob = generateSigningKey().signing
const mallory = generateSigningKey().signing
const payload = bytes('{"a":1}')

describe('the worked example of DSSE 1.0.2 (protocol.md)', () => {
  const type = 'http://example.com/HelloWorld'
  const coordinate = (decimal: string): string =>
    Buffer.from(BigInt(decimal).toString(16).padStart(64, '0'), 'hex').toString('base64url')
  const key = verifyingKeyFromSpki(
    createPublicKey({
      format: 'jwk',
      key: {
        kty: 'EC',
        crv: 'P-256',
        x: coordinate(
          '46950820868899156662930047687818585632848591499744589407958293238635476079160',
        ),
        y: coordinate(
          '5640078356564379163099075877009565129882514886557779369047442380624545832820',
        ),
      },
    }).export({ type: 'spki', format: 'der' }),
  )
  const envelope = parseEnvelope(
    bytes(
      `{"payload": "aGVsbG8gd29ybGQ=", "payloadType": "${type}", "signatures": [{"sig": ` +
        '"A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}',
    ),
  )

  test('its PAE is ours', () => {
    expect(Buffer.from(pae(type, bytes('hello world'))).toString()).toBe(
      'DSSEv1 29 http://example.com/HelloWorld 11 hello world',
    )
  })

  test('its signature verifies once written in DER', () => {
    const [signature] = envelope.signatures
    const der = derSignature(signature?.sig ?? new Uint8Array())
    const verified = verifyEnvelope({ ...envelope, signatures: [{ sig: der }] }, [key], 1, type)
    expect(Buffer.from(verified.payload).toString()).toBe('hello world')
    expect(verified.signers).toEqual([key])
  })

  test('its raw r‖s form is not taken for a signature', () => {
    expect(codeOf(() => verifyEnvelope(envelope, [key], 1, type))).toBe('SIGNATURE_INVALID')
  })
})

describe('a threshold counts keys, not signatures', () => {
  const twice: Envelope = {
    ...signEnvelope(payload, [alice]),
    signatures: [
      ...signEnvelope(payload, [alice]).signatures,
      ...signEnvelope(payload, [alice]).signatures,
    ],
  }

  test('one key that signed twice does not meet a threshold of 2', () => {
    expect(codeOf(() => verifyEnvelope(twice, [alice, bob], 2))).toBe('THRESHOLD_NOT_MET')
  })

  test('one key listed twice does not meet a threshold of 2', () => {
    const copy = verifyingKeyFromSpki(alice.spki)
    expect(codeOf(() => verifyEnvelope(twice, [alice, copy], 2))).toBe('THRESHOLD_NOT_MET')
  })

  test('two keys meet it, whatever their key ids say', () => {
    const envelope = signEnvelope(payload, [alice, bob])
    const renamed = {
      ...envelope,
      signatures: envelope.signatures.map(({ sig }) => ({ sig, keyid: mallory.keyId })),
    }
    expect(verifyEnvelope(renamed, [bob, alice], 2).signers).toEqual([bob, alice])
  })

  test('signatures by keys that are not trusted are not counted', () => {
    const envelope = signEnvelope(payload, [alice, mallory])
    expect(codeOf(() => verifyEnvelope(envelope, [alice, bob], 2))).toBe('THRESHOLD_NOT_MET')
    expect(codeOf(() => verifyEnvelope(envelope, [bob], 1))).toBe('SIGNATURE_INVALID')
    expect(codeOf(() => verifyEnvelope(envelope, [], 1))).toBe('SIGNATURE_INVALID')
  })

  test.each([0, -1, 1.5, Number.NaN])('a threshold of %s is a bug of the caller', (threshold) => {
    expect(() => verifyEnvelope(twice, [alice], threshold)).toThrow(TypeError)
  })
})

describe('signing', () => {
  test('a key cannot sign the same envelope again', () => {
    const envelope = signEnvelope(payload, [alice])
    expect(codeOf(() => addSignature(envelope, alice))).toBe('DSSE_SIGNED_TWICE')
    expect(verifyEnvelope(addSignature(envelope, bob), [alice, bob], 2).signers).toHaveLength(2)
  })

  test('a signature covers the payload type', () => {
    const envelope = { ...signEnvelope(payload, [alice]), payloadType: 'text/plain' }
    expect(codeOf(() => verifyEnvelope(envelope, [alice], 1))).toBe('DSSE_PAYLOAD_TYPE')
    expect(codeOf(() => verifyEnvelope(envelope, [alice], 1, 'text/plain'))).toBe(
      'SIGNATURE_INVALID',
    )
  })

  test('what is written has no key id and reads back', () => {
    const text = formatEnvelope(signEnvelope(payload, [alice, bob]))
    expect(text).not.toContain('keyid')
    expect(formatEnvelope(parseEnvelope(bytes(text)))).toBe(text)
  })
})

describe('reading envelopes of others', () => {
  const sig = 'AQID'
  const good = { payload: '', payloadType: 't', signatures: [{ sig }] }
  test.each<[claim: string, text: string, code: string]>([
    ['no payload', JSON.stringify({ ...good, payload: undefined }), 'DSSE_ENVELOPE'],
    ['a payload that is no string', JSON.stringify({ ...good, payload: 1 }), 'DSSE_ENVELOPE'],
    ['white space in base64', JSON.stringify({ ...good, payload: 'AQ ID' }), 'DSSE_ENVELOPE'],
    ['mixed alphabets', JSON.stringify({ ...good, payload: '+_+_' }), 'DSSE_ENVELOPE'],
    ['bits thrown away', JSON.stringify({ ...good, payload: 'AR==' }), 'DSSE_ENVELOPE'],
    ['half a padding', JSON.stringify({ ...good, payload: 'AQ=' }), 'DSSE_ENVELOPE'],
    ['no payload type', JSON.stringify({ ...good, payloadType: null }), 'DSSE_ENVELOPE'],
    ['no signatures', JSON.stringify({ ...good, signatures: [] }), 'DSSE_ENVELOPE'],
    ['signatures that are no list', JSON.stringify({ ...good, signatures: {} }), 'DSSE_ENVELOPE'],
    ['a signature that is text', JSON.stringify({ ...good, signatures: [sig] }), 'DSSE_ENVELOPE'],
    [
      '33 signatures',
      JSON.stringify({ ...good, signatures: Array(33).fill({ sig }) }),
      'DSSE_LIMIT',
    ],
    ['a list', '[]', 'DSSE_ENVELOPE'],
    ['null', 'null', 'DSSE_ENVELOPE'],
    ['two payloads', `{"payload":"","payload":"AQID"}`, 'JSON_DUPLICATE_KEY'],
    ['two envelopes', `${JSON.stringify(good)}${JSON.stringify(good)}`, 'JSON_SYNTAX'],
  ])('%s is refused', (_claim, text, code) => {
    expect(codeOf(() => parseEnvelope(bytes(text)))).toBe(code)
  })

  test('members that the specification does not know are ignored', () => {
    const text = JSON.stringify({ ...good, extra: 1, signatures: [{ sig, extra: [] }] })
    expect(parseEnvelope(bytes(text)).signatures).toHaveLength(1)
  })

  test.each(['+/+/', '-_-_'])('base64 %s of either alphabet gives the same bytes', (text) => {
    const json = JSON.stringify({ ...good, payload: text })
    expect(parseEnvelope(bytes(json)).payload).toEqual(new Uint8Array([251, 255, 191]))
  })

  test('an envelope above its limit is refused before it is read', () => {
    expect(codeOf(() => parseEnvelope(bytes(JSON.stringify(good)), { maxBytes: 10 }))).toBe(
      'JSON_LIMIT',
    )
  })

  test('every prefix of an envelope is refused with a code', () => {
    const text = bytes(formatEnvelope(signEnvelope(payload, [alice])))
    for (let length = 0; length < text.length; length += 1)
      expect(() => parseEnvelope(text.subarray(0, length))).toThrow(AttestError)
  })

  test('no single flipped bit changes what is verified', () => {
    const text = bytes(formatEnvelope(signEnvelope(payload, [alice])))
    for (let bit = 0; bit < text.length * 8; bit += 1) {
      const flipped = text.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      let verified: Uint8Array | undefined
      try {
        verified = verifyEnvelope(parseEnvelope(flipped), [alice], 1).payload
      } catch (error) {
        expect(error).toBeInstanceOf(AttestError)
      }
      if (verified !== undefined) expect(verified).toEqual(payload)
    }
  })
})

test('any payload survives signing, writing, reading and verifying', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (data) => {
      const text = formatEnvelope(signEnvelope(data, [alice]))
      expect(verifyEnvelope(parseEnvelope(bytes(text)), [alice], 1).payload).toEqual(data)
    }),
    { numRuns: 50 },
  )
})

function derSignature(raw: Uint8Array): Uint8Array {
  const integer = (part: Uint8Array): number[] => {
    const digits = [...part].slice([...part].findIndex((byte) => byte !== 0))
    if ((digits[0] ?? 0) > 127) digits.unshift(0)
    return [2, digits.length, ...digits]
  }
  const content = [...integer(raw.subarray(0, 32)), ...integer(raw.subarray(32))]
  return new Uint8Array([0x30, content.length, ...content])
}
