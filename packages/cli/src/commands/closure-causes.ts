import { findRootCauses } from '@bagcheck/nix'
import { describeRootCauses } from '../closure/causes.ts'
import { DERIVATION_OPTIONS, loadDerivations } from '../closure/derivations.ts'
import { command } from '../command.ts'

export const closureCauses = command({
  summary: 'Say what really changed between two builds, and what was only rebuilt because of it.',
  positionals: 'A B',
  description: [
    'A and B are derivations, store paths that were built here, or files that "nix derivation show -r" ' +
      'printed. Their whole derivation graphs are compared; nothing is built. Of everything that differs, only what changed by itself is shown, with the ' +
      'fields that changed; --json also names all that was rebuilt, and because of which.',
    'Values are shown as they are, with whatever secrets derivations hold.',
  ],
  options: DERIVATION_OPTIONS,
  examples: [
    'bagcheck closure causes result-old result',
    'bagcheck closure causes --json /nix/store/…-system.drv /nix/store/…-system.drv | jq .causes',
  ],
  run: async ({ signal, result, progress }, values, [a = '', b = '']) => {
    progress('reading derivations')
    const from = await loadDerivations(a, values, signal)
    const to = await loadDerivations(b, values, signal)
    const found = findRootCauses(from, to)
    result(found, describeRootCauses(found))
  },
})
