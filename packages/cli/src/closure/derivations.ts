// The derivations behind what a command was given.
import {
  isDerivationPath,
  loadDerivationGraph,
  outputPath,
  parseDerivation,
  derivationName,
  storeDirectoryReader,
  type DerivationGraph,
  type DerivationReader,
  type StorePath,
} from '@bagcheck/nix'
import { CliError } from '../error.ts'
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
 * The graph of a derivation, given as itself or as something it built; a link such as `result` will do.
 *
 * @throws {CliError} USAGE – not in the store; NOT_FOUND – what built it is not known.
 */
export async function loadDerivations(
  given: string,
  options: DerivationValues,
  signal: AbortSignal,
): Promise<DerivationGraph> {
  const read = storeDirectoryReader(options.store)
  const path = await findRoot(given)
  if (path === undefined)
    throw new CliError('USAGE', `${JSON.stringify(given)} is no store path, and no link to one`)
  const root = isDerivationPath(path) ? path : await findDeriver(path, read, options, signal)
  return loadDerivationGraph([root], read, { signal })
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
