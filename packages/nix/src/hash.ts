// Hash strings. Nix writes one digest in many ways: SRI ("sha256-" base64), "sha256:" followed by
// base16, nix32 or base64 (told apart by length), and bare base16 on the daemon's wire. Inside this
// code base a NAR hash is SRI and a content hash is base16, each in one canonical spelling.
import { hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { decodeNix32 } from './nix32.ts'

declare const narHashBrand: unique symbol
declare const sha256Brand: unique symbol

/** The sha256 of a NAR in canonical SRI form, `sha256-<44 base64 characters>`. */
export type NarHash = string & { readonly [narHashBrand]: true }

/** A sha256 as 64 lower-case hexadecimal digits. */
export type Sha256 = string & { readonly [sha256Brand]: true }

const BASE16 = /^[0-9a-f]{64}$/
const SHA256_BYTES = 32

/**
 * Parses SRI, `sha256:` with base16, nix32 or base64, and bare base16 (as the daemon sends it), and
 * returns the one canonical spelling.
 *
 * @throws {NixError} HASH – another algorithm, a wrong length, or a spelling that is not canonical.
 */
export function parseNarHash(text: string): NarHash {
  if (text.startsWith('sha256-')) return narHashFromDigest(decodeBase64(text, text.slice(7)))
  if (BASE16.test(text)) return narHashFromDigest(Buffer.from(text, 'hex'))
  if (!text.startsWith('sha256:'))
    throw new NixError('HASH', `expected a sha256 hash, got ${quote(text)}`)
  const digits = text.slice(7)
  if (BASE16.test(digits)) return narHashFromDigest(Buffer.from(digits, 'hex'))
  if (digits.length !== 52) return narHashFromDigest(decodeBase64(text, digits))
  try {
    return narHashFromDigest(decodeNix32(digits, SHA256_BYTES))
  } catch (cause) {
    throw new NixError('HASH', `expected a sha256 hash, got ${quote(text)}`, { cause })
  }
}

/** The canonical spelling of a NAR's sha256 digest (32 bytes). */
export function narHashFromDigest(digest: Uint8Array): NarHash {
  if (digest.length !== SHA256_BYTES) throw new TypeError('a sha256 digest has 32 bytes')
  return `sha256-${Buffer.from(digest).toString('base64')}` as NarHash
}

/** The 32 bytes of `narHash`. */
export function narHashDigest(narHash: NarHash): Uint8Array {
  return new Uint8Array(Buffer.from(narHash.slice(7), 'base64'))
}

/**
 * Parses 64 lower-case hexadecimal digits, and nothing else.
 *
 * @throws {NixError} HASH
 */
export function parseSha256(text: string): Sha256 {
  if (!BASE16.test(text))
    throw new NixError('HASH', `expected 64 lower-case hexadecimal digits, got ${quote(text)}`)
  return text as Sha256
}

/** The sha256 of `data`; a string is taken as UTF-8. */
export function sha256Hex(data: Uint8Array | string): Sha256 {
  return hash('sha256', data, 'hex') as Sha256
}

function decodeBase64(text: string, digits: string): Uint8Array {
  const digest = Buffer.from(digits, 'base64')
  // Node's decoder takes url-safe digits, missing padding and stray bits; only one spelling is ours.
  if (digest.length !== SHA256_BYTES || digest.toString('base64') !== digits)
    throw new NixError('HASH', `expected a canonical sha256 hash, got ${quote(text)}`)
  return digest
}
