// Which derivation of one graph became which of another. Equal paths are equal derivations, all the way down. The
// others are paired from the roots: within two derivations that are a pair, an input of one is paired with an
// input of the other that has the same name or, failing that, the same name without version; among several, the
// one in the same place of the same field, and then the one whose own text is most alike. What no pair leads to is
// paired by name where that is unique. A pair is a claim about history, not about likeness: whatever differs
// within it is reported, so that a wrong pair makes a report longer, never shorter.
import { hash } from 'node:crypto'
import { derivationName } from '../output-path.ts'
import { parseDrvName } from '../version.ts'
import { storePathHash } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { printDerivation } from './aterm.ts'
import { outputPath } from './derivation.ts'
import type { Derivation } from './derivation.ts'
import type { DerivationGraph } from './graph.ts'

/** Two derivations of which one became the other. */
export interface DerivationPair {
  readonly from: StorePath
  readonly to: StorePath
}

/** All derivations that differ between two graphs. */
export interface DerivationPairs {
  /** Derivations that are in both. */
  readonly same: number
  /** Inputs before what uses them afterwards. */
  readonly pairs: readonly DerivationPair[]
  readonly removed: readonly StorePath[]
  readonly added: readonly StorePath[]
}

const STORE_PATHS = /\/nix\/store\/([0-9abcdfghijklmnpqrsvwxyz]{32})-/g

/** Pairs the derivations in which two graphs differ. Roots are paired by their position. */
export function pairDerivations(from: DerivationGraph, to: DerivationGraph): DerivationPairs {
  return new Pairing(from, to).run()
}

class Pairing {
  readonly #from: DerivationGraph
  readonly #to: DerivationGraph
  readonly #toOf = new Map<StorePath, StorePath>()
  readonly #taken = new Set<StorePath>()
  /** Pairs in the order found; the inputs of those before `#next` were looked at. */
  readonly #queue: DerivationPair[] = []
  #next = 0
  readonly #shapes = new Map<Derivation, string>()

  constructor(from: DerivationGraph, to: DerivationGraph) {
    this.#from = from
    this.#to = to
  }

