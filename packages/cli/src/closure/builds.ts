// Two builds as `closure classify` takes them.
import { existsSync } from 'node:fs'
import {
  FLAKE_LOCK_MAX_BYTES,
  loadDerivationGraph,
  outputPath,
  parseFlakeLock,
  storeDirectoryReader,
  writeNar,
  type Build,
  type BuildIntent,
  type DerivationGraph,
  type NarOpener,
  type StorePath,
} from '@bagcheck/nix'
import { CliError } from '../error.ts'
import { parseInput } from '../files.ts'
import { findRoot, readBag } from './bag.ts'
import { findDeriver, loadDerivations, type DerivationValues } from './derivations.ts'

/** Options that say what was asked for: each once for both builds, or twice, for A and for B. */
export const INTENT_OPTIONS = {
  lock: {
    type: 'string',
    value: 'FILE',
    multiple: true,
    help: 'flake.lock of both builds; or of A, and then of B',
  },
  revision: {
    type: 'string',
    value: 'REV',
    multiple: true,
    help: 'commit that was built, or "dirty"; of both builds, or of A, and then of B',
  },
  attribute: {
    type: 'string',
    value: 'NAME',
    multiple: true,
    help: 'attribute of the flake that was built; of both builds, or of A, and then of B',
  },
} as const

interface IntentValues {
  readonly lock: readonly string[]
  readonly revision: readonly string[]
  readonly attribute: readonly string[]
}

/**
 * A build, given as a store path, a link to one, a derivation that was built, or a manifest. What it was built from is
 * left out where that is not known.
 */
export async function loadBuild(
  given: string,
  intent: BuildIntent,
  options: DerivationValues,
  signal: AbortSignal,
): Promise<Build> {
  const root = await findRoot(given)
  if (root?.endsWith('.drv') === true) {
    const derivations = await loadDerivations(given, options, signal)
    const built = builtOutput(root, derivations)
    return { closure: await readBag(built, options, signal), derivations, intent }
  }
  const closure = await readBag(given, options, signal)
  const derivations = await derivationsOf(closure.root, options, signal)
  return { closure, intent, ...(derivations && { derivations }) }
}

/** The intent of A (`side` 0) or B. @throws {CliError} USAGE – an option more than twice. */
export async function readIntent(values: IntentValues, side: 0 | 1): Promise<BuildIntent> {
  const pick = (name: keyof IntentValues): string | undefined => {
    const given = values[name]
    if (given.length > 2) throw new CliError('USAGE', `--${name} is given at most twice`)
    return given[side] ?? given[0]
  }
  const lock = pick('lock')
  const revision = pick('revision')
  const attribute = pick('attribute')
  return {
    ...(lock !== undefined && {
      lock: await parseInput(lock, FLAKE_LOCK_MAX_BYTES, parseFlakeLock),
    }),
    ...(revision !== undefined && { revision: revision === 'dirty' ? null : revision }),
    ...(attribute !== undefined && { attribute }),
  }
}

/** Archives of what lies in the store. */
export const openStoreNar: NarOpener = (path) => (existsSync(path) ? writeNar(path) : undefined)

function builtOutput(path: StorePath, graph: DerivationGraph): StorePath {
  const outputs = graph.derivations.get(path)?.outputs
  const output = outputs?.get('out') ?? outputs?.values().next().value
  const built = output && outputPath(output)
  if (built === undefined)
    throw new CliError('NOT_FOUND', `where ${path} was built is not known; name what it built`)
  return built
}

async function derivationsOf(
  root: StorePath,
  options: DerivationValues,
  signal: AbortSignal,
): Promise<DerivationGraph | undefined> {
  const read = storeDirectoryReader(options.store)
  try {
    const deriver = await findDeriver(root, read, options, signal)
    return await loadDerivationGraph([deriver], read, { signal })
  } catch (error) {
    // Substituted, collected, or of another store: the comparison says what it could not see.
    if (isUnknown(error)) return undefined
    throw error
  }
}

function isUnknown(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'NOT_FOUND' || code === 'DRV_READ'
}
