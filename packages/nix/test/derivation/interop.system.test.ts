// Derivations of newer releases of Nix, from the same expressions: the same files, other JSON. Opt-in:
// BAGCHECK_INTEROP=1 (see packages/testkit/src/nix-releases.ts).
import { join } from 'node:path'
import { nixAvailable, nixReleases, runNix, runNixRelease } from '@bagcheck/testkit'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  derivationGraph,
  derivationName,
  derivationPath,
  formatDerivation,
  formatDerivationJson,
  loadDerivationGraph,
  parseDerivation,
  parseDerivationJson,
  storeDirectoryReader,
  verifyOutputPaths,
} from '@bagcheck/nix'
import type { DerivationGraph, StorePath } from '@bagcheck/nix'

const file = join(import.meta.dirname, 'every-kind.nix')
const expressionFor = (set: string): string =>
  `builtins.mapAttrs (_: d: d.drvPath) (import ${file}).${set}`
const evaluate = ['--eval', '--strict', '--json', '--read-write-mode', '--expr']

const releases = nixAvailable() ? await nixReleases() : []
// The reason is printed where there are none.
test.skipIf(releases.length === 0)('there are newer releases of Nix to compare with', () => {
  expect(releases).not.toEqual([])
})

describe.each(releases)('Nix $version', (release) => {
  const store = `/nix/interop-${release.suite}`
  const features = [
    '--extra-experimental-features',
    'ca-derivations impure-derivations dynamic-derivations git-hashing',
  ]
  let plain: Record<string, StorePath>
  let all: Record<string, StorePath>
  let graph: DerivationGraph

  const instantiate = (set: string): Record<string, StorePath> => {
    const args = [...features, ...evaluate, expressionFor(set)]
    return JSON.parse(runNixRelease(release, store, 'nix-instantiate', args)) as typeof plain
  }

  const [major = 0, minor = 0] = release.version.split('.').map(Number)
  const isAtLeast = (least: number): boolean => major > 2 || minor >= least
  const jsonVersion = isAtLeast(33) ? 4 : isAtLeast(32) ? 3 : 2
  const show = (paths: readonly StorePath[]): string => {
    const pretty = isAtLeast(31) ? ['--pretty'] : [] // the only form before
    const args = ['derivation', 'show', ...features, ...pretty, '-r', ...paths]
    return runNixRelease(release, store, 'nix', args)
  }

  beforeAll(async () => {
    plain = instantiate('plain')
    all = { ...plain, ...instantiate('experimental') }
    graph = await loadDerivationGraph(
      Object.values(all),
      storeDirectoryReader(join(store, 'nix/store')),
    )
  }, 120_000)

  test('makes the derivations that the oldest release makes', () => {
    const oldest = runNix('nix-instantiate', [...evaluate, expressionFor('plain')])
    expect(plain).toEqual(JSON.parse(oldest))
  })

  test('computes the output paths that we compute', () => {
    verifyOutputPaths(graph)
  })

  test('prints JSON that gives the same derivations', () => {
    const printed = show(Object.values(all))
    const parsed = parseDerivationJson(Buffer.from(printed))
    expect(parsed.size).toBe(graph.derivations.size)
    expect(formatDerivationJson(graph.derivations, jsonVersion)).toBe(printed)
    for (const [path, derivation] of graph.derivations)
      expect(parsed.get(path), path).toEqual(derivation)
    expect(derivationGraph(graph.roots, parsed)).toEqual(graph)
  })

  test('makes dynamic derivations that we read and print, and compute no path through', async () => {
    const paths = instantiate('dynamic')
    const read = storeDirectoryReader(join(store, 'nix/store'))
    const parsed = parseDerivationJson(Buffer.from(show(Object.values(paths))))
    const dynamic = new Set<string>()
    for (const [path, derivation] of parsed) {
      const text = await read(path)
      expect(parseDerivation(text, derivationName(path)), path).toEqual(derivation)
      expect(Buffer.from(formatDerivation(derivation))).toEqual(Buffer.from(text))
      expect(derivationPath(derivation)).toBe(path)
      if (derivation.dynamicInputs !== undefined) dynamic.add(derivation.name)
    }
    expect(formatDerivationJson(parsed, jsonVersion)).toBe(show(Object.values(paths)))
    expect(dynamic).toEqual(new Set(['uses', 'uses-both', 'uses-deep', 'uses-fixed']))
    for (const [name, path] of Object.entries(paths)) {
      const loaded = loadDerivationGraph([path], read)
      if (name === 'producer') verifyOutputPaths(await loaded)
      else await expect(loaded).rejects.toMatchObject({ code: 'DRV_DYNAMIC', detail: { path } })
    }
  })
})
