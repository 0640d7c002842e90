// Where facts about closures come from, and who must vouch for them.
import { stat } from 'node:fs/promises'
import {
  buildFileList,
  buildFileListFromNars,
  connectDaemon,
  openBinaryCache,
  openNixDatabase,
  parseCachePublicKey,
  parseManifest,
  parsePathInfoJson,
  parseRegistrations,
  parseStorePath,
  PATH_INFO_MAX_BYTES,
  readClosure,
  recordedSource,
  verifyPathInfo,
  type BinaryCache,
  type CacheTrust,
  type ClosureManifest,
  type ClosureSource,
  type FileList,
  type NarDecoder,
  type StorePath,
} from '@bagcheck/nix'
import type { Context } from '../command.ts'
import { CliError } from '../error.ts'
import { parseInput } from '../files.ts'
import { findDecoders } from './decoders.ts'

/** Options of every command that reads a closure. */
export const SOURCE_OPTIONS = {
  source: {
    type: 'string',
    value: 'WHERE',
    default: 'daemon',
    help:
      '"daemon", "database", a binary cache (https://…, file://… or its directory), or a file: a ' +
      'manifest, the output of "nix path-info --json" or of "nix-store --dump-db"',
  },
  'daemon-socket': {
    type: 'string',
    value: 'PATH',
    environment: 'NIX_DAEMON_SOCKET_PATH',
    help: "the Nix daemon's socket instead of its usual one",
  },
  database: { type: 'string', value: 'FILE', help: 'the Nix database instead of its usual one' },
  'trusted-key': {
    type: 'string',
    value: 'NAME:KEY',
    multiple: true,
    help: 'key of a binary cache that must have signed each path; needed to read a cache',
  },
  threshold: {
    type: 'string',
    value: 'N',
    default: '1',
    help: 'how many of the trusted keys must have signed each path',
  },
} as const

/** What the options above parse to. */
export interface SourceValues {
  readonly source: string
  readonly 'daemon-socket': string | undefined
  readonly database: string | undefined
  readonly 'trusted-key': readonly string[]
  readonly threshold: string
}

/** A root that was given as an argument; no link to one will do. @throws {CliError} USAGE */
export function parseRoot(text: string): StorePath {
  try {
    return parseStorePath(text)
  } catch (error) {
    throw new CliError('USAGE', `ROOT is a store path: ${(error as Error).message}`)
  }
}

/** Opens the source that the options name. @throws {CliError} USAGE */
export async function openSource(
  options: SourceValues,
  signal: AbortSignal,
): Promise<ClosureSource> {
  const { source } = options
  if (source === 'daemon')
    return connectDaemon({
      signal,
      ...(options['daemon-socket'] && { socketPath: options['daemon-socket'] }),
    })
  if (source === 'database') return openNixDatabase(options.database)
  if (await isCache(source)) return openCache(options, signal)
  return parseInput(source, PATH_INFO_MAX_BYTES, readFacts)
}

async function openCache(options: SourceValues, signal: AbortSignal): Promise<BinaryCache> {
  const trust = parseTrust(options)
  if (trust !== undefined) return openBinaryCache(options.source, { trust, signal })
  throw new CliError('USAGE', '--source with a binary cache needs --trusted-key NAME:KEY')
}

/**
 * Reads the closure of `root` from the source that the options name. With trusted keys, they must vouch
 * for every path, whatever the source.
 *
 * @throws {CliError} USAGE
 */
export async function readClosureFrom(
  root: StorePath,
  options: SourceValues,
  signal: AbortSignal,
): Promise<ClosureManifest> {
  const trust = parseTrust(options)
  const source = await openSource(options, signal)
  try {
    const manifest = await readClosure(source, root)
    if (trust !== undefined) for (const entry of manifest.entries) verifyPathInfo(entry, trust)
    return manifest
  } finally {
    await source.close()
  }
}

/**
 * The file list of `manifest`: from the archives where the source is a binary cache, else from the store.
 */
export async function readFileList(
  manifest: ClosureManifest,
  options: SourceValues,
  { env, signal, progress }: Pick<Context, 'env' | 'signal' | 'progress'>,
): Promise<FileList> {
  const settings = {
    signal,
    onProgress: ({ paths, totalPaths }: { paths: number; totalPaths: number }) =>
      progress(`hashed ${paths} of ${totalPaths} paths`),
  }
  if (!(await isCache(options.source))) return buildFileList(manifest, settings)
  await using cache = await openCache(options, signal)
  const decoders = findDecoders(env['PATH'])
  return await buildFileListFromNars(
    manifest,
    (entry) => openEntry(cache, entry.path, decoders),
    settings,
  )
}

async function* openEntry(
  cache: BinaryCache,
  path: StorePath,
  decoders: Readonly<Record<string, NarDecoder>>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const info = await cache.queryPathInfo(path)
  if (info === undefined) throw new CliError('NOT_FOUND', `the binary cache has lost ${path}`)
  yield* cache.openNar(info, decoders)
}

/** Facts in a file, which is told by how it starts. */
function readFacts(bytes: Uint8Array): ClosureSource {
  const [line = ''] = Buffer.from(bytes.subarray(0, 4096)).toString('latin1').split('\n')
  if (/^\s*[[{]/.test(line)) return recordedSource('path-info', parsePathInfoJson(bytes))
  if (line.includes(' ')) return recordedSource('manifest', parseManifest(bytes).entries)
  return recordedSource('registration', parseRegistrations(bytes))
}

/** Whether the options demand that keys vouch for what is read. */
export function wantsSignatures({ 'trusted-key': keys, threshold }: SourceValues): boolean {
  return keys.length > 0 || threshold !== '1'
}

function parseTrust(options: SourceValues): CacheTrust | undefined {
  if (!wantsSignatures(options)) return undefined
  const { 'trusted-key': texts, threshold } = options
  try {
    const keys = texts.map(parseCachePublicKey)
    const distinct = new Set(keys.map(({ bytes }) => Buffer.from(bytes).toString('hex'))).size
    if (!/^[1-9][0-9]{0,3}$/.test(threshold) || Number(threshold) > distinct)
      throw new Error(`--threshold lies between 1 and the ${distinct} keys that differ`)
    return { keys, threshold: Number(threshold) }
  } catch (error) {
    throw new CliError('USAGE', `--trusted-key: ${(error as Error).message}`)
  }
}

/** Whether `source` is a binary cache; otherwise it is a file. @throws {CliError} USAGE */
async function isCache(source: string): Promise<boolean> {
  if (source === 'daemon' || source === 'database') return false
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(source)) return true
  try {
    return (await stat(source)).isDirectory()
  } catch (cause) {
    const message = `--source is "daemon", "database", a URL, a directory or a file, not "${source}"`
    throw new CliError('USAGE', message, { cause })
  }
}
