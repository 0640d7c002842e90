// Paths of derivation outputs, and the placeholders that stand for them while they are not known.
import { hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { decodeNix32, encodeNix32 } from './nix32.ts'
import { foldHash, makeStorePath, STORE_DIR, storePathName } from './store-path.ts'
import type { StorePath } from './store-path.ts'

const DRV = '.drv'
const HASH_LENGTH = 32

/** Whether `path` is named as a derivation. */
export function isDerivationPath(path: StorePath): boolean {
  return path.endsWith(DRV) && storePathName(path).length > DRV.length
}

/**
 * The name of the derivation at `path`: its own without `.drv`. A derivation's text does not hold it.
 *
 * @throws {NixError} STORE_PATH – not named as a derivation.
 */
export function derivationName(path: StorePath): string {
  if (!isDerivationPath(path))
    throw new NixError('STORE_PATH', `expected a name that ends with .drv, got ${quote(path)}`)
  return storePathName(path).slice(0, -DRV.length)
}

/** The name of an output's store path: `name`, or `name-output` for outputs other than `out`. */
export function outputPathName(derivation: string, output: string): string {
  return output === 'out' ? derivation : `${derivation}-${output}`
}

/**
 * The path of an input-addressed output.
 *
 * @param hashModulo 32 bytes: the derivation's hash modulo fixed outputs, with its own outputs masked.
 * @throws {NixError} STORE_PATH – the names give no legal name.
 * @see https://nix.dev/manual/nix/latest/store/derivation/outputs/input-address
 */
export function inputAddressedPath(
  derivation: string,
  output: string,
  hashModulo: Uint8Array,
): StorePath {
  return makeStorePath(`output:${output}`, hashModulo, outputPathName(derivation, output))
}

/** What stands for a derivation's own output in its text while the path is not known. */
export function ownOutputPlaceholder(output: string): string {
  return placeholder(`nix-output:${output}`)
}

/**
 * What stands for an output of `derivation`, not known before it is built, in derivations that use it.
 *
 * @throws {NixError} STORE_PATH – `derivation` is not named as a derivation.
 * @see https://github.com/NixOS/nix/blob/master/src/libstore/downstream-placeholder.cc
 */
export function downstreamPlaceholder(derivation: StorePath, output: string): string {
  const name = outputPathName(derivationName(derivation), output)
  const start = STORE_DIR.length + 1
  return placeholder(`nix-upstream-output:${derivation.slice(start, start + HASH_LENGTH)}:${name}`)
}

/**
 * What stands for an output of a derivation that is itself an output, and so not known either.
 *
 * @param derivationPlaceholder the placeholder of that derivation
 * @throws {NixError} NIX32 – not a placeholder.
 */
export function dynamicPlaceholder(derivationPlaceholder: string, output: string): string {
  if (!derivationPlaceholder.startsWith('/'))
    throw new NixError('NIX32', `expected a placeholder, got ${quote(derivationPlaceholder)}`)
  const digest = decodeNix32(derivationPlaceholder.slice(1), 32)
  return placeholder(`nix-computed-output:${encodeNix32(foldHash(digest))}:${output}`)
}

function placeholder(clearText: string): string {
  return `/${encodeNix32(hash('sha256', clearText, 'buffer'))}`
}
