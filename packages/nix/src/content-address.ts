// Content addresses: "what a store object is must hash to this".
//   text:sha256:<nix32>                        a file without further structure, which may have references
//   fixed:[r:|git:]<algo>:<nix32>              flat file, NAR ("r:") or git tree
// They stand in narinfo ("CA:"), in the database and, as prefix of an algorithm, in derivations. A path
// whose content address was checked needs no signature: its name follows from its content.
// https://github.com/NixOS/nix/blob/master/src/libstore/content-address.cc
import { hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { formatHash, formatHashDigits, parseHashAlgorithm, parseHashDigits } from './hash.ts'
import type { HashAlgorithm, NixHash } from './hash.ts'
import { byteOrder, makeStorePath } from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** How the content of a store object is turned into bytes before it is hashed. */
export type IngestionMethod = 'flat' | 'nar' | 'git' | 'text'

/** What a store object hashes to. */
export interface ContentAddress {
  readonly method: IngestionMethod
  readonly hash: NixHash
}

/** What a content-addressed store object refers to; only `text` and `nar` with sha256 can. */
export interface ContentReferences {
  /** Other store paths, in any order. */
  readonly references?: readonly StorePath[]
  /** Whether it refers to itself; `nar` only. */
  readonly self?: boolean
}

const PREFIXES: Readonly<Record<IngestionMethod, string>> = {
  flat: '',
  nar: 'r:',
  git: 'git:',
  text: 'text:',
}

/**
 * Parses an ingestion method and algorithm as derivations write them: `sha256`, `r:sha256`,
 * `git:sha1`, `text:sha256`.
 *
 * @throws {NixError} CONTENT_ADDRESS – a method that does not go with the algorithm; HASH.
 */
export function parseMethodAndAlgorithm(text: string): {
  method: IngestionMethod
  algorithm: HashAlgorithm
} {
  const method = (['nar', 'git', 'text'] as const).find((one) => text.startsWith(PREFIXES[one]))
  const algorithm = parseHashAlgorithm(
    text.slice(method === undefined ? 0 : PREFIXES[method].length),
  )
  checkMethod(method ?? 'flat', algorithm)
  return { method: method ?? 'flat', algorithm }
}

/** The inverse of {@link parseMethodAndAlgorithm}. */
export function formatMethodAndAlgorithm(
  method: IngestionMethod,
  algorithm: HashAlgorithm,
): string {
  return PREFIXES[method] + algorithm
}

/**
 * Parses `text:sha256:<nix32>` or `fixed:[r:|git:]<algo>:<nix32>`.
 *
 * @throws {NixError} CONTENT_ADDRESS – neither; a digest that is not nix32; a method that does not go
 * with the algorithm. HASH – another algorithm.
 */
export function parseContentAddress(text: string): ContentAddress {
  const parts = /^(?:(text:)|fixed:(r:|git:|))([a-z0-9]+):([0-9a-z]+)$/.exec(text)
  if (parts === null)
    throw new NixError(
      'CONTENT_ADDRESS',
      `expected text:<algo>:<nix32> or fixed:[r:|git:]<algo>:<nix32>, got ${quote(text)}`,
    )
  const [, isText = '', prefix = '', name = '', digits = ''] = parts
  const { method, algorithm } = parseMethodAndAlgorithm(isText + prefix + name)
  return { method, hash: { algorithm, digest: parseHashDigits(algorithm, digits, 'nix32') } }
}

/** The inverse of {@link parseContentAddress}. */
export function formatContentAddress({ method, hash }: ContentAddress): string {
  return `${method === 'text' ? 'text:' : `fixed:${PREFIXES[method]}`}${formatHash(hash, 'nix32')}`
}

/**
 * The store path of an object named `name` with that content address. With `self`, the NAR's hash is
 * the one with the own path's hash part masked.
 *
 * @throws {NixError} CONTENT_ADDRESS – references that such an object cannot have; a method that does
 * not go with the algorithm. STORE_PATH – `name` is not a legal name.
 * @see https://github.com/NixOS/nix/blob/master/src/libstore/store-dir-config.cc
 */
export function contentAddressedPath(
  name: string,
  { method, hash: { algorithm, digest } }: ContentAddress,
  { references = [], self = false }: ContentReferences = {},
): StorePath {
  checkMethod(method, algorithm)
  const refs = [...new Set(references)].toSorted(byteOrder)
  if (method === 'text' && !self) return makeStorePath(['text', ...refs].join(':'), digest, name)
  if (method === 'nar' && algorithm === 'sha256')
    return makeStorePath(['source', ...refs, ...(self ? ['self'] : [])].join(':'), digest, name)
  if (self || refs.length > 0)
    throw new NixError(
      'CONTENT_ADDRESS',
      `expected no references${self ? ' to itself' : ''} in ${quote(name)}, which is addressed by ` +
        formatMethodAndAlgorithm(method, algorithm),
    )
  const inner = `${PREFIXES[method]}${algorithm}:${formatHashDigits(digest, 'base16')}`
  return makeStorePath('output:out', hash('sha256', `fixed:out:${inner}:`, 'buffer'), name)
}

/**
 * The store path of a text file, as `builtins.toFile` and derivations have it.
 *
 * @throws {NixError} STORE_PATH – `name` is not a legal name.
 */
export function textPath(
  name: string,
  content: Uint8Array,
  references: readonly StorePath[] = [],
): StorePath {
  const digest = hash('sha256', content, 'buffer')
  return contentAddressedPath(
    name,
    { method: 'text', hash: { algorithm: 'sha256', digest } },
    { references },
  )
}

function checkMethod(method: IngestionMethod, algorithm: HashAlgorithm): void {
  if (method === 'text' && algorithm !== 'sha256')
    throw new NixError('CONTENT_ADDRESS', `expected sha256 for text, got ${algorithm}`)
  if (method === 'git' && algorithm !== 'sha1' && algorithm !== 'sha256')
    throw new NixError('CONTENT_ADDRESS', `expected sha1 or sha256 for git, got ${algorithm}`)
}
