import {
  FILE_LIST_MAX_BYTES,
  openLedger,
  openNixDatabase,
  parseFileList,
  verifyClosure,
  type ClosureManifest,
  type PathInfo,
} from '@bagcheck/nix'
import { loadAttributeReader } from '../closure/attributes.ts'
import { readManifest, resolveRoot } from '../closure/bag.ts'
import {
  readClosureFrom,
  SOURCE_OPTIONS,
  wantsSignatures,
  type SourceValues,
} from '../closure/source.ts'
import { describeProgress, describeRemarks, describeVerification } from '../closure/verify-text.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { parseInput } from '../files.ts'

export const closureVerify = command({
  summary: 'Compare the content of the store with a manifest; name the files that differ.',
  positionals: '[ROOT]...',
  description: [
    'With ROOT, a store path or a link to one, the manifest is what --source says, and with --all, for every path of the store, what the Nix ' +
      'database says. Of the local Nix that is a hint and no proof: whoever can alter the store as root can alter ' +
      'that too. With --manifest (and --files, to name single files) it is what CI attested.',
    'Every file is read, unless --ledger says that it has not moved since it was (incremental), or ' +
      '--metadata that names, kinds, sizes, modes and owners are enough. Modes, owners and extended ' +
      'attributes must be as Nix leaves them, and hard links to elsewhere are told.',
  ],
  options: {
    all: { type: 'boolean', help: 'every valid path of the Nix database' },
    manifest: { type: 'string', value: 'FILE', help: 'manifest to compare with, instead of ROOT' },
    files: { type: 'string', value: 'FILE', help: 'file list that belongs to the manifest' },
    ledger: {
      type: 'string',
      value: 'FILE',
      help: 'remember what was read, and read only what moved the next time',
    },
    full: { type: 'boolean', help: 'read everything, whatever the ledger says' },
    metadata: { type: 'boolean', help: 'read no content' },
    'skip-attributes': { type: 'boolean', help: 'do not look for extended attributes' },
    owner: {
      type: 'string',
      value: 'UID',
      default: '0',
      help: 'who owns the store, where Nix has one user',
    },
    ...SOURCE_OPTIONS,
  },
  examples: [
    'bagcheck closure verify /nix/store/…-orders-1.0',
    'bagcheck closure verify --all --ledger /var/lib/store.ledger',
    'bagcheck closure verify --manifest orders-1.0.manifest --files orders-1.0.files',
  ],
  run: async ({ signal, now, result, progress, warn, json }, values, roots) => {
    const ways = [roots.length > 0, values.all, values.manifest !== undefined]
    if (ways.filter(Boolean).length !== 1)
      throw new CliError('USAGE', 'give ROOT, --all or --manifest FILE')
    if (values.full && values.metadata)
      throw new CliError('USAGE', '--full reads everything and --metadata nothing; give one')
    const owner = parseUid(values.owner)
    const closures: ClosureManifest[] = []
    if (values.manifest !== undefined) closures.push(await readManifest(values.manifest, values))
    for (const root of roots)
      closures.push(await readClosureFrom(await resolveRoot(root), values, signal))
    const entries = values.all
      ? await readAllPaths(values)
      : unite(closures.map((closure) => closure.entries))
    const files =
      values.files && (await parseInput(values.files, FILE_LIST_MAX_BYTES, parseFileList))
    const readAttributes = values['skip-attributes'] ? undefined : await loadAttributeReader()
    const ledger = values.ledger === undefined ? undefined : openLedger(values.ledger)
    try {
      progress(`reading ${entries.length} paths`)
      const verification = await verifyClosure(
        { entries },
        {
          now: () => now().getTime(),
          signal,
          owner,
          full: values.full,
          metadataOnly: values.metadata,
          ...(files && { files }),
          ...(ledger && { ledger }),
          ...(readAttributes && { readAttributes }),
          onProgress: (seen) => progress(describeProgress(seen)),
        },
      )
      const what = values.all ? 'the store' : closures.map(({ root }) => root).join(', ')
      const facts = {
        closures: closures.map(({ root, digest }) => ({ root, closureDigest: digest })),
        paths: entries.length,
        ...verification,
      }
      result(facts, describeVerification(what, entries.length, verification))
      if (!json) for (const line of describeRemarks(verification)) warn(line)
      return verification.ok ? EXIT.ok : EXIT.refused
    } finally {
      ledger?.close()
    }
  },
})

function parseUid(text: string): number {
  if (!/^(0|[1-9][0-9]{0,9})$/.test(text))
    throw new CliError('USAGE', `--owner takes a user id, not "${text}"`)
  return Number(text)
}

/** Only the database lists a store; an option that would change who says it is refused, and never left aside. */
async function readAllPaths(options: SourceValues): Promise<readonly PathInfo[]> {
  if (wantsSignatures(options))
    throw new CliError('USAGE', '--all asks for no signatures; --trusted-key is for ROOT')
  if (options.source !== 'daemon' && options.source !== 'database')
    throw new CliError('USAGE', `--all reads the Nix database, not --source ${options.source}`)
  const database = openNixDatabase(options.database)
  try {
    return database.readAll()
  } finally {
    await database.close()
  }
}

/** Each path once: closures share many. */
function unite(closures: readonly (readonly PathInfo[])[]): readonly PathInfo[] {
  return [...new Map(closures.flat().map((entry) => [entry.path, entry])).values()]
}
