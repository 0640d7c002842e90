// Collects what can be learnt here about how a closure was built, and how it was learnt.
//
// Nothing is guessed. The deriver in the Nix database is a hint that is wrong in practice, so it
// counts only if that derivation, read from the store and checked against its own path, names the
// root as an output. Whether evaluation was impure leaves no trace at all: only the caller knows.
import {
  decodeByteString,
  derivationName,
  derivationPath,
  isDerivationPath,
  NixError,
  outputPath,
  parseDerivation,
  sha256Hex,
  storeDirectoryReader,
} from '@bagcheck/nix'
import type {
  ClosureManifest,
  Derivation,
  NarHash,
  PathInfo,
  Sha256,
  StorePath,
} from '@bagcheck/nix'
import {
  UNKNOWN,
  type ClosureFacts,
  type Fact,
  type FlakeFacts,
  type Rebuild,
} from './closure-predicate.ts'
import { readFlakeInputs } from './flake-inputs.ts'
import { readNixSettings, type NixProgramOptions } from './nix-settings.ts'
import { publicUrl } from './public-url.ts'

export interface BuildFactsOptions {
  /** How to run Nix. */
  readonly nix?: NixProgramOptions
  /** Content of the flake.lock that the build used. */
  readonly flakeLock?: Uint8Array
  /** The flake that was built, as the caller knows it. */
  readonly flake?: { readonly url?: string; readonly rev?: string; readonly narHash?: NarHash }
  /** Whether evaluation could read the environment (`--impure`, no flake). */
  readonly impure?: boolean
  /** Result of a second build. */
  readonly rebuild?: Rebuild
  /** Closure digests that this closure replaces. */
  readonly successorOf?: readonly Sha256[]
}

const CALLER = 'given by the caller'
const DATABASE = 'nix database'

/**
 * Collects the facts about the closure of a manifest that was read from the store of this machine.
 *
 * @throws {NixError} FLAKE_LOCK_*, JSON_*; {AttestError} FLAKE_LOCK – see {@link readFlakeInputs}
 */
export async function collectBuildFacts(
  manifest: ClosureManifest,
  options: BuildFactsOptions = {},
): Promise<ClosureFacts> {
  const { impure, rebuild, successorOf = [], nix = {} } = options
  const origin = await findDerivation(manifest)
  return {
    ...origin,
    flake: flakeFacts(options),
    successorOf: successorOf.map((sha256) => ({ sha256 })),
    build: {
      ...(await readNixSettings(nix)),
      impure: given(impure),
      ...countOrigins(manifest.entries),
      rebuild: given(rebuild),
    },
  }
}

function given<T>(value: T | undefined): Fact<T> {
  return value === undefined ? UNKNOWN : { value, source: CALLER }
}

function flakeFacts({ flake, flakeLock }: BuildFactsOptions): FlakeFacts {
  const locked = <T>(value: (bytes: Uint8Array) => T): Fact<T> =>
    flakeLock === undefined ? UNKNOWN : { value: value(flakeLock), source: 'flake.lock' }
  return {
    url: given(flake?.url === undefined ? undefined : publicUrl(flake.url)),
    rev: given(flake?.rev),
    narHash: given(flake?.narHash),
    lockDigest: locked(sha256Hex),
    inputs: locked(readFlakeInputs),
  }
}

type Origin = Pick<ClosureFacts, 'system' | 'drvPath' | 'output'>

async function findDerivation({ root, entries }: ClosureManifest): Promise<Origin> {
  const nothing: Origin = { system: UNKNOWN, drvPath: UNKNOWN, output: UNKNOWN }
  const drvPath = entries.find(({ path }) => path === root)?.deriver
  if (drvPath === undefined || !isDerivationPath(drvPath)) return nothing
  const derivation = await readDerivation(drvPath)
  if (derivation === undefined) return nothing
  for (const [output, made] of derivation.outputs)
    if (outputPath(made) === root)
      return {
        system: { value: decodeByteString(derivation.platform), source: 'derivation' },
        drvPath: { value: drvPath, source: `${DATABASE}, confirmed by the derivation` },
        output: { value: output, source: 'derivation' },
      }
  return nothing
}

/**
 * The derivation at a path whose text is the one that the path was made from. Undefined where there is
 * none: collected as garbage, never here, or not believed; a fact that is not known.
 */
async function readDerivation(path: StorePath): Promise<Derivation | undefined> {
  try {
    const derivation = parseDerivation(await storeDirectoryReader()(path), derivationName(path))
    return derivationPath(derivation) === path ? derivation : undefined
  } catch (error) {
    if (error instanceof NixError) return undefined
    throw error
  }
}

// `ultimate` only means "built here"; a signature on another path, that it came from elsewhere.
// A path with neither, such as a source, is in neither count.
function countOrigins(entries: readonly PathInfo[]): {
  builtLocally: Fact<number>
  substituted: Fact<number>
} {
  if (entries.some(({ ultimate }) => ultimate === undefined))
    return { builtLocally: UNKNOWN, substituted: UNKNOWN }
  const count = (test: (entry: PathInfo) => boolean): Fact<number> => ({
    value: entries.filter(test).length,
    source: DATABASE,
  })
  return {
    builtLocally: count(({ ultimate }) => ultimate === true),
    substituted: count(
      ({ ultimate, signatures = [] }) => ultimate !== true && signatures.length > 0,
    ),
  }
}
