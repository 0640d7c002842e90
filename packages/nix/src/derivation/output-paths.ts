import { contentAddressedPath } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { inputAddressedPath, outputPathName } from '../output-path.ts'
import type { StorePath } from '../store-path.ts'
import { checkOutputs, outputPath } from './derivation.ts'
import type { Derivation } from './derivation.ts'
import type { DerivationGraph } from './graph.ts'
import { hashDerivationModulo, hashGraphModulo } from './modulo.ts'
import type { HashModulo } from './modulo.ts'

/**
 * The output paths of `derivation`, computed from everything but those it states. `undefined` where the
 * path is known only after the build.
 *
 * @param inputHash the hash modulo fixed outputs of an input derivation; see `hashGraphModulo`.
 * @throws {NixError} STORE_PATH – the names give no legal name; DRV_DYNAMIC.
 */
export function computeOutputPaths(
  derivation: Derivation,
  inputHash: (path: StorePath) => HashModulo,
): ReadonlyMap<string, StorePath | undefined> {
  const { name, outputs } = derivation
  const paths = new Map<string, StorePath | undefined>()
  let own: Buffer | undefined | 'unknown' = 'unknown'
  for (const [output, { kind, ...rest }] of outputs) {
    if ('address' in rest) {
      paths.set(output, contentAddressedPath(outputPathName(name, output), rest.address))
    } else if (kind === 'floating' || kind === 'impure') {
      paths.set(output, undefined)
    } else {
      if (own === 'unknown') {
        const hex = hashDerivationModulo(derivation, inputHash, { maskOutputs: true })
        own = hex && Buffer.from(hex, 'hex')
      }
      paths.set(output, own && inputAddressedPath(name, output, own))
    }
  }
  return paths
}

/**
 * Recomputes every output path of `graph`. With the check of each text against its path, which making a graph
 * does, this proves that what the derivations state about their outputs follows from them; what was built
 * there is another question.
 *
 * @throws {NixError} DRV_OUTPUT_PATH – an output has another path than the computed one, or has one
 * where there can be none; DRV_ENVIRONMENT – the variable named after an output does not hold its path.
 */
export function verifyOutputPaths(graph: DerivationGraph): void {
  const hashes = hashGraphModulo(graph)
  for (const [path, derivation] of graph.derivations) {
    checkOutputs(derivation.outputs)
    const computed = computeOutputPaths(derivation, (input) => hashes.get(input))
    for (const [name, output] of derivation.outputs) {
      const stated = outputPath(output)
      const expected = computed.get(name)
      const detail = { path, output: name }
      if (stated !== expected)
        throw new NixError(
          'DRV_OUTPUT_PATH',
          `expected output ${quote(name)} of ${quote(path)} at ${quote(expected ?? 'no path')}, ` +
            `got ${quote(stated ?? 'no path')}`,
          { detail },
        )
      const variable = derivation.env.get(name)
      if (stated !== undefined && variable !== stated)
        throw new NixError(
          'DRV_ENVIRONMENT',
          `expected the variable ${quote(name)} of ${quote(path)} to be ${quote(stated)}, ` +
            `got ${variable === undefined ? 'none' : quote(variable)}`,
          { detail },
        )
    }
  }
}
