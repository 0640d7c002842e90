// Where facts about a closure come from.
import {
  connectDaemon,
  openNixDatabase,
  parseStorePath,
  readClosure,
  type ClosureManifest,
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

/** Reads the closure of `root` from the source that the options name. */
export async function readClosureFrom(
  root: StorePath,
  options: { source: string; 'daemon-socket': string | undefined; database: string | undefined },
  signal: AbortSignal,
): Promise<ClosureManifest> {
  if (options.source !== 'daemon' && options.source !== 'database')
    throw new CliError('USAGE', `--source is "daemon" or "database", not "${options.source}"`)
  const source =
    options.source === 'database'
      ? openNixDatabase(options.database)
      : await connectDaemon({
          signal,
          ...(options['daemon-socket'] && { socketPath: options['daemon-socket'] }),
        })
  try {
    return await readClosure(source, root)
  } finally {
    await source.close()
  }
}
