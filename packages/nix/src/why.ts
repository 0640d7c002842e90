// Why a closure holds a path: the chains of references that lead to it.
import { NixError, quote } from './error.ts'
import type { ClosureManifest } from './manifest.ts'
import type { StorePath } from './store-path.ts'

/** Store paths, each of which refers to the next. */
export type ReferenceChain = readonly StorePath[]

/** How much {@link referenceChains} looks for. */
export interface ChainLimits {
  /** Where chains start; the root of the closure by default. */
  readonly from?: StorePath
  /** Most chains that are returned; default 100. Their number can be exponential in that of the paths. */
  readonly maxChains?: number
}

// Each step is one edge on the way to a chain that is wanted; 10,000-path systems with 1,000 chains take 10^5.
const MAX_STEPS = 2_000_000

/**
 * A shortest chain of references to `path`; of several, the first in byte order. Undefined when `from`
 * does not reach it.
 *
 * @throws {NixError} PATH_INVALID – `path` or `from` is not in the closure.
 */
export function shortestChain(
  manifest: ClosureManifest,
  path: StorePath,
  from: StorePath = manifest.root,
): ReferenceChain | undefined {
  return referenceChains(manifest, path, { from, maxChains: 1 }).chains[0]
}

/**
 * Chains of references to `path`, shortest first, those of one length in byte order; no path occurs twice
 * in a chain. `complete` is false when there are more.
 *
 * @throws {NixError} PATH_INVALID – `path` or `from` is not in the closure.
 */
export function referenceChains(
  manifest: ClosureManifest,
  path: StorePath,
  { from = manifest.root, maxChains = 100 }: ChainLimits = {},
): { readonly chains: readonly ReferenceChain[]; readonly complete: boolean } {
  const references = new Map(manifest.entries.map((entry) => [entry.path, entry.references]))
  for (const end of [path, from])
    if (!references.has(end))
      throw new NixError('PATH_INVALID', `expected a path of the closure, got ${quote(end)}`, {
        detail: { path: end },
      })
  const distance = distancesTo(manifest, path)
  const least = distance.get(from)
  if (least === undefined) return { chains: [], complete: true }

  // Once for each length that occurs, depth first. Distances are exact, so that in a closure without
  // circles every step is part of a chain that is returned, now or in an earlier round.
  const chains: ReferenceChain[] = []
  let steps = 0
  let length: number | undefined = least
  while (length !== undefined) {
    const limit: number = length
    let longer: number | undefined
    const chain = [from]
    const open = new Set(chain)
    const waiting = [referencesOf(from)]
    while (chain.length > 0) {
      const at = chain.at(-1) as StorePath // not empty
      const next = at === path ? undefined : waiting.at(-1)?.next().value
      if (next === undefined) {
        if (at === path && chain.length - 1 === limit) {
          if (chains.length === maxChains) return { chains, complete: false }
          chains.push([...chain])
        }
        chain.pop()
        waiting.pop()
        open.delete(at)
        continue
      }
      if (++steps > MAX_STEPS) return { chains, complete: false }
      const rest = distance.get(next)
      if (rest === undefined || open.has(next)) continue
      if (chain.length + rest > limit) {
        longer = Math.min(longer ?? Infinity, chain.length + rest)
        continue
      }
      chain.push(next)
      open.add(next)
      waiting.push(referencesOf(next))
    }
    length = longer
  }
  return { chains, complete: true }

  function referencesOf(of: StorePath): Iterator<StorePath, undefined> {
    return (references.get(of) ?? []).values()
  }
}

/** Number of references on the shortest way from every path to `target`. */
function distancesTo(manifest: ClosureManifest, target: StorePath): Map<StorePath, number> {
  const referrers = new Map<StorePath, StorePath[]>()
  for (const { path, references } of manifest.entries)
    for (const reference of references) {
      const list = referrers.get(reference)
      if (list === undefined) referrers.set(reference, [path])
      else list.push(path)
    }
  const distance = new Map([[target, 0]])
  for (const [path, steps] of distance)
    for (const referrer of referrers.get(path) ?? [])
      if (!distance.has(referrer)) distance.set(referrer, steps + 1)
  return distance
}