  run(): DerivationPairs {
    const { derivations: old } = this.#from
    const { derivations: young } = this.#to
    for (const [index, root] of this.#from.roots.entries()) {
      const other = this.#to.roots[index]
      if (other !== undefined && this.#isFree(root, other)) this.#add(root, other)
    }
    this.#descend()
    for (const nameOf of [
      derivationName,
      (path: StorePath) => parseDrvName(derivationName(path)).name,
    ]) {
      const candidates = groupBy(
        [...young.keys()].filter((path) => !old.has(path) && !this.#taken.has(path)),
        nameOf,
      )
      const left = [...old.keys()].filter((path) => !young.has(path) && !this.#toOf.has(path))
      for (const [name, group] of groupBy(left, nameOf)) {
        const others = candidates.get(name) ?? []
        const [one] = group
        const [other] = others
        if (one === undefined || other === undefined || group.length + others.length > 2) continue
        // A pair found before may have led here meanwhile.
        if (this.#isFree(one, other)) this.#add(one, other)
        this.#descend()
      }
    }
    const fromOf = new Map(this.#queue.map((pair) => [pair.to, pair]))
    return {
      same: [...old.keys()].filter((path) => young.has(path)).length,
      pairs: [...young.keys()].flatMap((path) => fromOf.get(path) ?? []),
      removed: [...old.keys()].filter((path) => !young.has(path) && !this.#toOf.has(path)),
      added: [...young.keys()].filter((path) => !old.has(path) && !this.#taken.has(path)),
    }
  }

  #isFree(from: StorePath, to: StorePath): boolean {
    return from !== to && !this.#toOf.has(from) && !this.#taken.has(to)
  }

  #add(from: StorePath, to: StorePath): void {
    this.#toOf.set(from, to)
    this.#taken.add(to)
    this.#queue.push({ from, to })
  }

  #descend(): void {
    for (; this.#next < this.#queue.length; this.#next++) {
      const { from, to } = this.#queue[this.#next] as DerivationPair // in range by the loop
      const a = at(this.#from, from)
      const b = at(this.#to, to)
      // What is in both graphs is no change of either, even if only one of the two uses it here.
      const young = [...b.inputDerivations.keys()].filter(
        (path) => !this.#from.derivations.has(path) && !this.#taken.has(path),
      )
      const old = [...a.inputDerivations.keys()].filter(
        (path) => !this.#to.derivations.has(path) && !this.#toOf.has(path),
      )
      this.#match(a, b, old, young, derivationName)
      const isLeft = (path: StorePath): boolean => !this.#toOf.has(path) && !this.#taken.has(path)
      this.#match(
        a,
        b,
        old.filter(isLeft),
        young.filter(isLeft),
        (path) => parseDrvName(derivationName(path)).name,
      )
    }
  }

  #match(
    a: Derivation,
    b: Derivation,
    old: readonly StorePath[],
    young: readonly StorePath[],
    nameOf: (path: StorePath) => string,
  ): void {
    if (old.length === 0 || young.length === 0) return
    const candidates = groupBy(young, nameOf)
    let places: { readonly a: Places; readonly b: Places } | undefined
    for (const [name, group] of groupBy(old, nameOf)) {
      const others = candidates.get(name)
      if (others === undefined) continue
      const [one] = group
      const [other] = others
      if (group.length === 1 && others.length === 1 && one && other) {
        this.#add(one, other)
        continue
      }
      places ??= { a: placesOf(a, this.#from, nameOf), b: placesOf(b, this.#to, nameOf) }
      this.#matchAlike(group, others, places)
    }
  }

  /** Pairs what has one name, the most alike first. */
  #matchAlike(
    old: readonly StorePath[],
    young: readonly StorePath[],
    places: { readonly a: Places; readonly b: Places },
  ): void {
    const oldShape = (path: StorePath): string => this.#shape(at(this.#from, path))
    const youngShape = (path: StorePath): string => this.#shape(at(this.#to, path))
    const oldPlace = (path: StorePath): string => places.a.get(path) ?? ''
    const youngPlace = (path: StorePath): string => places.b.get(path) ?? ''
    const rounds: readonly [KeyOf, KeyOf][] = [
      [(one) => oldPlace(one) + oldShape(one), (one) => youngPlace(one) + youngShape(one)],
      [oldPlace, youngPlace],
      [oldShape, youngShape],
      [() => '', () => ''],
    ]
    for (const [oldKey, youngKey] of rounds) {
      const groups = groupBy(
        young.filter((path) => !this.#taken.has(path)),
        youngKey,
      )
      const candidates = new Map(
        Array.from(groups, ([key, paths]) => [key, paths.values()] as const),
      )
      for (const path of old) {
        const other = this.#toOf.has(path) ? undefined : candidates.get(oldKey(path))?.next().value
        if (other !== undefined) this.#add(path, other)
      }
    }
  }

  /** A digest of the text without store hashes. */
  #shape(derivation: Derivation): string {
    let shape = this.#shapes.get(derivation)
    if (shape === undefined) {
      const masked = { ...derivation, inputDerivations: new Map(), inputSources: [] }
      const text = printDerivation(masked, { maskOutputs: true })
      shape = hash('sha256', text.replaceAll(STORE_PATHS, '/nix/store/-'))
      this.#shapes.set(derivation, shape)
    }
    return shape
  }
}

type KeyOf = (path: StorePath) => string

/** Where a derivation first names each input: field, and which of the inputs of that name in the field. */
type Places = ReadonlyMap<StorePath, string>

function placesOf(
  derivation: Derivation,
  graph: DerivationGraph,
  nameOf: (path: StorePath) => string,
): Places {
  const inputByHash = new Map<string, StorePath>()
  for (const input of derivation.inputDerivations.keys()) {
    inputByHash.set(storePathHash(input), input)
    for (const output of at(graph, input).outputs.values()) {
      const path = outputPath(output)
      if (path !== undefined) inputByHash.set(storePathHash(path), input)
    }
  }
  const places = new Map<StorePath, string>()
  const look = (field: string, value: string): void => {
    const counts = new Map<string, number>()
    for (const [, part = ''] of value.matchAll(STORE_PATHS)) {
      const input = inputByHash.get(part)
      if (input === undefined || places.has(input)) continue
      const name = nameOf(input)
      const count = counts.get(name) ?? 0
      counts.set(name, count + 1)
      places.set(input, `${field} ${count}`)
    }
  }
  look('builder', derivation.builder)
  for (const [index, arg] of derivation.args.entries()) look(`${index}`, arg)
  for (const [key, value] of derivation.env) look(`env ${key}`, value)
  return places
}

/** The derivation of `graph` at `path`, which is in it. */
export function at(graph: DerivationGraph, path: StorePath): Derivation {
  const derivation = graph.derivations.get(path)
  if (derivation === undefined) throw new TypeError(`${path} is not in the graph`)
  return derivation
}

function groupBy<T>(all: readonly T[], keyOf: (one: T) => string): Map<string, T[]> {
  return Map.groupBy(all, keyOf)
}
