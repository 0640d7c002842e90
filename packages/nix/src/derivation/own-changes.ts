// What differs within a pair of derivations, once everything that differs only because other pairs do is taken
// away: each mention of a pair's path (output, derivation or placeholder), wherever in the text, is replaced by a
// mark of the pair, the same on both sides. Only paths of pairs are: a path that nobody accounts for
// stays as it is, and shows as a change. The order of inputs goes by hash and carries nothing.
import { hash } from 'node:crypto'
import { formatContentAddress } from '../content-address.ts'
import { derivationName, downstreamPlaceholder, ownOutputPlaceholder } from '../output-path.ts'
import { byteOrder, storePathHash, storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { decodeByteString, outputPath, STRUCTURED_ATTRIBUTES } from './derivation.ts'
import type { Derivation, DerivationOutput } from './derivation.ts'
import type { DerivationGraph } from './graph.ts'
import { at } from './pair.ts'
import type { DerivationPair } from './pair.ts'
import { isRawJson, parseKeepingNumbers } from './structured.ts'

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

/** By hash part or placeholder; `undefined` for what must stay as it is. */
type Marks = ReadonlyMap<string, Mark | undefined>

/** What stands for the paths of a derivation that is one of a pair. */
interface PathMarks {
  readonly derivation: Mark
  readonly outputs: ReadonlyMap<string, Mark>
}

/** One of the two graphs. */
interface Side {
  readonly graph: DerivationGraph
  readonly byDerivation: ReadonlyMap<StorePath, PathMarks>
  readonly all: Marks
}

const HASHES = /[0-9abcdfghijklmnpqrsvwxyz]{32,52}/g // bounded: a pattern's stack is as deep as its match

/** Compares the pairs of two graphs, in the order of `pairs`. */
export function findOwnChanges(
  from: DerivationGraph,
  to: DerivationGraph,
  pairs: readonly DerivationPair[],
): OwnChanges[] {
  // No text can hold the marks: they depend on the roots, which depend on every text.
  const tag = hash('sha256', [...from.roots, '', ...to.roots].join('\n')).slice(0, 32)
  const old = markSide(from, pairs, 'from', tag)
  const young = markSide(to, pairs, 'to', tag)
  return pairs.map((pair) => comparePair(old, young, pair, tag))
}

function markSide(
  graph: DerivationGraph,
  pairs: readonly DerivationPair[],
  which: 'from' | 'to',
  tag: string,
): Side {
  const byDerivation = new Map<StorePath, PathMarks>()
  const all = new Map<string, Mark>()
  for (const [pair, paths] of pairs.entries()) {
    const path = paths[which]
    const outputs = new Map<string, Mark>()
    for (const [name, output] of at(graph, path).outputs) {
      const known = outputPath(output)
      const key = known ? storePathHash(known) : downstreamPlaceholder(path, name).slice(1)
      const suffix = known ? `-${storePathName(known)}` : ''
      outputs.set(key, { pair, mark: `<${tag}:${pair}^${name}>`, suffix })
    }
    const derivation = { pair, mark: `<${tag}:${pair}>`, suffix: `-${storePathName(path)}` }
    byDerivation.set(path, { derivation, outputs })
    all.set(storePathHash(path), derivation)
    for (const [key, mark] of outputs) all.set(key, mark)
  }
  return { graph, byDerivation, all }
}

/** Derivations that fetch the same content share its path: what a derivation uses itself comes first. */
function marksFor(side: Side, path: StorePath): Marks {
  const marks = new Map<string, Mark | undefined>()
  for (const used of [...at(side.graph, path).inputDerivations.keys(), path]) {
    const own = side.byDerivation.get(used)?.outputs
    if (own !== undefined) for (const [key, mark] of own) marks.set(key, mark)
    else
      for (const output of at(side.graph, used).outputs.values()) {
        const known = outputPath(output)
        if (known !== undefined) marks.set(storePathHash(known), undefined)
      }
  }
  return marks
}

function comparePair(
  a: Side,
  b: Side,
  { from: fromPath, to: toPath }: DerivationPair,
  tag: string,
): OwnChanges {
  const mentions = new Set<number>()
  const old = at(a.graph, fromPath)
  const young = at(b.graph, toPath)
  const sources = compareSources([a, old], [b, young], mentions, tag)
  // Not by `push` of a list: there may be more than a call takes arguments.
  const changes: DerivationChange[] = [
    ...compareOutputs(old, young),
    ...compareInputs([a, old], [b, young], mentions),
    ...sources.changes,
  ]
  const layersA = [sources.from, marksFor(a, fromPath), a.all]
  const layersB = [sources.to, marksFor(b, toPath), b.all]
  // The same text says the same, whatever it mentions.
  const isSame = (from: string, to: string): boolean =>
    from === to || mask(from, layersA, mentions) === mask(to, layersB, mentions)
  for (const field of ['name', 'platform', 'builder'] as const)
    if (!isSame(old[field], young[field]))
      changes.push({
        field,
        from: decodeByteString(old[field]),
        to: decodeByteString(young[field]),
      })
  const isSameArgs =
    old.args.length === young.args.length &&
    old.args.every((arg, index) => isSame(arg, young.args[index] ?? ''))
  if (!isSameArgs)
    changes.push({
      field: 'args',
      from: old.args.map(decodeByteString),
      to: young.args.map(decodeByteString),
    })
  for (const key of union(old.env.keys(), young.env.keys())) {
    const from = old.env.get(key)
    const to = young.env.get(key)
    if (from !== undefined && to !== undefined && isSame(from, to)) continue
    if (followsFromOutputs(old, young, key)) continue
    if (key === 'name' && from === old.name && to === young.name) continue // is reported as such
    if (key === STRUCTURED_ATTRIBUTES && from !== undefined && to !== undefined) {
      for (const change of compareAttributes(from, to, isSame)) changes.push(change)
      continue
    }
    changes.push({ field: 'env', key: decodeByteString(key), from: shown(from), to: shown(to) })
  }
  mentions.delete(a.byDerivation.get(fromPath)?.derivation.pair ?? -1)
  return { changes, mentions }
}

/** Whether a variable differs only because it holds the path of the output of that name, or what stands for it. */
function followsFromOutputs(old: Derivation, young: Derivation, key: string): boolean {
  const isOutput = ({ outputs, env }: Derivation): boolean => {
    const output = outputs.get(key)
    const value = env.get(key)
    if (output === undefined) return value === undefined
    const path = outputPath(output) ?? ownOutputPlaceholder(key)
    return value === path || (output.kind === 'deferred' && value === '')
  }
  // What stands for a path that is not known is the same before and after.
  const isKnown = ({ outputs }: Derivation): boolean => {
    const output = outputs.get(key)
    return output === undefined || outputPath(output) !== undefined
  }
  return isOutput(old) && isOutput(young) && (isKnown(old) || isKnown(young))
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

type Member = readonly [side: Side, derivation: Derivation]

/** What stands for `path`, which may be of a pair. */
function markOf(side: Side, path: StorePath, mentions: Set<number>): string {
  const mark = side.byDerivation.get(path)?.derivation ?? side.all.get(storePathHash(path))
  if (mark !== undefined) mentions.add(mark.pair)
  return mark?.mark ?? path
}

function compareInputs(
  [a, oldOne]: Member,
  [b, youngOne]: Member,
  mentions: Set<number>,
): DerivationChange[] {
  const describe = (side: Side, { inputDerivations }: Derivation): Map<string, UsedInput> =>
    new Map(
      Array.from(inputDerivations, ([path, outputs]) => [
        markOf(side, path, mentions),
        { path, outputs },
      ]),
    )
  const old = describe(a, oldOne)
  const young = describe(b, youngOne)
  return union(old.keys(), young.keys()).flatMap((mark) => {
    const from = old.get(mark) ?? null
    const to = young.get(mark) ?? null
    if (from?.outputs.join() === to?.outputs.join()) return []
    const key = derivationName((to ?? from)?.path as StorePath) // one of them is there
    return [{ field: 'input' as const, key, from, to }]
  })
}

/** Sources of one name are taken for one that changed; their paths are then the same in the rest. */
function compareSources(
  [a, oldOne]: Member,
  [b, youngOne]: Member,
  mentions: Set<number>,
  tag: string,
): { readonly changes: DerivationChange[]; readonly from: Marks; readonly to: Marks } {
  const describe = (side: Side, { inputSources }: Derivation): Map<string, StorePath> =>
    new Map(inputSources.map((path) => [markOf(side, path, mentions), path]))
  const all = { a: describe(a, oldOne), b: describe(b, youngOne) }
  const without = (these: ReadonlyMap<string, StorePath>, others: ReadonlyMap<string, StorePath>) =>
    Map.groupBy(
      [...these].flatMap(([mark, path]) => (others.has(mark) ? [] : [path])),
      storePathName,
    )
  const old = without(all.a, all.b)
  const young = without(all.b, all.a)
  const changes: DerivationChange[] = []
  const from = new Map<string, Mark>()
  const to = new Map<string, Mark>()
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
  isSame: (from: string, to: string) => boolean,
): DerivationChange[] {
  const old = parseAttributes(from)
  const young = parseAttributes(to)
  const changes =
    old === undefined || young === undefined
      ? []
      : union(old.keys(), young.keys()).flatMap((key) => {
          const left = old.get(key)
          const right = young.get(key)
          if (left !== undefined && right !== undefined && isSame(left, right)) return []
          return [{ field: 'attribute' as const, key, from: left ?? null, to: right ?? null }]
        })
  // The same attributes in another spelling, or no JSON.
  if (changes.length > 0) return changes
  return [{ field: 'env', key: STRUCTURED_ATTRIBUTES, from: shown(from), to: shown(to) }]
}

function parseAttributes(bytes: string): Map<string, string> | undefined {
  try {
    // Numbers as they are spelled: two large ones may be one to JavaScript.
    const value = parseKeepingNumbers(decodeByteString(bytes))
    if (value === null || typeof value !== 'object' || isRawJson(value)) return undefined
    return new Map(Object.entries(value).map(([key, one]) => [key, JSON.stringify(one)]))
  } catch {
    return undefined // the caller compares the text
  }
}

/** `text` with what the first layer that knows it has for each hash. */
function mask(text: string, layers: readonly Marks[], mentions: Set<number>): string {
  let masked = ''
  let done = 0
  for (const { 0: run, index } of text.matchAll(HASHES)) {
    const mark = layers.find((layer) => layer.has(run))?.get(run)
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
