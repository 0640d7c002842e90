import { resolveRoot } from '../closure/bag.ts'
import { readClosureFrom, readFileList, SOURCE_OPTIONS } from '../closure/source.ts'
import { command } from '../command.ts'
import { writeOutput } from '../files.ts'

export const closureManifest = command({
  summary: "Print a closure's manifest, or its facts with --json.",
  positionals: 'ROOT',
  description: [
    'One line per store path in byte order: path, NAR hash, NAR size, references. The sha256 of this ' +
      'text is the closure digest, by which policy knows a bag. ROOT is a store path, or a link to one.',
  ],
  options: {
    output: { type: 'string', value: 'FILE', help: 'write the manifest there and print the facts' },
    files: {
      type: 'string',
      value: 'FILE',
      help: 'also write the file list: every regular file with its sha256, hashed from the store, or from the archives of a cache',
    },
    ...SOURCE_OPTIONS,
  },
  examples: [
    'bagcheck closure manifest /nix/store/…-orders-1.0 | sha256sum',
    'bagcheck closure manifest /nix/store/…-orders-1.0 --source https://cache.example --trusted-key cache-1:…',
  ],
  run: async (context, values, [root = '']) => {
    const { signal, json, print, result, progress } = context
    progress('reading the closure')
    const manifest = await readClosureFrom(await resolveRoot(root), values, signal)
    const files =
      values.files === undefined ? undefined : await readFileList(manifest, values, context)
    if (files !== undefined) await writeOutput(values.files ?? '', files.text)
    if (values.output !== undefined) await writeOutput(values.output, manifest.text)
    if (values.output === undefined && !json) {
      print(manifest.text.trimEnd())
      return
    }
    const narBytes = manifest.entries.reduce((sum, entry) => sum + entry.narSize, 0)
    const facts = {
      root: manifest.root,
      closureDigest: manifest.digest,
      paths: manifest.entries.length,
      narBytes,
      ...(files && { filesDigest: files.digest, files: files.files.length }),
    }
    result(facts, [
      `root            ${facts.root}`,
      `closure digest  ${facts.closureDigest}`,
      `paths           ${facts.paths}, ${narBytes} bytes as NAR`,
      ...(files ? [`file list       ${files.files.length} files, digest ${files.digest}`] : []),
    ])
  },
})
