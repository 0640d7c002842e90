// Signatures of binary caches: Ed25519 over a fingerprint of the facts about one store path.
//
//   fingerprint = "1;" path ";sha256:" nix32 ";" narSize ";" full paths of the references, sorted, by ","
//   signature   = name ":" base64(64 bytes)
//   public key  = name ":" base64(32 bytes)
//   secret key  = name ":" base64(32 bytes of seed, 32 bytes of public key)
//
// The fingerprint holds no deriver, no builder and no time: a signature says that someone who holds the
// key published these bytes under this path, and nothing about who built them or from what.
// https://github.com/NixOS/nix/blob/master/src/libstore/path-info.cc
import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { narHashDigest } from './hash.ts'
import type { PathInfo } from './manifest.ts'
import { encodeNix32 } from './nix32.ts'
import { byteOrder } from './store-path.ts'

/** A key that is trusted to sign facts. */
export interface CachePublicKey {
  /** A hint, chosen by whoever made the key: only {@link CachePublicKey.bytes} identify it. */
  readonly name: string
  /** The 32 bytes of the Ed25519 key. */
  readonly bytes: Uint8Array
  readonly key: KeyObject
}

/** A key that signs facts. Nothing that prints this object shows the secret. */
export interface CacheSecretKey {
  readonly name: string
  readonly key: KeyObject
  readonly publicKey: CachePublicKey
}

/** One signature, taken apart and not verified. */
export interface CacheSignature {
  readonly name: string
  /** 64 bytes. */
  readonly bytes: Uint8Array
}

const KEY_BYTES = 32
const SIGNATURE_BYTES = 64
const MAX_NAME = 256
const NAME = /^[!-9;-~]+$/ // printable ASCII without space and colon
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')

/** The text that a cache signs for `info`. */
export function pathInfoFingerprint(info: PathInfo): string {
  const references = [...info.references].sort(byteOrder).join(',')
  const narHash = `sha256:${encodeNix32(narHashDigest(info.narHash))}`
  return `1;${info.path};${narHash};${info.narSize};${references}`
}

/**
 * Parses `name:base64`, as in Nix's setting `trusted-public-keys`.
 *
 * @throws {NixError} SIGNATURE_KEY
 */
export function parseCachePublicKey(text: string): CachePublicKey {
  const { name, bytes } = split(text, KEY_BYTES, () => `expected a public key, got ${quote(text)}`)
  return publicKey(name, bytes)
}

/** The text of a public key, `name:base64`. */
export function formatCachePublicKey({ name, bytes }: CachePublicKey): string {
  return `${name}:${Buffer.from(bytes).toString('base64')}`
}

/**
 * Parses a secret key, as `nix-store --generate-binary-cache-key` writes it. A line feed at the end is
 * taken. The message never shows what was read.
 *
 * @throws {NixError} SIGNATURE_KEY – also when the public half is not that of the secret half, because
 * signing with such a pair gives the secret away.
 */
export function parseCacheSecretKey(text: string): CacheSecretKey {
  const { name, bytes } = split(
    text.replace(/\n$/, ''),
    2 * KEY_BYTES,
    () => 'expected a secret key, <name>:<base64 of 64 bytes>',
  )
  const seed = bytes.subarray(0, KEY_BYTES)
  const der = Buffer.concat([PKCS8_PREFIX, seed])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  if (!spki.subarray(SPKI_PREFIX.length).equals(bytes.subarray(KEY_BYTES)))
    throw new NixError('SIGNATURE_KEY', `expected the halves of key ${quote(name)} to fit`)
  return { name, key, publicKey: publicKey(name, bytes.subarray(KEY_BYTES)) }
}

/**
 * Parses `name:base64`, the value of a `Sig` line.
 *
 * @throws {NixError} SIGNATURE_FORMAT
 */
export function parseCacheSignature(text: string): CacheSignature {
  return split(
    text,
    SIGNATURE_BYTES,
    () => `expected a signature, got ${quote(text)}`,
    'SIGNATURE_FORMAT',
  )
}

/** Signs the facts about a path; the value of a `Sig` line. */
export function signPathInfo(info: PathInfo, secretKey: CacheSecretKey): string {
  const signature = sign(null, Buffer.from(pathInfoFingerprint(info)), secretKey.key)
  return `${secretKey.name}:${signature.toString('base64')}`
}

/**
 * The keys of `trusted` that signed `info`, each once however many signatures or names it has. Signatures
 * that do not parse, or are by others, count for nothing.
 */
export function findSigners(
  info: PathInfo,
  trusted: readonly CachePublicKey[],
): readonly CachePublicKey[] {
  const signers = new Map<string, CachePublicKey>()
  let message: Buffer | undefined
  for (const text of info.signatures ?? []) {
    const signature = tryParse(text)
    if (signature === undefined) continue
    for (const candidate of trusted) {
      const id = Buffer.from(candidate.bytes).toString('hex')
      if (candidate.name !== signature.name || signers.has(id)) continue
      message ??= Buffer.from(pathInfoFingerprint(info))
      if (verify(null, message, candidate.key, signature.bytes)) signers.set(id, candidate)
    }
  }
  return [...signers.values()]
}

function tryParse(text: string): CacheSignature | undefined {
  try {
    return parseCacheSignature(text)
  } catch {
    return undefined // A signature of a form that we do not know proves nothing.
  }
}

function publicKey(name: string, bytes: Uint8Array): CachePublicKey {
  const der = Buffer.concat([SPKI_PREFIX, bytes])
  const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
  return { name, bytes: new Uint8Array(bytes), key }
}

function split(
  text: string,
  byteLength: number,
  message: () => string,
  code: 'SIGNATURE_KEY' | 'SIGNATURE_FORMAT' = 'SIGNATURE_KEY',
): { readonly name: string; readonly bytes: Buffer } {
  const colon = text.indexOf(':')
  const name = text.slice(0, Math.max(colon, 0))
  const digits = text.slice(colon + 1)
  // Node's decoder takes url-safe digits, missing padding and stray bits; only one spelling is ours.
  const bytes = digits.length <= 4 * byteLength ? Buffer.from(digits, 'base64') : Buffer.alloc(0)
  if (
    name.length > MAX_NAME ||
    !NAME.test(name) ||
    bytes.length !== byteLength ||
    bytes.toString('base64') !== digits
  )
    throw new NixError(code, message())
  return { name, bytes }
}
