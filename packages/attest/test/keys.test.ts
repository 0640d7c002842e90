import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  AttestError,
  formatVerifyingKey,
  generateSigningKey,
  parseSigningKey,
  parseVerifyingKey,
  sha256Hex,
  verifyingKeyFromSpki,
  verifySignature,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const { signing, pem } = generateSigningKey()
const publicPem = formatVerifyingKey(signing)
const data = new Uint8Array([1, 2, 3])

describe('a key', () => {
  test('is named by the digest of its SubjectPublicKeyInfo, however it was read', () => {
    const base64 = Buffer.from(signing.spki).toString('base64')
    for (const key of [
      parseSigningKey(pem),
      parseVerifyingKey(publicPem),
      parseVerifyingKey(publicPem.replaceAll('\n', '\r\n')),
      verifyingKeyFromSpki(signing.spki),
      verifyingKeyFromSpki(base64),
    ])
      expect(key.keyId).toBe(sha256Hex(signing.spki))
  })

  test('is written as OpenSSL writes it', () => {
    expect(publicPem).toBe(signing.key.export({ type: 'spki', format: 'pem' }))
  })

  test('verifies its own signatures only', () => {
    const signature = parseSigningKey(pem).sign(data)
    expect(verifySignature(signing, data, signature)).toBe(true)
    expect(verifySignature(signing, new Uint8Array([1, 2]), signature)).toBe(false)
    expect(verifySignature(generateSigningKey().signing, data, signature)).toBe(false)
    for (let bit = 0; bit < signature.length * 8; bit += 1) {
      const flipped = signature.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(verifySignature(signing, data, flipped)).toBe(false)
    }
    for (let length = 0; length < signature.length; length += 1)
      expect(verifySignature(signing, data, signature.subarray(0, length))).toBe(false)
    const longer = new Uint8Array([...signature, 0])
    expect(verifySignature(signing, data, longer)).toBe(false)
  })

  test('holds its private half out of reach', () => {
    expect(Object.keys(signing)).toEqual(['keyId', 'spki', 'key', 'sign'])
    expect(signing.key.type).toBe('public')
    expect(JSON.stringify(signing)).not.toContain(pem.split('\n')[1])
  })
})

describe('a public key is refused', () => {
  const spkiOf = (publicKey: { export(o: { type: 'spki'; format: 'der' }): Buffer }): Uint8Array =>
    new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  test.each([
    ['on P-384', generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey],
    ['on secp256k1', generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey],
    ['of Ed25519', generateKeyPairSync('ed25519').publicKey],
    ['of RSA', generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey],
  ])('%s', (_claim, publicKey) => {
    expect(codeOf(() => verifyingKeyFromSpki(spkiOf(publicKey)))).toBe('KEY_ALGORITHM')
  })

  test('in its compressed form, which would be a second name for the key', () => {
    const point = signing.spki.subarray(27)
    const head = Buffer.from('3039301306072a8648ce3d020106082a8648ce3d030107032200', 'hex')
    const sign = ((point[63] ?? 0) & 1) === 1 ? 3 : 2
    const compressed = new Uint8Array([...head, sign, ...point.subarray(0, 32)])
    const same = createPublicKey({ key: Buffer.from(compressed), format: 'der', type: 'spki' })
    expect(same.export({ format: 'jwk' })).toEqual(signing.key.export({ format: 'jwk' }))
    expect(codeOf(() => verifyingKeyFromSpki(compressed))).toBe('KEY_ENCODING')
  })

  test('with bytes after it, cut off, or changed to another', () => {
    expect(codeOf(() => verifyingKeyFromSpki(new Uint8Array([...signing.spki, 0])))).toBe(
      'KEY_ENCODING',
    )
    for (let length = 0; length < signing.spki.length; length += 1)
      expect(codeOf(() => verifyingKeyFromSpki(signing.spki.subarray(0, length)))).toBe(
        'KEY_ENCODING',
      )
    for (let bit = 0; bit < signing.spki.length * 8; bit += 1) {
      const flipped = signing.spki.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(() => verifyingKeyFromSpki(flipped)).toThrow(AttestError)
    }
  })

  test('in base64 that is none', () => {
    expect(codeOf(() => verifyingKeyFromSpki('***'))).toBe('KEY_ENCODING')
  })
})

describe('PEM is refused', () => {
  const body = pem.split('\n').slice(1, -2).join('\n')
  const block = (label: string, text: string): string =>
    `-----BEGIN ${label}-----\n${text}\n-----END ${label}-----\n`
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  test.each<[claim: string, text: string, code: string]>([
    ['empty', '', 'KEY_PEM'],
    ['of a public key', publicPem, 'KEY_PEM'],
    ['of SEC 1', block('EC PRIVATE KEY', body), 'KEY_PEM'],
    ['of cosign', block('ENCRYPTED SIGSTORE PRIVATE KEY', body), 'KEY_PEM'],
    ['twice', pem + pem, 'KEY_PEM'],
    ['with text before it', `key:\n${pem}`, 'KEY_PEM'],
    ['with another end', pem.replace('END PRIVATE', 'END PUBLIC'), 'KEY_PEM'],
    ['that is too long', block('PRIVATE KEY', 'A'.repeat(5000)), 'KEY_PEM'],
    ['without content', block('PRIVATE KEY', ''), 'KEY_PEM'],
    ['with padding inside', block('PRIVATE KEY', 'AA==AAAA'), 'KEY_PEM'],
    ['of other bytes', block('PRIVATE KEY', 'AAAA'), 'KEY_ENCODING'],
    ['of RSA', String(rsa.export({ type: 'pkcs8', format: 'pem' })), 'KEY_ALGORITHM'],
  ])('%s', (_claim, text, code) => {
    expect(codeOf(() => parseSigningKey(text))).toBe(code)
  })

  test('without showing the key', () => {
    const broken = block('PRIVATE KEY', body.replace('\n', 'A\n'))
    try {
      parseSigningKey(broken)
      expect.unreachable()
    } catch (error) {
      expect(String(error)).not.toContain(body.slice(0, 20))
      expect(error).toBeInstanceOf(AttestError)
      expect((error as AttestError).cause).toBeUndefined()
    }
  })
})
