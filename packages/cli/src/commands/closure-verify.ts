import {
  FILE_LIST_MAX_BYTES,
  MANIFEST_MAX_BYTES,
  openLedger,
  parseFileList,
  parseManifest,
  verifyClosure,
} from '@bagcheck/nix'
import { parseRoot, readClosureFrom, SOURCE_OPTIONS } from '../closure/source.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { readInput } from '../files.ts'

export const closureVerify = command({
  summary: 'Compare the content of the store with a manifest; name the files that differ.',
  positionals: '[ROOT]',
  description: [
    'With ROOT the manifest is what the Nix database says, which is a hint and no proof: whoever can ' +
      'alter the store as root can alter that too. With --manifest (and --files, to name single files) it ' +
      'is what CI attested.',
  ],
  options: {
    manifest: { type: 'string', value: 'FILE', help: 'manifest to compare with, instead of ROOT' },
    files: { type: 'string', value: 'FILE', help: 'file list that belongs to the manifest' },
    ledger: {
      type: 'string',
      value: 'FILE',
      help: 'remember what was read, and read only what moved the next time',
    },
    full: { type: 'boolean', help: 'read everything, whatever the ledger says' },
    ...SOURCE_OPTIONS,
  },
  examples: [
    'bagcheck closure verify /nix/store/…-orders-1.0',
    'bagcheck closure verify --manifest orders-1.0.manifest --files orders-1.0.files',
  ],
  run: async ({ signal, now, result, progress }, values, [root]) => {
    if ((root === undefined) === (values.manifest === undefined))
      throw new CliError('USAGE', 'give either ROOT or --manifest FILE')
    const manifest =
      values.manifest === undefined
        ? await readClosureFrom(parseRoot(root ?? ''), values, signal)
        : parseManifest(await readInput(values.manifest, MANIFEST_MAX_BYTES))
    const files = values.files && parseFileList(await readInput(values.files, FILE_LIST_MAX_BYTES))
    const ledger = values.ledger === undefined ? undefined : openLedger(values.ledger)
    try {
      const verification = await verifyClosure(manifest, {
        now: () => now().getTime(),
        signal,
        full: values.full,
        ...(files && { files }),
        ...(ledger && { ledger }),
        onProgress: ({ paths, totalPaths }) => progress(`verified ${paths} of ${totalPaths} paths`),
      })
      const { ok, strength, mismatches, filesChecked, filesHashed } = verification
      const facts = { root: manifest.root, closureDigest: manifest.digest, ...verification }
      result(
        facts,
        ok
          ? `${manifest.root}: ${manifest.entries.length} paths as they should be ` +
              `(${strength}; ${filesChecked} files looked at, ${filesHashed} read)`
          : mismatches.map(
              ({ kind, file, path, expected, seen }) =>
                `${file ?? path}: ${kind}: expected ${expected}, found ${seen}`,
            ),
      )
      return ok ? EXIT.ok : EXIT.refused
    } finally {
      ledger?.close()
    }
  },
})
