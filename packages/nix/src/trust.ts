// Who vouches for the facts about a path that came from somewhere else.
import { contentAddressedPath, parseContentAddress } from './content-address.ts'
import { NixError, quote } from './error.ts'
import { narHashFromDigest } from './hash.ts'
import type { PathInfo } from './manifest.ts'
import { findSigners } from './signature.ts'
import type { CachePublicKey } from './signature.ts'
import { storePathName } from './store-path.ts'

/** Whose word is taken: `threshold` distinct keys out of `keys`. */
export interface CacheTrust {
  readonly keys: readonly CachePublicKey[]
  /** At least 1, and at most the number of keys that differ in their bytes; default 1. */
  readonly threshold?: number
}

/** Why facts are trusted. */
export type Vouched =
  | { readonly by: 'signatures'; readonly keys: readonly CachePublicKey[] }
  | { readonly by: 'content-address' }

/**
 * Says who vouches for `info`: enough trusted keys, or the path itself, where it is computed from the NAR
 * hash and the references (as the paths of flake inputs and other sources are).
 *
 * @throws {NixError} SIGNATURE_MISSING – neither. `detail` has `path`, `signed` and `threshold`.
 */
export function verifyPathInfo(info: PathInfo, trust: CacheTrust): Vouched {
  const threshold = checkTrust(trust)
  if (namesItsContent(info)) return { by: 'content-address' }
  const keys = findSigners(info, trust.keys)
  if (keys.length >= threshold) return { by: 'signatures', keys }
  const names = (info.signatures ?? []).map((text) => text.slice(0, text.indexOf(':')))
  throw new NixError(
    'SIGNATURE_MISSING',
    `expected signatures of ${quote(info.path)} by ${threshold} trusted key(s), ` +
      `got ${keys.length} among those by ${quote(names.join(' '))}`,
    { detail: { path: info.path, signed: keys.length, threshold } },
  )
}

/** The threshold of `trust`. @throws {TypeError} it could never be met, or always is */
export function checkTrust({ keys, threshold = 1 }: CacheTrust): number {
  const distinct = new Set(keys.map(({ bytes }) => Buffer.from(bytes).toString('hex'))).size
  if (!Number.isInteger(threshold) || threshold < 1 || threshold > distinct)
    throw new TypeError(`a threshold lies between 1 and the ${distinct} distinct keys`)
  return threshold
}

/**
 * True when the path of `info` is computed from its NAR hash and references, so that nobody can give it
 * another content: content addresses of the kind `fixed:r:sha256` without a reference to itself. (Other
 * kinds hash the content in a form that the NAR hash does not determine.)
 */
export function namesItsContent({ path, narHash, references, ca }: PathInfo): boolean {
  if (ca === undefined || references.includes(path)) return false
  try {
    const address = parseContentAddress(ca)
    return (
      address.method === 'nar' &&
      address.hash.algorithm === 'sha256' &&
      narHashFromDigest(address.hash.digest) === narHash &&
      contentAddressedPath(storePathName(path), address, { references }) === path
    )
  } catch {
    return false // Not a content address that Nix writes: it vouches for nothing.
  }
}
