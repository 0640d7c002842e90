import { classifyBuilds } from '@bagcheck/nix'
import { INTENT_OPTIONS, loadBuild, openStoreNar, readIntent } from '../closure/builds.ts'
import { describeComparison } from '../closure/comparison.ts'
import { DERIVATION_OPTIONS } from '../closure/derivations.ts'
import { command } from '../command.ts'
import { EXIT } from '../error.ts'

export const closureClassify = command({
  summary: 'Say why two builds are not one: impure evaluation, altered content, or a real change.',
  positionals: 'A B',
  description: [
    'A and B are store paths, links to them, derivations that were built, or files with manifests. What was ' +
      'asked for is compared (--lock, --revision, --attribute), then the derivations, then the content of every ' +
      'path, with the hashes of dependencies taken for each other.',
    'Where neither Nix nor its database is, --source with one of the manifests leaves derivations out.',
    'The exit code is 1 if one store path has two contents, or if the same intent gave other derivations.',
  ],
  options: { ...INTENT_OPTIONS, ...DERIVATION_OPTIONS },
  examples: [
    'bagcheck closure classify --lock flake.lock --revision $(git rev-parse HEAD) result-ci result',
    'bagcheck closure classify --lock old.lock --lock new.lock orders-1.0.manifest ./result',
  ],
  run: async ({ signal, result, progress }, values, [a = '', b = '']) => {
    progress('reading closures and derivations')
    const from = await loadBuild(a, await readIntent(values, 0), values, signal)
    const to = await loadBuild(b, await readIntent(values, 1), values, signal)
    const found = await classifyBuilds(from, to, { openNar: openStoreNar, signal })
    result(found, describeComparison(found))
    const grave = found.verdict === 'altered' || found.verdict === 'impure-evaluation'
    return grave ? EXIT.refused : EXIT.ok
  },
})
