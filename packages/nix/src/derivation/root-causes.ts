import { NixError } from '../error.ts'
import { derivationName } from '../output-path.ts'
import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import type { DerivationGraph } from './graph.ts'
import { findOwnChanges } from './own-changes.ts'
import type { DerivationChange, OwnChanges } from './own-changes.ts'
import { pairDerivations } from './pair.ts'

/** 256 MiB: some 46,000 derivations that all changed by themselves, or 500,000 that 4,000 of them led to. */
const MAX_CAUSE_WORDS = 2 ** 26

/** A derivation that changed by itself. */
export interface RootCause {
  /** The name afterwards. */
  readonly name: string
  readonly from: StorePath
  readonly to: StorePath
  /** Never empty. */
  readonly changes: readonly DerivationChange[]
  /** How many other derivations differ because of it, perhaps among other causes. */
  readonly rebuilt: number
}

/** A derivation that differs only because others do. */
export interface PropagatedChange {
  readonly name: string
  readonly from: StorePath
  readonly to: StorePath
  /** Indices into `causes`, rising; never empty. */
  readonly causes: readonly number[]
}

/** A derivation that only one of the graphs has. */
export interface LoneDerivation {
  readonly name: string
  readonly path: StorePath
}

/**
 * Why two derivation graphs differ. Every derivation that differs is in exactly one of `causes`, `propagated`,
 * `added` and `removed`.
 */
export interface RootCauses {
  readonly schema: 'bagcheck.root-causes/v1'
  readonly from: { readonly roots: readonly StorePath[]; readonly derivations: number }
  readonly to: { readonly roots: readonly StorePath[]; readonly derivations: number }
  /** Derivations that are in both. */
  readonly same: number
  /** What changed by itself, with what led to the most rebuilds first. */
  readonly causes: readonly RootCause[]
  /** By name. */
  readonly propagated: readonly PropagatedChange[]
  /** Each is a root, an input of another of these, or an added input of a cause. */
  readonly added: readonly LoneDerivation[]
  readonly removed: readonly LoneDerivation[]
}

/**
 * Compares two derivation graphs, and separates what really changed from what was only rebuilt because of it.
 *
 * Nothing is hidden: a path in a text is taken for the same as another only if the derivations behind them are
 * a pair, whose own difference is reported. Values are those of the derivations, with whatever secrets
 * these hold.
 *
 * @throws {NixError} DRV_LIMIT – too many derivations differ, for too many causes.
 */
export function findRootCauses(from: DerivationGraph, to: DerivationGraph): RootCauses {
  const { same, pairs, added, removed } = pairDerivations(from, to)
  const own = findOwnChanges(from, to, pairs)
  const changed = [...own.keys()].filter((pair) => own[pair]?.changes.length !== 0)
  const causesOf = propagate(own, changed)
  const rebuilt = countRebuilt(causesOf, changed)
  const ranked = changed
    .map((pair, bit) => ({ pair, bit, name: nameOf(pairs[pair]), rebuilt: rebuilt[bit] ?? 0 }))
    .toSorted((a, b) => b.rebuilt - a.rebuilt || byteOrder(a.name, b.name))
  const rankOf = new Map(ranked.map(({ bit }, rank) => [bit, rank]))
  return {
    schema: 'bagcheck.root-causes/v1',
    from: { roots: from.roots, derivations: from.derivations.size },
    to: { roots: to.roots, derivations: to.derivations.size },
    same,
    causes: ranked.flatMap(({ pair, name, rebuilt }) => {
      const paths = pairs[pair]
      return paths ? [{ name, ...paths, changes: own[pair]?.changes ?? [], rebuilt }] : []
    }),
    propagated: pairs
      .flatMap((paths, pair) => {
        if (own[pair]?.changes.length !== 0) return []
        const causes = bitsOf(causesOf[pair]).map((bit) => rankOf.get(bit) ?? -1)
        return [{ name: nameOf(paths), ...paths, causes: causes.toSorted((a, b) => a - b) }]
      })
      .toSorted((a, b) => byteOrder(a.name, b.name)),
    added: added.map(lone),
    removed: removed.map(lone),
  }
}

/**
 * For each pair the causes it differs by, as a set of bits: bit n is the nth of `changed`. Pairs come after those
 * they are built from, so that one pass settles all but paths that are mentioned without being inputs.
 */
function propagate(own: readonly OwnChanges[], changed: readonly number[]): Uint32Array[] {
  const words = Math.ceil(changed.length / 32)
  if (own.length * words > MAX_CAUSE_WORDS)
    throw new NixError(
      'DRV_LIMIT',
      `expected fewer differences, got ${own.length} derivations that differ for ${changed.length} causes`,
    )
  const causes = own.map(() => new Uint32Array(words))
  for (const [bit, pair] of changed.entries()) setBit(causes[pair], bit)
  for (let settled = false; !settled;) {
    settled = true
    for (const [pair, { mentions }] of own.entries()) {
      const mine = causes[pair]
      for (const mentioned of mentions)
        if (mine !== undefined && addAll(mine, causes[mentioned])) settled = false
    }
  }
  return causes
}

function addAll(target: Uint32Array, source: Uint32Array | undefined): boolean {
  let grew = false
  for (let word = 0; source !== undefined && word < target.length; word++) {
    const before = target[word] ?? 0
    const after = (before | (source[word] ?? 0)) >>> 0
    if (after === before) continue
    target[word] = after
    grew = true
  }
  return grew
}

function setBit(bits: Uint32Array | undefined, bit: number): void {
  if (bits !== undefined) bits[bit >> 5] = ((bits[bit >> 5] ?? 0) | (1 << (bit & 31))) >>> 0
}

function bitsOf(bits: Uint32Array | undefined): number[] {
  const set: number[] = []
  for (const [index, word] of (bits ?? []).entries())
    for (let rest = word; rest !== 0; rest &= rest - 1)
      set.push(index * 32 + 31 - Math.clz32(rest & -rest)) // the lowest that is left
  return set
}

function countRebuilt(causesOf: readonly Uint32Array[], changed: readonly number[]): number[] {
  const counts = changed.map(() => -1) // each is among its own causes
  for (const bits of causesOf) for (const bit of bitsOf(bits)) counts[bit] = (counts[bit] ?? 0) + 1
  return counts
}

function nameOf(pair: { readonly to: StorePath } | undefined): string {
  return pair === undefined ? '' : derivationName(pair.to)
}

function lone(path: StorePath): LoneDerivation {
  return { name: derivationName(path), path }
}
