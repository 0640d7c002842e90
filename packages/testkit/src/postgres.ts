// A throw-away PostgreSQL from the installed binaries: a Unix socket in a directory of its own, no TCP
// port, durable as in production. It ends with the process that started it, by kill -9 too (pdeathsig
// belongs to the spawning thread, so start it from one that lives as long as the tests).
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { chown, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const INSTALLED = '/usr/lib/postgresql'
const START_TIMEOUT_MS = 30_000
const run = promisify(execFile)

/** A running server. */
export interface TemporaryPostgres {
  /** Makes an empty database, where told in a tablespace, and returns its URL. */
  createDatabase(name: string, tablespace?: string): Promise<string>
  /** Runs SQL as the superuser, in the database `postgres` unless told; resolves to what it printed. */
  query(sql: string, database?: string): Promise<string>
  /** Ends the server at once and without a checkpoint, as a crash does; data stays. */
  crash(): Promise<void>
  /** Starts it again. */
  start(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** The directory of the newest installed PostgreSQL's programs, or undefined. */
export function findPostgres(): string | undefined {
  const versions = existsSync(INSTALLED) ? readdirSync(INSTALLED) : []
  return versions
    .filter((version) => /^[0-9]+$/.test(version))
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => join(INSTALLED, version, 'bin'))
    .find((directory) => existsSync(join(directory, 'postgres')))
}

/**
 * Whether tests can use PostgreSQL here. Where they cannot, prints why; with `CI=true` throws instead,
 * because there the tests are required.
 */
export function postgresAvailable(): boolean {
  if (findPostgres() !== undefined) return true
  const reason = `there is none in ${INSTALLED}; install the package "postgresql"`
  if (process.env['CI'] === 'true') throw new Error(`tests with PostgreSQL are required: ${reason}`)
  console.warn(`tests with PostgreSQL are skipped: ${reason}`)
  return false
}

/** Makes a cluster and starts its server: about half a second. */
export async function startPostgres(): Promise<TemporaryPostgres> {
  const programs = findPostgres()
  if (programs === undefined) throw new Error(`no PostgreSQL in ${INSTALLED}`)
  const directory = await mkdtemp('/var/tmp/bagcheck-pg-')
  // The server refuses to run as root.
  const drop: string[] = []
  if (process.getuid?.() === 0) {
    const [uid, gid] = await Promise.all(['-u', '-g'].map((flag) => run('id', [flag, 'postgres'])))
    await chown(directory, Number(uid?.stdout), Number(gid?.stdout))
    drop.push('--reuid', 'postgres', '--regid', 'postgres', '--clear-groups')
  }
  const data = join(directory, 'data')
  const options = ['-D', data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale', 'C']
  await run('setpriv', [...drop, join(programs, 'initdb'), ...options], { cwd: directory })

  let server: ChildProcess | undefined
  const start = async () => {
    server = spawn(
      'setpriv',
      [
        ...[...drop, '--pdeathsig', 'INT', join(programs, 'postgres')],
        ...['-D', data, '-k', directory, '-c', 'listen_addresses='],
      ],
      { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] },
    )
    await untilReady(server)
  }
  const stop = async (signal: NodeJS.Signals) => {
    if (server === undefined || server.exitCode !== null) return
    const ended = new Promise((resolve) => server?.once('exit', resolve))
    server.kill(signal)
    await ended
  }
  await start()
  return {
    async createDatabase(name, tablespace = 'pg_default') {
      const options = ['-h', directory, '-U', 'postgres', '-D', tablespace]
      await run(join(programs, 'createdb'), [...options, name])
      return `postgres://postgres@localhost/${name}?host=${encodeURIComponent(directory)}`
    },
    async query(sql, database = 'postgres') {
      const options = ['-h', directory, '-U', 'postgres', '-At', '-v', 'ON_ERROR_STOP=1']
      return (await run(join(programs, 'psql'), [...options, '-c', sql, database])).stdout
    },
    crash: () => stop('SIGQUIT'),
    start,
    async [Symbol.asyncDispose]() {
      await stop('SIGINT')
      await rm(directory, { recursive: true, force: true })
    },
  }
}

function untilReady(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let log = ''
    const fail = (why: string) => reject(new Error(`PostgreSQL ${why}:\n${log}`))
    const timer = setTimeout(() => fail('did not start in time'), START_TIMEOUT_MS)
    server.once('exit', () => fail('ended'))
    server.once('error', reject)
    // Read to the end of its life: a full pipe would stop the server.
    server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (log.length < 64_000) log += text
      if (!log.includes('ready to accept connections')) return
      clearTimeout(timer)
      resolve()
    })
  })
}
