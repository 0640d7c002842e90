// A derivation's hash "modulo fixed outputs": the same for derivations that give the same result because they
// differ only in how a fixed output is fetched. Input-addressed output paths come from it.
//   fixed                               sha256("fixed:out:" algo ":" hex ":" path)
//   floating, impure, deferred,
//   or anything that depends on one     none: its paths are known only once it is built
//   else                                sha256(text, where the path of each input derivation is its hash)
// Inputs with equal hashes are merged. For the own output paths the same, with the own paths printed as "".
// https://nix.dev/manual/nix/latest/store/derivation/outputs/input-address
import { hash } from 'node:crypto'
import { formatMethodAndAlgorithm } from '../content-address.ts'
import { formatHashDigits } from '../hash.ts'
import type { Sha256 } from '../hash.ts'
import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { printDerivation } from './aterm.ts'
import { refuseDynamicInputs } from './derivation.ts'
import type { Derivation } from './derivation.ts'
import type { DerivationGraph } from './graph.ts'

/** A hash modulo fixed outputs; `undefined` is deferred: there is none before the build. */
export type HashModulo = Sha256 | undefined

/**
 * The hash of `derivation` modulo fixed outputs.
 *
 * @param inputHash the same of an input derivation, without masking.
 * @param maskOutputs hash for the own output paths.
 * @throws {NixError} DRV_DYNAMIC – it needs inputs that are themselves built.
 */
export function hashDerivationModulo(
  derivation: Derivation,
  inputHash: (path: StorePath) => HashModulo,
  { maskOutputs = false }: { readonly maskOutputs?: boolean } = {},
): HashModulo {
  for (const output of derivation.outputs.values()) {
    if (output.kind === 'fixed') {
      const { method, hash } = output.address
      const algorithm = formatMethodAndAlgorithm(method, hash.algorithm)
      const digits = formatHashDigits(hash.digest, 'base16')
      return sha256(`fixed:out:${algorithm}:${digits}:${output.path}`) // the only one
    }
    if (output.kind === 'floating' || output.kind === 'impure') return undefined
  }
  refuseDynamicInputs(derivation)
  const namesByHash = new Map<string, Set<string>>()
  for (const [path, names] of derivation.inputDerivations) {
    const input = inputHash(path)
    if (input === undefined) return undefined
    const merged = namesByHash.get(input)
    if (merged === undefined) namesByHash.set(input, new Set(names))
    else for (const name of names) merged.add(name)
  }
  const inputs = Array.from(
    namesByHash,
    ([input, names]) => [input, [...names].toSorted(byteOrder)] as const,
  ).toSorted(([a], [b]) => byteOrder(a, b))
  return sha256(printDerivation(derivation, { inputs, maskOutputs }))
}

/** The hashes modulo fixed outputs of all derivations of `graph`. */
export function hashGraphModulo(graph: DerivationGraph): ReadonlyMap<StorePath, HashModulo> {
  const hashes = new Map<StorePath, HashModulo>()
  for (const [path, derivation] of graph.derivations)
    hashes.set(
      path,
      hashDerivationModulo(derivation, (input) => hashes.get(input)),
    )
  return hashes
}

function sha256(bytes: string): Sha256 {
  return hash('sha256', Buffer.from(bytes, 'latin1'), 'hex') as Sha256
}
