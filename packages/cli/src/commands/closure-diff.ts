import { diffClosures, identifyByDerivation, storeDirectoryReader } from '@bagcheck/nix'
import { readBag } from '../closure/bag.ts'
import { diffLines } from '../closure/diff-text.ts'
import { SOURCE_OPTIONS } from '../closure/source.ts'
import { command } from '../command.ts'
import { EXIT } from '../error.ts'

export const closureDiff = command({
  summary: 'Say what differs between two closures, package by package.',
  positionals: 'A B',
  description: [
    'A and B are store paths, links to store paths, or files with manifests; with two manifests neither Nix ' +
      'nor a store is needed. Beside versions and sizes this shows packages of which only the content ' +
      'changed. A package is known by its derivation where the store still has that, and otherwise by the ' +
      'name of its store path.',
    'The exit code is 1 if one store path has two contents: that is no update, but a build that is not ' +
      'deterministic, or an altered store.',
  ],
  options: {
    all: {
      type: 'boolean',
      help: 'list every package that was only rebuilt, and every store path',
    },
    names: { type: 'boolean', help: 'know packages by name only; read no derivations' },
    ...SOURCE_OPTIONS,
  },
  examples: [
    'bagcheck closure diff /run/booted-system /run/current-system',
    'bagcheck closure diff orders-1.0.manifest orders-1.1.manifest --json',
  ],
  run: async ({ signal, color, result, progress }, values, [a = '', b = '']) => {
    progress('reading closures')
    const before = await readBag(a, values, signal)
    const after = await readBag(b, values, signal)
    const identify = values.names
      ? undefined
      : await identifyByDerivation(
          [...before.entries, ...after.entries],
          storeDirectoryReader(),
          signal,
        )
    const diff = diffClosures(before, after, identify)
    result(diff, diffLines(diff, { color, all: values.all }))
    return diff.pathsAltered > 0 ? EXIT.refused : EXIT.ok
  },
})
