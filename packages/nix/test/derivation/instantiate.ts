// Derivations for tests that need many, or wrong ones: what `derivation { … }` does, with input-addressed or
// fixed outputs. That it does what Nix does is shown by the tests with real Nix of what it is made from.
import { hash } from 'node:crypto'
import {
  byteOrder,
  computeOutputPaths,
  contentAddressedPath,
  derivationGraph,
  derivationPath,
  hashDerivationModulo,
  outputPath,
  parseHash,
} from '@bagcheck/nix'
import type {
  ContentAddress,
  Derivation,
  DerivationGraph,
  DerivationOutput,
  HashModulo,
  StorePath,
} from '@bagcheck/nix'

/** What a test says about a derivation. */
export interface Plan {
  readonly name: string
  readonly outputs?: readonly string[]
  readonly fixed?: ContentAddress
  readonly inputs?: readonly Instantiated[]
  readonly sources?: readonly StorePath[]
  readonly platform?: string
  readonly builder?: string
  readonly args?: readonly string[]
  /** Inputs that are in `inputs` may be named by `pathOf`. */
  readonly env?: Readonly<Record<string, string>>
}

/** A derivation and where it lies. */
export interface Instantiated {
  readonly path: StorePath
  readonly derivation: Derivation
}

/** Derivations that know each other. */
export class Instantiator {
  readonly derivations = new Map<StorePath, Derivation>()
  readonly #hashes = new Map<StorePath, HashModulo>()

  add(plan: Plan): Instantiated {
    const { name, outputs = ['out'], fixed, inputs = [], sources = [] } = plan
    const inputHash = (path: StorePath): HashModulo => this.#hashes.get(path)
    const unknown: Derivation = {
      name,
      outputs: new Map(outputs.toSorted().map((one) => [one, { kind: 'deferred' }])),
      inputDerivations: sorted(
        inputs.map(({ path, derivation }) => [path, [...derivation.outputs.keys()]] as const),
      ),
      inputSources: [...new Set(sources)].toSorted(byteOrder),
      platform: plan.platform ?? 'x86_64-linux',
      builder: plan.builder ?? '/bin/sh',
      args: plan.args ?? ['-c', 'true'],
      env: sorted(Object.entries({ name, ...blank(outputs), ...plan.env })),
    }
    const known = new Map<string, DerivationOutput>()
    if (fixed !== undefined) {
      known.set('out', { kind: 'fixed', path: contentAddressedPath(name, fixed), address: fixed })
    } else {
      for (const [one, path] of computeOutputPaths(unknown, inputHash))
        known.set(one, { kind: 'input-addressed', path: path as StorePath })
    }
    const paths = Array.from(known, ([one, output]) => [one, outputPath(output) ?? ''] as const)
    const derivation = {
      ...unknown,
      outputs: known,
      env: sorted([...unknown.env, ...paths]),
    }
    const path = derivationPath(derivation)
    this.derivations.set(path, derivation)
    this.#hashes.set(path, hashDerivationModulo(derivation, inputHash))
    return { path, derivation }
  }

  graph(...roots: readonly Instantiated[]): DerivationGraph {
    return derivationGraph(
      roots.map(({ path }) => path),
      this.derivations,
    )
  }
}

/** The path of an output that is known. */
export function pathOf({ derivation }: Instantiated, output = 'out'): StorePath {
  const found = derivation.outputs.get(output)
  return (found && outputPath(found)) as StorePath
}

/** The content address of a flat file with that text. */
export function flat(text: string): ContentAddress {
  return { method: 'flat', hash: parseHash(`sha256:${hash('sha256', text, 'hex')}`) }
}

function blank(outputs: readonly string[]): Record<string, string> {
  return Object.fromEntries(outputs.map((one) => [one, '']))
}

function sorted<K extends string, V>(entries: Iterable<readonly [K, V]>): Map<K, V> {
  return new Map([...new Map(entries)].toSorted(([a], [b]) => byteOrder(a, b)))
}
