// Where facts about a closure come from.
import {
  connectDaemon,
  openNixDatabase,
  parseStorePath,
  readClosure,
  type ClosureManifest,
  type ClosureSource,
  type StorePath,
} from '@bagcheck/nix'
import { CliError } from '../error.ts'

/** Options of every command that reads a closure. */
export const SOURCE_OPTIONS = {
  source: {
    type: 'string',
    value: 'daemon|database',
    default: 'daemon',
    help: 'ask the Nix daemon, or read the Nix database',
  },
  'daemon-socket': {
    type: 'string',
    value: 'PATH',
    environment: 'NIX_DAEMON_SOCKET_PATH',
    help: "the Nix daemon's socket instead of its usual one",
  },
  database: { type: 'string', value: 'FILE', help: 'the Nix database instead of its usual one' },
} as const

/** A root that was given as an argument. @throws {CliError} USAGE */
export function parseRoot(text: string): StorePath {
  try {
    return parseStorePath(text)
  } catch (error) {
    throw new CliError('USAGE', `ROOT is a store path: ${(error as Error).message}`)
  }
}

/** What the options above parse to. */
export interface SourceValues {
  readonly source: string
  readonly 'daemon-socket': string | undefined
  readonly database: string | undefined
}

/** Opens the source that the options name. @throws {CliError} USAGE */
export async function openSource(
  options: SourceValues,
  signal: AbortSignal,
): Promise<ClosureSource> {
  if (options.source !== 'daemon' && options.source !== 'database')
    throw new CliError('USAGE', `--source is "daemon" or "database", not "${options.source}"`)
  return options.source === 'database'
    ? openNixDatabase(options.database)
    : connectDaemon({
        signal,
        ...(options['daemon-socket'] && { socketPath: options['daemon-socket'] }),
      })
}

/** Reads the closure of `root` from the source that the options name. */
export async function readClosureFrom(
  root: StorePath,
  options: SourceValues,
  signal: AbortSignal,
): Promise<ClosureManifest> {
  const source = await openSource(options, signal)
  try {
    return await readClosure(source, root)
  } finally {
    await source.close()
  }
}
