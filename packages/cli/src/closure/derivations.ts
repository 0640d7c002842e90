// The derivations behind what a command was given.
import { realpath } from 'node:fs/promises'
import {
  isDerivationPath,
  loadDerivationGraph,
  outputPath,
  parseDerivation,
  derivationName,
  storeDirectoryReader,
  storePathOf,
  type DerivationGraph,
  type DerivationReader,
  type StorePath,
} from '@bagcheck/nix'
import { CliError } from '../error.ts'
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
  const path = await resolveStorePath(given)
  const root = isDerivationPath(path) ? path : await findDeriver(path, read, options, signal)
  return loadDerivationGraph([root], read, { signal })
}

/** The store path that was given, or that a link leads to or into. @throws {CliError} USAGE */
export async function resolveStorePath(given: string): Promise<StorePath> {
  const direct = storePathOf(given)
  if (direct === given) return direct
  const resolved = await realpath(given).catch(() => given) // what is not there is not in the store
  const path = storePathOf(resolved)
  if (path !== undefined) return path
  throw new CliError('USAGE', `${JSON.stringify(given)} is no store path, and no link to one`)
}

/** Nix records a deriver as a hint, which is at times wrong: it counts only if `path` is its output. */
async function findDeriver(
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
