// A closure as the commands that compare closures take it: a store path, a link to one, or a manifest.
import { realpath } from 'node:fs/promises'
import { MANIFEST_MAX_BYTES, parseManifest, parseStorePath } from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'
import { CliError } from '../error.ts'
import { parseInput } from '../files.ts'
import { parseRoot, readClosureFrom, wantsSignatures } from './source.ts'
import type { SourceValues } from './source.ts'

/**
 * The closure that `argument` names. A store path, or a link to one such as `/run/current-system` or
 * `result`, is looked up in the source that the options name; anything else is the file of a manifest.
 *
 * @throws {CliError} USAGE – a manifest, which bears no signatures, where keys are to vouch; FILE_UNREADABLE
 */
export async function readBag(
  argument: string,
  options: SourceValues,
  signal: AbortSignal,
): Promise<ClosureManifest> {
  const root = await findRoot(argument)
  if (root !== undefined) return readClosureFrom(root, options, signal)
  return readManifest(argument, options)
}

/**
 * The manifest in `file`.
 *
 * @throws {CliError} USAGE – it bears no signatures, and keys are to vouch; FILE_UNREADABLE
 */
export async function readManifest(file: string, options: SourceValues): Promise<ClosureManifest> {
  if (wantsSignatures(options))
    throw new CliError('USAGE', `--trusted-key is for store paths; nothing is signed in ${file}`)
  return parseInput(file, MANIFEST_MAX_BYTES, parseManifest)
}

/** The root that `argument` is or links to, as `./result` does. @throws {CliError} USAGE – neither */
export async function resolveRoot(argument: string): Promise<StorePath> {
  return (await findRoot(argument)) ?? parseRoot(argument)
}

/** The store path that `argument` is or links to. */
export async function findRoot(argument: string): Promise<StorePath | undefined> {
  for (const find of [() => argument, () => realpath(argument)])
    try {
      return parseStorePath(await find())
    } catch {
      // Not this way: not a store path, or nothing is there, which reading the manifest will say.
    }
  return undefined
}
