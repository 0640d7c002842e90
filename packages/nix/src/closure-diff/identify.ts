// Which packages store paths are outputs of, as their derivations say.
//
// The recorded deriver is a hint: it may be gone, and it may be wrong. A derivation counts only if it is the
// text that its own path stands for and if it lists the store path among its outputs.
import { parseDerivation } from '../derivation/aterm.ts'
import { readAttributes } from '../derivation/attributes.ts'
import { outputPath } from '../derivation/derivation.ts'
import type { Derivation } from '../derivation/derivation.ts'
import { derivationPath } from '../derivation/graph.ts'
import type { DerivationReader } from '../derivation/graph.ts'
import { NixError } from '../error.ts'
import type { PathInfo } from '../manifest.ts'
import { derivationName } from '../output-path.ts'
import type { StorePath } from '../store-path.ts'
import { parseDrvName } from '../version.ts'
import type { Identify } from './diff.ts'
import type { PackageName } from './package-name.ts'

const IN_FLIGHT = 32

/**
 * Reads the derivations that `infos` name as derivers, and knows packages by them. Derivations that cannot
 * be read, or do not list the path, are passed over: those packages are known by name.
 */
export async function identifyByDerivation(
  infos: readonly PathInfo[],
  read: DerivationReader,
  signal?: AbortSignal,
): Promise<Identify> {
  const wanted = Map.groupBy(
    infos.filter(({ deriver }) => deriver !== undefined),
    ({ deriver }) => deriver as StorePath, // filtered
  )
  const known = new Map<StorePath, PackageName>()
  const queue = [...wanted]
  for (let start = 0; start < queue.length; start += IN_FLIGHT) {
    signal?.throwIfAborted()
    await Promise.all(
      queue.slice(start, start + IN_FLIGHT).map(async ([deriver, outputs]) => {
        const derivation = await readDerivation(deriver, read)
        if (derivation === undefined) return
        for (const { path } of outputs) {
          const name = packageOfOutput(derivation, path)
          if (name !== undefined) known.set(path, name)
        }
      }),
    )
  }
  return (path) => known.get(path)
}

/**
 * The package that `path` is an output of, from the attributes of its derivation; undefined when the
 * derivation has no such output.
 *
 * `version` is what the derivation says. `pname` is its name without that version, rather than its
 * attribute `pname`, which is the same for the `requests` of two Pythons.
 */
export function packageOfOutput(derivation: Derivation, path: StorePath): PackageName | undefined {
  const output = [...derivation.outputs].find(([, one]) => outputPath(one) === path)?.[0]
  if (output === undefined) return undefined
  const { name } = derivation
  const attributes = readAttributes(derivation)
  const version = attributes.string('version') || undefined // empty is as good as none
  if (version === undefined) {
    const parsed = parseDrvName(name)
    return parsed.name === ''
      ? { pname: name, version: '', output }
      : { pname: parsed.name, version: parsed.version, output }
  }
  const suffix = `-${version}`
  const bare = name.endsWith(suffix) ? name.slice(0, -suffix.length) : attributes.string('pname')
  return { pname: bare || name, version, output }
}

async function readDerivation(
  path: StorePath,
  read: DerivationReader,
): Promise<Derivation | undefined> {
  try {
    const derivation = parseDerivation(await read(path), derivationName(path))
    return derivationPath(derivation) === path ? derivation : undefined
  } catch (error) {
    if (error instanceof NixError) return undefined
    throw error
  }
}
