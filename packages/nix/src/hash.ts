// Hash strings. Nix writes one digest in many ways:
//   algo ":" digits     base16, nix32 or base64, told apart by length alone
//   algo "-" base64     SRI
//   digits              where the algorithm stands elsewhere (a .drv, the daemon's wire)
// Every spelling has one canonical form here: lower-case base16, nix32 without spill bits, base64 with
// its padding and no stray bits. Inside this code base a NAR hash is SRI and a content hash is base16.
// https://github.com/NixOS/nix/blob/master/src/libutil/hash.cc
import { hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { decodeNix32, encodeNix32, nix32Length } from './nix32.ts'

declare const narHashBrand: unique symbol
declare const sha256Brand: unique symbol

/** The sha256 of a NAR in canonical SRI form, `sha256-<44 base64 characters>`. */
export type NarHash = string & { readonly [narHashBrand]: true }

/** A sha256 as 64 lower-case hexadecimal digits. */
export type Sha256 = string & { readonly [sha256Brand]: true }

/** The algorithms of released Nix, weakest first. `blake3` is experimental there and refused here. */
export const HASH_ALGORITHMS = ['md5', 'sha1', 'sha256', 'sha512'] as const

/** One of {@link HASH_ALGORITHMS}. */
export type HashAlgorithm = (typeof HASH_ALGORITHMS)[number]

/** How a digest is spelled; `sri` is base64 behind `algo-`. */
export type HashEncoding = 'base16' | 'nix32' | 'base64' | 'sri'

/** A digest and what made it. */
export interface NixHash {
  readonly algorithm: HashAlgorithm
  /** As many bytes as {@link hashLength} says. */
  readonly digest: Uint8Array
}

const LENGTHS: Readonly<Record<HashAlgorithm, number>> = {
  md5: 16,
  sha1: 20,
  sha256: 32,
  sha512: 64,
}
const BASE16 = /^[0-9a-f]*$/
const SHA256_BASE16 = /^[0-9a-f]{64}$/
const SHA256_BYTES = 32

/**
 * Parses the name of an algorithm.
 *
 * @throws {NixError} HASH – not one of {@link HASH_ALGORITHMS}; `blake3` is refused by name.
 */
export function parseHashAlgorithm(text: string): HashAlgorithm {
  if ((HASH_ALGORITHMS as readonly string[]).includes(text)) return text as HashAlgorithm
  const why = text === 'blake3' ? ', which is experimental in Nix,' : ''
  throw new NixError('HASH', `expected md5, sha1, sha256 or sha512, got ${quote(text)}${why}`)
}

/** The number of bytes of a digest. */
export function hashLength(algorithm: HashAlgorithm): number {
  return LENGTHS[algorithm]
}

/**
 * Parses `algo:digits` or SRI.
 *
 * @throws {NixError} HASH – no or another algorithm, a wrong length, or a spelling that is not canonical.
 */
export function parseHash(text: string): NixHash {
  const end = text.search(/[:-]/)
  if (end < 0) throw new NixError('HASH', `expected algo:digits or algo-base64, got ${quote(text)}`)
  const algorithm = parseHashAlgorithm(text.slice(0, end))
  const digits = text.slice(end + 1)
  const encoding = text[end] === '-' ? 'sri' : undefined
  return { algorithm, digest: parseHashDigits(algorithm, digits, encoding) }
}

/**
 * The digest that bare digits spell. Their length decides between base16, nix32 and base64 unless
 * `encoding` names one.
 *
 * @throws {NixError} HASH – a wrong length, or a spelling that is not canonical.
 */
export function parseHashDigits(
  algorithm: HashAlgorithm,
  digits: string,
  encoding: HashEncoding | undefined = encodingByLength(algorithm, digits.length),
): Uint8Array {
  const digest = encoding && decodeDigits(digits, encoding, LENGTHS[algorithm])
  if (digest !== undefined) return digest
  throw new NixError(
    'HASH',
    `expected ${algorithm} in ${encoding ?? 'base16, nix32 or base64'}, got ${quote(digits)}`,
  )
}

/** `algo:digits`, or SRI. */
export function formatHash({ algorithm, digest }: NixHash, encoding: HashEncoding): string {
  return `${algorithm}${encoding === 'sri' ? '-' : ':'}${formatHashDigits(digest, encoding)}`
}

/** The digits alone; `sri` gives base64. */
export function formatHashDigits(digest: Uint8Array, encoding: HashEncoding): string {
  if (encoding === 'nix32') return encodeNix32(digest)
  return Buffer.from(digest).toString(encoding === 'base16' ? 'hex' : 'base64')
}

/**
 * Parses SRI, `sha256:` with base16, nix32 or base64, and bare base16 (as the daemon sends it), and
 * returns the one canonical spelling.
 *
 * @throws {NixError} HASH – another algorithm, a wrong length, or a spelling that is not canonical.
 */
export function parseNarHash(text: string): NarHash {
  if (SHA256_BASE16.test(text)) return narHashFromDigest(Buffer.from(text, 'hex'))
  const { algorithm, digest } = parseHash(text)
  if (algorithm !== 'sha256')
    throw new NixError('HASH', `expected a sha256 hash, got ${quote(text)}`)
  return narHashFromDigest(digest)
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
  if (!SHA256_BASE16.test(text))
    throw new NixError('HASH', `expected 64 lower-case hexadecimal digits, got ${quote(text)}`)
  return text as Sha256
}

/** The sha256 of `data`; a string is taken as UTF-8. */
export function sha256Hex(data: Uint8Array | string): Sha256 {
  return hash('sha256', data, 'hex') as Sha256
}

function encodingByLength(algorithm: HashAlgorithm, length: number): HashEncoding | undefined {
  const bytes = LENGTHS[algorithm]
  if (length === bytes * 2) return 'base16'
  if (length === nix32Length(bytes)) return 'nix32'
  return length === Math.ceil(bytes / 3) * 4 ? 'base64' : undefined
}

function decodeDigits(
  digits: string,
  encoding: HashEncoding,
  bytes: number,
): Uint8Array | undefined {
  if (encoding === 'base16')
    return digits.length === bytes * 2 && BASE16.test(digits)
      ? new Uint8Array(Buffer.from(digits, 'hex'))
      : undefined
  if (encoding === 'nix32') {
    try {
      return decodeNix32(digits, bytes)
    } catch {
      return undefined // the caller says what was expected
    }
  }
  // Node's decoder takes url-safe digits, missing padding and stray bits; only one spelling is ours.
  const digest = Buffer.from(digits, 'base64')
  if (digest.length !== bytes || digest.toString('base64') !== digits) return undefined
  return new Uint8Array(digest)
}
