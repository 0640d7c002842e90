// Newer releases of Nix for tests that compare, without installing anything: `nix-bin` and what it depends
// on are downloaded by apt from later Debian suites of the mirror that this machine uses, unpacked into the
// cache folder, and run from there by the loader that came with them. Opt-in, because it downloads some
// 40 MB for each suite.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { cached, runTool } from './cache.ts'
import { NIX_TEST_SETTINGS } from './nix.ts'
import type { TestNixDaemon } from './nix.ts'

/** Debian suites with a newer Nix than the oldest that is supported: 2.26 and 2.34 in November 2026. */
const SUITES = ['trixie', 'forky'] as const
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** A release of Nix, unpacked. */
export interface NixRelease {
  readonly suite: string
  /** Such as `2.26.3`. */
  readonly version: string
  readonly root: string
}

/**
 * The newer releases that tests can use here. Where there are none, prints why. They are never required:
 * they come from outside.
 */
export async function nixReleases(): Promise<readonly NixRelease[]> {
  const reason = findObstacle()
  if (reason !== undefined) {
    console.warn(`tests with newer releases of Nix are skipped: ${reason}`)
    return []
  }
  const releases: NixRelease[] = []
  for (const suite of SUITES)
    try {
      releases.push(await findRelease(suite))
    } catch (error) {
      console.warn(`tests with Nix from ${suite} are skipped: ${(error as Error).message}`)
    }
  return releases
}

function findObstacle(): string | undefined {
  if (process.env['BAGCHECK_INTEROP'] !== '1') return 'BAGCHECK_INTEROP=1 is not set'
  if (process.env['BAGCHECK_PRIVATE_ROOT'] === undefined) return 'not in a private root'
  if (process.getuid?.() !== 0) return 'not root'
  const programs = ['apt-get', 'dpkg-deb']
  const missing = programs.find((program) => spawnSync(program, ['--version']).status !== 0)
  return missing === undefined ? undefined : `${missing} is missing`
}

async function findRelease(suite: string): Promise<NixRelease> {
  const root = await cached(`nix-${suite}`, (folder) => unpack(suite, folder))
  const said = runNixRelease({ root }, '/nonexistent', 'nix', ['--version'])
  const version = /\d+\.\d+\.\d+/.exec(said)?.[0]
  if (version === undefined) throw new Error(`"nix --version" says ${JSON.stringify(said)}`)
  return { suite, version, root }
}

async function unpack(suite: string, scratch: string): Promise<string> {
  for (const directory of ['lists/partial', 'archives/partial', 'none', 'root'])
    mkdirSync(join(scratch, directory), { recursive: true })
  const sources = join(scratch, 'sources.list')
  const signedBy = existsSync(KEYRING) ? `[signed-by=${KEYRING}] ` : ''
  writeFileSync(sources, `deb ${signedBy}${findMirror()} ${suite} main\n`)
  writeFileSync(join(scratch, 'status'), '') // nothing is installed, so that everything is downloaded
  const options = {
    'Dir::Etc::SourceList': sources,
    'Dir::Etc::SourceParts': join(scratch, 'none'),
    'Dir::Etc::Preferences': join(scratch, 'none/preferences'),
    'Dir::Etc::PreferencesParts': join(scratch, 'none'),
    'Dir::State::Lists': join(scratch, 'lists'),
    'Dir::State::status': join(scratch, 'status'),
    'Dir::Cache': scratch,
    'Dir::Cache::Archives': join(scratch, 'archives'),
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '2',
  }
  const apt = (...args: string[]): Promise<string> =>
    runTool('apt-get', [
      '-qq',
      ...Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]),
      ...args,
    ])
  await apt('update')
  await apt('--yes', '--no-install-recommends', '--download-only', 'install', 'nix-bin')
  const packages = readdirSync(join(scratch, 'archives')).filter((name) => name.endsWith('.deb'))
  for (const name of packages)
    await runTool('dpkg-deb', ['--extract', join(scratch, 'archives', name), join(scratch, 'root')])
  return 'root'
}

/** Where this machine gets Debian from. */
function findMirror(): string {
  const format = '$(COMPONENT) $(REPO_URI)'
  const targets = capture('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'])
  const mirror = targets
    .split('\n')
    .map((line) => /^main (\S+\/debian\/)$/.exec(line)?.[1])
    .find((uri) => uri !== undefined)
  if (mirror === undefined) throw new Error('apt has no source of Debian packages')
  return mirror
}

/** Runs a program of `release` on the store below `directory`, and returns its standard output. */
export function runNixRelease(
  release: Pick<NixRelease, 'root'>,
  directory: string,
  program: string,
  args: readonly string[],
): string {
  const { command, args: own, env } = nixReleaseCommand(release, directory, program)
  return capture(command, [...own, ...args], env)
}

/** What {@link runNixRelease} runs, for tests that look at failures; `args` come after its own. */
export function nixReleaseCommand(
  { root }: Pick<NixRelease, 'root'>,
  directory: string,
  program: string,
): { readonly command: string; readonly args: readonly string[]; readonly env: NodeJS.ProcessEnv } {
  const [loader] = globSync(['usr/lib64/ld-linux-*.so.*', 'usr/lib/ld-linux-*.so.*'], { cwd: root })
  const [libraries] = globSync('usr/lib/*-linux-gnu', { cwd: root })
  if (loader === undefined || libraries === undefined) throw new Error(`no loader in ${root}`)
  return {
    command: join(root, loader),
    args: [
      ...['--argv0', program, '--library-path', join(root, libraries)],
      join(root, 'usr/bin/nix'),
    ],
    env: {
      ...process.env,
      NIX_CONFIG: [
        ...NIX_TEST_SETTINGS,
        'build-hook =',
        'experimental-features = nix-command',
        `store = ${directory}`,
      ].join('\n'),
      NIX_PATH: '',
      NIX_REMOTE: '',
    },
  }
}

/** Starts the daemon of `release` for the store below `directory`; its socket lies there too. */
export async function startNixReleaseDaemon(
  release: NixRelease,
  directory: string,
): Promise<TestNixDaemon> {
  const { command, args, env } = nixReleaseCommand(release, directory, 'nix-daemon')
  const socketPath = join(directory, 'daemon.sock')
  mkdirSync(directory, { recursive: true })
  const environment = { ...env, NIX_DAEMON_SOCKET_PATH: socketPath }
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', command, ...args], {
    stdio: 'ignore',
    env: environment,
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  while (!existsSync(socketPath)) {
    if (child.exitCode !== null) throw new Error(`nix-daemon ended with ${child.exitCode}`)
    await setTimeout(10)
  }
  return {
    socketPath,
    environment,
    async stop() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

function capture(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env,
  })
  if (error !== undefined) throw error
  if (status === 0) return stdout
  const reason = stderr.trim().split('\n').slice(-3).join(' ')
  throw new Error(`${command} ended with ${status}: ${reason}`)
}
