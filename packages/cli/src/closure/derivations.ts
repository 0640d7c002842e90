// The derivations behind what a command was given.
import {
  DERIVATION_JSON_MAX_BYTES,
  derivationGraph,
  isDerivationPath,
  loadDerivationGraph,
  outputPath,
  parseDerivation,
  parseDerivationJson,
  derivationName,
  storeDirectoryReader,
  type DerivationGraph,
  type DerivationReader,
  type StorePath,
} from '@bagcheck/nix'
import { CliError } from '../error.ts'
import { parseInput } from '../files.ts'
import { findRoot } from './bag.ts'
import { openSource, SOURCE_OPTIONS, type SourceValues } from './source.ts'

/** Options of every command that reads derivations. */
export const DERIVATION_OPTIONS = {
  store: {
    type: 'string',
    value: 'DIR',
    help: 'read derivations there, such as in a mounted image, instead of in /nix/store',
  },
  ...SOURCE_OPTIONS,
} as const

/** What the options above parse to. */
export interface DerivationValues extends SourceValues {
  readonly store: string | undefined
}

/**
 * The graph of a derivation, given as itself, as something it built (a link such as `result` will do), or as what
 * `nix derivation show -r` printed.
 *
 * @throws {CliError} USAGE – JSON without one root; NOT_FOUND – what built a path is not known.
 */
export async function loadDerivations(
  given: string,
  options: DerivationValues,
  signal: AbortSignal,
): Promise<DerivationGraph> {
  const read = storeDirectoryReader(options.store)
  const path = await findRoot(given)
  if (path === undefined) return readDerivationJson(given)
  const root = isDerivationPath(path) ? path : await findDeriver(path, read, options, signal)
  return loadDerivationGraph([root], read, { signal })
}

async function readDerivationJson(file: string): Promise<DerivationGraph> {
  const derivations = await parseInput(file, DERIVATION_JSON_MAX_BYTES, parseDerivationJson)
  const used = new Set([...derivations.values()].flatMap((one) => [...one.inputDerivations.keys()]))
  const roots = [...derivations.keys()].filter((path) => !used.has(path))
  if (roots.length !== 1)
    throw new CliError(
      'USAGE',
      `${file} has ${roots.length} derivations that no other needs, not one`,
    )
  return derivationGraph(roots, derivations)
}

/**
 * The derivation that built `path`. Nix records it as a hint, which is at times wrong: it counts only if `path` is
 * an output of it.
 *
 * @throws {CliError} NOT_FOUND
 */
export async function findDeriver(
  path: StorePath,
  read: DerivationReader,
  options: DerivationValues,
  signal: AbortSignal,
): Promise<StorePath> {
  const source = await openSource(options, signal)
  let info
  try {
    info = await source.queryPathInfo(path)
  } finally {
    await source.close()
  }
  if (info === undefined) throw new CliError('NOT_FOUND', `${path} is not valid in this store`)
  const { deriver } = info
  if (deriver === undefined)
    throw new CliError('NOT_FOUND', `the store does not know what built ${path}; name the .drv`)
  const derivation = parseDerivation(await read(deriver), derivationName(deriver))
  if (![...derivation.outputs.values()].some((output) => outputPath(output) === path))
    throw new CliError(
      'NOT_FOUND',
      `the store says that ${deriver} built ${path}, but that is no output of it; name the .drv`,
    )
  return deriver
}
