// Collects what can be learnt here about how a closure was built, and how it was learnt.
//
// Nothing is guessed. The deriver in the Nix database is a hint that is wrong in practice, so it
// counts only if that derivation, read from the store and checked against its own path, names the
// root as an output. Whether evaluation was impure leaves no trace at all: only the caller knows.
import { readFile } from 'node:fs/promises'
import { sha256Hex } from '@bagcheck/nix'
import type { ClosureManifest, NarHash, PathInfo, Sha256, StorePath } from '@bagcheck/nix'
import {
  UNKNOWN,
  type ClosureFacts,
  type Fact,
  type FlakeFacts,
  type Rebuild,
} from './closure-predicate.ts'
import { readDerivationHead } from './derivation-head.ts'
import { parseFlakeLock } from './flake-lock.ts'
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
 * @throws {AttestError} FLAKE_LOCK, JSON_* – a flake.lock that is none
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
    inputs: locked(parseFlakeLock),
  }
}

type Origin = Pick<ClosureFacts, 'system' | 'drvPath' | 'output'>

async function findDerivation({ root, entries }: ClosureManifest): Promise<Origin> {
  const nothing: Origin = { system: UNKNOWN, drvPath: UNKNOWN, output: UNKNOWN }
  const drvPath = entries.find(({ path }) => path === root)?.deriver
  if (drvPath === undefined || !drvPath.endsWith('.drv')) return nothing
  const bytes = await readDerivation(drvPath)
  const head = bytes === undefined ? undefined : readDerivationHead(drvPath, bytes)
  const output = [...(head?.outputs ?? [])].find(([, path]) => path === root)?.[0]
  if (head === undefined || output === undefined) return nothing
  return {
    system: { value: head.system, source: 'derivation' },
    drvPath: { value: drvPath, source: `${DATABASE}, confirmed by the derivation` },
    output: { value: output, source: 'derivation' },
  }
}

async function readDerivation(drvPath: StorePath): Promise<Uint8Array | undefined> {
  try {
    return await readFile(drvPath)
  } catch {
    // Collected as garbage, or never here: a fact that is not known.
    return undefined
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
