// Store paths: "/nix/store/" hash "-" name
//   hash   32 nix32 characters (20 bytes)
//   name   1 to 211 of [0-9A-Za-z+\-._?=]; not "." or ".."; does not start with ".-" or "..-"
// Only the canonical spelling parses: no "//", no trailing "/", no other store directory.
// Nix 2.8 still accepts a name that starts with "..-"; 2.26 and later do not, and neither do we.
// https://github.com/NixOS/nix/blob/master/doc/manual/source/protocols/store-path.md
import { hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { encodeNix32 } from './nix32.ts'

declare const storePathBrand: unique symbol

/** A canonical, full store path: `/nix/store/<32 nix32>-<name>`. Always ASCII. */
export type StorePath = string & { readonly [storePathBrand]: true }

/** The one store directory that is supported: every hash in a store depends on it. */
export const STORE_DIR = '/nix/store'

const HASH_BYTES = 20
const HASH_LENGTH = 32
const BASE = /^[0-9abcdfghijklmnpqrsvwxyz]{32}-(?!\.{1,2}(?:-|$))[0-9A-Za-z+\-._?=]{1,211}$/

/**
 * Parses a full store path.
 *
 * @throws {NixError} STORE_PATH – anything but the canonical spelling of a path directly in the store.
 */
export function parseStorePath(text: string): StorePath {
  const prefix = `${STORE_DIR}/`
  if (!text.startsWith(prefix) || !BASE.test(text.slice(prefix.length)))
    throw new NixError('STORE_PATH', `expected ${prefix}<hash>-<name>, got ${quote(text)}`)
  return text as StorePath
}

/**
 * Parses a base name, as references are written: `<32 nix32>-<name>`.
 *
 * @throws {NixError} STORE_PATH
 */
export function parseStorePathBase(base: string): StorePath {
  if (!BASE.test(base))
    throw new NixError('STORE_PATH', `expected <hash>-<name>, got ${quote(base)}`)
  return `${STORE_DIR}/${base}` as StorePath
}

/**
 * The store path that contains the absolute path `file`, or is `file`; `undefined` when none does.
 * Lexical: nothing is resolved, so a path with `.`, `..`, `//` or a trailing `/` is in no store path.
 */
export function storePathOf(file: string): StorePath | undefined {
  const [empty, nix, store, base, ...inside] = file.split('/')
  if (empty !== '' || nix !== 'nix' || store !== 'store') return undefined
  if (base === undefined || !BASE.test(base)) return undefined
  if (inside.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0')))
    return undefined
  return `${STORE_DIR}/${base}` as StorePath
}

/** The name: what follows the hash, such as `glibc-2.36`. */
export function storePathName(path: StorePath): string {
  return path.slice(STORE_DIR.length + 1 + HASH_LENGTH + 1)
}

/** The 32 characters of the hash, by which a binary cache names the path. */
export function storePathHash(path: StorePath): string {
  return path.slice(STORE_DIR.length + 1, STORE_DIR.length + 1 + HASH_LENGTH)
}

/** The base name, `<hash>-<name>`. */
export function storePathBase(path: StorePath): string {
  return path.slice(STORE_DIR.length + 1)
}

/**
 * The store path that Nix computes for an inner hash.
 *
 * @param type `text[:ref…]`, `source[:ref…][:self]`, `output:out` or `output:<id>`; what the inner
 * hash is of depends on it.
 * @param innerSha256 32 bytes.
 * @throws {NixError} STORE_PATH – `name` is not a legal name.
 */
export function makeStorePath(type: string, innerSha256: Uint8Array, name: string): StorePath {
  if (innerSha256.length !== 32) throw new TypeError('a sha256 digest has 32 bytes')
  const inner = Buffer.from(innerSha256).toString('hex')
  const digest = hash('sha256', `${type}:sha256:${inner}:${STORE_DIR}:${name}`, 'buffer')
  return parseStorePathBase(`${encodeNix32(foldHash(digest))}-${name}`)
}

/** `digest` compressed to the 20 bytes of a store path's hash part, by exclusive or. */
export function foldHash(digest: Uint8Array): Uint8Array {
  const folded = new Uint8Array(HASH_BYTES)
  for (const [index, byte] of digest.entries())
    folded[index % HASH_BYTES] = (folded[index % HASH_BYTES] ?? 0) ^ byte
  return folded
}

/** Compares ASCII strings, such as store paths, in byte order; for `Array.sort`. */
export function byteOrder(a: string, b: string): -1 | 0 | 1 {
  return a < b ? -1 : a > b ? 1 : 0
}
