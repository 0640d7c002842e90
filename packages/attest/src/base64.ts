// Base64 as DSSE and protobuf's JSON allow it (both alphabets of RFC 4648, padding complete or
// absent), and nothing else: no whitespace, no mixed alphabets, no bits that are thrown away.
const STANDARD = /^[A-Za-z0-9+/]*={0,2}$/
const URL_SAFE = /^[A-Za-z0-9_-]*={0,2}$/

/** Returns the bytes, or undefined if `text` is not base64. */
export function decodeBase64(text: string): Uint8Array | undefined {
  if (!STANDARD.test(text) && !URL_SAFE.test(text)) return undefined
  const digits = text.replace(/=+$/, '')
  if (text.length !== digits.length && text.length % 4 !== 0) return undefined
  const bytes = Buffer.from(digits, 'base64url')
  if (bytes.toString('base64url') !== digits.replaceAll('+', '-').replaceAll('/', '_'))
    return undefined
  return new Uint8Array(bytes)
}

/** Writes standard base64 with padding. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}
