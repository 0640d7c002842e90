// What differs within a pair of derivations, once everything that differs only because other pairs do is taken
// away: each mention of a pair's path (output, derivation or placeholder), wherever in the text, is replaced by a
// mark of the pair, the same on both sides. Only paths of pairs are: a path that nobody accounts for
// stays as it is, and shows as a change. The order of inputs goes by hash and carries nothing.
import { hash } from 'node:crypto'
import { formatContentAddress } from '../content-address.ts'
import { derivationName, downstreamPlaceholder } from '../output-path.ts'
import { byteOrder, storePathHash, storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { decodeByteString, outputPath, STRUCTURED_ATTRIBUTES } from './derivation.ts'
import type { Derivation, DerivationOutput } from './derivation.ts'
import type { DerivationGraph } from './graph.ts'
import { at } from './pair.ts'
import type { DerivationPair } from './pair.ts'

/** An input derivation with the outputs that are used. */
export interface UsedInput {
  readonly path: StorePath
  readonly outputs: readonly string[]
}

/**
 * One difference between two derivations. `null` is absence. Values are those of the derivations, as text.
 * `attribute` is a key of structured attributes, with its value as JSON.
 */
export type DerivationChange =
  | { readonly field: 'name' | 'platform' | 'builder'; readonly from: string; readonly to: string }
  | { readonly field: 'args'; readonly from: readonly string[]; readonly to: readonly string[] }
  | {
      readonly field: 'env' | 'attribute' | 'output'
      readonly key: string
      readonly from: string | null
      readonly to: string | null
    }
  | {
      readonly field: 'source'
      readonly key: string
      readonly from: StorePath | null
      readonly to: StorePath | null
    }
  | {
      readonly field: 'input'
      readonly key: string
      readonly from: UsedInput | null
      readonly to: UsedInput | null
    }

/** The differences within one pair, and the pairs that it mentions. */
export interface OwnChanges {
  readonly changes: readonly DerivationChange[]
  /** Indices of pairs; those of inputs and others. */
  readonly mentions: ReadonlySet<number>
}

interface Mark {
  readonly pair: number
  readonly mark: string
  /** What follows the hash and belongs to the path; empty for placeholders. */
  readonly suffix: string
}

/** Marks by hash part or placeholder, for one side. */
type Marks = Map<string, Mark>

// Bounded: a pattern keeps a stack whose depth follows the length of what it matches.
const HASHES = /[0-9abcdfghijklmnpqrsvwxyz]{32,52}/g

/** Compares the pairs of two graphs, in the order of `pairs`. */
export function findOwnChanges(
  from: DerivationGraph,
  to: DerivationGraph,
  pairs: readonly DerivationPair[],
): OwnChanges[] {
  // No text can hold the marks: they depend on the roots, which depend on every text.
  const tag = hash('sha256', [...from.roots, '', ...to.roots].join('\n')).slice(0, 32)
  const old = markPaths(from, pairs, 'from', tag)
  const young = markPaths(to, pairs, 'to', tag)
  return pairs.map((pair) =>
    comparePair(
      { derivation: at(from, pair.from), marks: old },
      { derivation: at(to, pair.to), marks: young },
      tag,
    ),
  )
}

function markPaths(
  graph: DerivationGraph,
  pairs: readonly DerivationPair[],
  side: 'from' | 'to',
  tag: string,
): Marks {
  const marks: Marks = new Map()
  for (const [pair, paths] of pairs.entries()) {
    const path = paths[side]
    const derivation = at(graph, path)
    const suffixOf = (one: StorePath): string => `-${storePathName(one)}`
    marks.set(storePathHash(path), { pair, mark: `<${tag}:${pair}>`, suffix: suffixOf(path) })
    for (const [name, output] of derivation.outputs) {
      const known = outputPath(output)
      const mark = `<${tag}:${pair}^${name}>`
      if (known !== undefined)
        marks.set(storePathHash(known), { pair, mark, suffix: suffixOf(known) })
      else marks.set(downstreamPlaceholder(path, name).slice(1), { pair, mark, suffix: '' })
    }
  }
  return marks
}

interface Side {
  readonly derivation: Derivation
  readonly marks: Marks
}

function comparePair(a: Side, b: Side, tag: string): OwnChanges {
  const mentions = new Set<number>()
  const changes: DerivationChange[] = []
  const { derivation: old } = a
  const { derivation: young } = b
  const compareText = (field: 'name' | 'platform' | 'builder', from: string, to: string): void => {
    if (maskA(from) !== maskB(to))
      changes.push({ field, from: decodeByteString(from), to: decodeByteString(to) })
  }
  changes.push(...compareOutputs(old, young))
  changes.push(...compareInputs(a, b, mentions))
  const sources = compareSources(a, b, mentions, tag)
  changes.push(...sources.changes)
  const maskA = (text: string): string => mask(text, a.marks, mentions, sources.from)
  const maskB = (text: string): string => mask(text, b.marks, mentions, sources.to)
  compareText('name', old.name, young.name)
  compareText('platform', old.platform, young.platform)
  compareText('builder', old.builder, young.builder)
  if (old.args.map(maskA).join('\0') !== young.args.map(maskB).join('\0'))
    changes.push({
      field: 'args',
      from: old.args.map(decodeByteString),
      to: young.args.map(decodeByteString),
    })
  for (const key of union(old.env.keys(), young.env.keys())) {
    const from = old.env.get(key)
    const to = young.env.get(key)
    if (from !== undefined && to !== undefined && maskA(from) === maskB(to)) continue
    if (old.outputs.has(key) || young.outputs.has(key)) continue // follows from the outputs
    if (key === 'name' && from === old.name && to === young.name) continue // is reported as such
    if (key === STRUCTURED_ATTRIBUTES && from !== undefined && to !== undefined) {
      changes.push(...compareAttributes(from, to, maskA, maskB))
      continue
    }
    changes.push({ field: 'env', key: decodeByteString(key), from: shown(from), to: shown(to) })
  }
  return { changes, mentions }
}

function compareOutputs(old: Derivation, young: Derivation): DerivationChange[] {
  return union(old.outputs.keys(), young.outputs.keys()).flatMap((key) => {
    const from = describeOutput(old.outputs.get(key))
    const to = describeOutput(young.outputs.get(key))
    return from === to ? [] : [{ field: 'output' as const, key, from, to }]
  })
}

/** An output without its path, which follows from the rest. */
function describeOutput(output: DerivationOutput | undefined): string | null {
  if (output === undefined) return null
  // Whether the path is known depends on the inputs alone.
  if (output.kind === 'input-addressed' || output.kind === 'deferred') return 'input-addressed'
  if (output.kind === 'fixed') return formatContentAddress(output.address)
  return `${output.kind} ${output.method} ${output.algorithm}`
}

function compareInputs(a: Side, b: Side, mentions: Set<number>): DerivationChange[] {
  const describe = ({ derivation, marks }: Side): Map<string, UsedInput> =>
    new Map(
      Array.from(derivation.inputDerivations, ([path, outputs]) => {
        const mark = marks.get(storePathHash(path))
        if (mark !== undefined) mentions.add(mark.pair)
        return [mark?.mark ?? path, { path, outputs }]
      }),
    )
  const old = describe(a)
  const young = describe(b)
  return union(old.keys(), young.keys()).flatMap((mark) => {
    const from = old.get(mark) ?? null
    const to = young.get(mark) ?? null
    if (from?.outputs.join() === to?.outputs.join()) return []
    const key = derivationName((to ?? from)?.path as StorePath) // one of them is there
    return [{ field: 'input' as const, key, from, to }]
  })
}

/** Sources of one name are taken for one that changed; their paths are then the same in the rest. */
function compareSources(a: Side, b: Side, mentions: Set<number>, tag: string) {
  const others = ({ derivation, marks }: Side, seen: ReadonlySet<string>): StorePath[] =>
    derivation.inputSources.filter(
      (path) => !seen.has(marks.get(storePathHash(path))?.mark ?? path),
    )
  const marksOf = ({ derivation, marks }: Side): Set<string> =>
    new Set(
      derivation.inputSources.map((path) => {
        const mark = marks.get(storePathHash(path))
        if (mark !== undefined) mentions.add(mark.pair)
        return mark?.mark ?? path
      }),
    )
  const old = Map.groupBy(others(a, marksOf(b)), storePathName)
  const young = Map.groupBy(others(b, marksOf(a)), storePathName)
  const changes: DerivationChange[] = []
  const from: Marks = new Map()
  const to: Marks = new Map()
  for (const key of union(old.keys(), young.keys())) {
    const left = old.get(key) ?? []
    const right = young.get(key) ?? []
    const [one = null] = left
    const [other = null] = right
    if (left.length === 1 && right.length === 1 && one !== null && other !== null) {
      const mark = { pair: -1, mark: `<${tag}:source ${key}>`, suffix: `-${key}` }
      from.set(storePathHash(one), mark)
      to.set(storePathHash(other), mark)
      changes.push({ field: 'source', key, from: one, to: other })
      continue
    }
    for (const path of left) changes.push({ field: 'source', key, from: path, to: null })
    for (const path of right) changes.push({ field: 'source', key, from: null, to: path })
  }
  return { changes, from, to }
}

function compareAttributes(
  from: string,
  to: string,
  maskA: (text: string) => string,
  maskB: (text: string) => string,
): DerivationChange[] {
  const old = parseAttributes(from)
  const young = parseAttributes(to)
  const changes =
    old === undefined || young === undefined
      ? []
      : union(old.keys(), young.keys()).flatMap((key) => {
          const left = old.get(key)
          const right = young.get(key)
          if (left !== undefined && right !== undefined && maskA(left) === maskB(right)) return []
          return [{ field: 'attribute' as const, key, from: left ?? null, to: right ?? null }]
        })
  // The same attributes in another spelling, or no JSON.
  if (changes.length > 0) return changes
  return [{ field: 'env', key: STRUCTURED_ATTRIBUTES, from: shown(from), to: shown(to) }]
}

function parseAttributes(bytes: string): Map<string, string> | undefined {
  try {
    const value: unknown = JSON.parse(decodeByteString(bytes))
    if (value === null || typeof value !== 'object') return undefined
    return new Map(Object.entries(value).map(([key, one]) => [key, JSON.stringify(one)]))
  } catch {
    return undefined // the caller compares the text
  }
}

function mask(text: string, marks: Marks, mentions: Set<number>, sources: Marks): string {
  let masked = ''
  let done = 0
  for (const { 0: run, index } of text.matchAll(HASHES)) {
    const mark = marks.get(run) ?? sources.get(run)
    if (mark === undefined) continue
    if (mark.pair >= 0) mentions.add(mark.pair)
    const end = index + run.length
    masked += text.slice(done, index) + mark.mark
    done = text.startsWith(mark.suffix, end) ? end + mark.suffix.length : end
  }
  return masked + text.slice(done)
}

function shown(bytes: string | undefined): string | null {
  return bytes === undefined ? null : decodeByteString(bytes)
}

function union(a: Iterable<string>, b: Iterable<string>): string[] {
  return [...new Set([...a, ...b])].toSorted(byteOrder)
}
