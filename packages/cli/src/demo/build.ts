// Real Nix builds for the demo, in the private `/nix`: a daemon of our own, sandboxed builds with no
// fallback and no substituters. What the derivations copy (programs, libraries, tools) comes from this
// machine, so that neither nixpkgs nor a network is needed.
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, realpathSync, writeFileSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { basename, delimiter, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { connectDaemon } from '@bagcheck/nix'
import { CliError } from '../error.ts'

const run = promisify(execFile)

/** Nix's settings for the demo, for daemon and client alike. */
export const NIX_CONFIG: string = [
  'build-users-group =',
  'sandbox = true',
  'sandbox-fallback = false',
  'sandbox-paths = /bin/sh=/bin/busybox',
  'substitute = false',
  'experimental-features = nix-command',
].join('\n')

/** The environment in which Nix commands talk to the demo's daemon. */
export function nixEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, NIX_CONFIG, NIX_REMOTE: 'daemon' }
}

/** What the demo needs of this machine. */
export const NEEDED_COMMANDS = ['nix-build', 'nix-daemon', 'patchelf', 'busybox', 'perl'] as const

/** Absolute path of a command on PATH, or undefined. */
export async function findCommand(name: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const file = join(folder, name)
    const found = await access(file, 1).then(
      () => true,
      () => false,
    )
    if (found) return realpathSync(file)
  }
  return undefined
}

/** What is not installed of what the demo needs. */
export async function findMissingCommands(): Promise<string[]> {
  const found = await Promise.all(NEEDED_COMMANDS.map(findCommand))
  return NEEDED_COMMANDS.filter((_name, index) => found[index] === undefined)
}

async function needCommand(name: string): Promise<string> {
  const file = await findCommand(name)
  if (file === undefined) throw new CliError('TOOL_MISSING', `${name} is not installed`)
  return file
}

/** What a file shall be called, and where it lies, links resolved. */
export interface NamedFile {
  name: string
  path: string
}

/** A file under its own name. */
export const named = (file: string): NamedFile => ({
  name: basename(file),
  path: realpathSync(file),
})

/** The libraries that a program loads, and the loader that loads them, as `ldd` of this machine says. */
export async function linkage(
  program: string,
): Promise<{ loader: NamedFile; libraries: NamedFile[] }> {
  const { stdout } = await run('ldd', [program])
  const libraries: NamedFile[] = []
  let loader: NamedFile | undefined
  for (const line of stdout.split('\n')) {
    const library = /^\s*\S+ => (\/\S+) \(/.exec(line)?.[1]
    const interpreter = /^\s*(\/\S+) \(/.exec(line)?.[1]
    if (library !== undefined) libraries.push(named(library))
    else if (interpreter !== undefined) loader = named(interpreter)
  }
  if (loader === undefined)
    throw new CliError('TOOL_UNSUITABLE', `${program} is not dynamically linked`)
  return { loader, libraries }
}

/** A library of this machine that lies beside its C library, and that Node does not need. */
export async function findSpareLibrary(): Promise<string> {
  const { libraries } = await linkage(process.execPath)
  const libc = libraries.find(({ name }) => name.startsWith('libc.so'))
  if (libc === undefined) throw new CliError('TOOL_UNSUITABLE', 'Node does not name a C library')
  return realpathSync(join(dirname(libc.path), 'libresolv.so.2'))
}

/** The directory of perl's own modules that holds the sockets that the service needs. */
async function perlModules(perl: string): Promise<string> {
  const { stdout } = await run(perl, [
    '-MIO::Socket::UNIX',
    '-e',
    'print $INC{"IO/Socket/UNIX.pm"}',
  ])
  return dirname(dirname(dirname(stdout)))
}

/** The roots that the demo builds. */
export const BAGS = ['orders', 'hotfix', 'next', 'reports'] as const
export type Bag = (typeof BAGS)[number]

/** Starts the daemon; it ends with us, also after kill -9. */
export async function startDaemon(signal: AbortSignal): Promise<ChildProcess> {
  const daemon = spawn('setpriv', ['--pdeathsig', 'KILL', 'nix-daemon'], {
    env: { ...process.env, NIX_CONFIG },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let complaint = ''
  daemon.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4000)
  })
  // The socket of an earlier daemon may still lie there, so what counts is an answer.
  for (let attempt = 0; attempt < 200 && daemon.exitCode === null; attempt++) {
    const answer = await connectDaemon({ timeoutMs: 1000 }).catch(() => undefined)
    await answer?.close()
    if (answer !== undefined) return daemon
    await sleep(25, undefined, { signal })
  }
  daemon.kill('SIGKILL')
  throw new CliError('NIX_DAEMON', `nix-daemon did not start: ${JSON.stringify(complaint)}`)
}

/** Lists programs, libraries and tools of this machine in a file in `scratch`, for expressions to read. */
export async function writeInputs(scratch: string): Promise<string> {
  const node = process.execPath
  const [perl, patchelf, busybox] = [
    await needCommand('perl'),
    await needCommand('patchelf'),
    await needCommand('busybox'),
  ]
  const { stdout: perlVersion } = await run(perl, ['-e', 'printf "%vd", $^V'])
  const config = {
    node: { program: named(node), version: process.versions.node, ...(await linkage(node)) },
    perl: {
      program: named(perl),
      version: perlVersion,
      data: await perlModules(perl),
      ...(await linkage(perl)),
    },
    tools: { busybox: named(busybox), patchelf: named(patchelf), ...(await linkage(patchelf)) },
  }
  const file = join(scratch, 'inputs.json')
  writeFileSync(file, JSON.stringify(config))
  return file
}

/** Builds every bag and returns their store paths. Inputs are listed in a file in `scratch`. */
export async function buildBags(
  scratch: string,
  signal: AbortSignal,
): Promise<Readonly<Record<Bag, string>>> {
  const file = await writeInputs(scratch)
  const expressions = join(import.meta.dirname, 'nix')
  if (!existsSync(expressions))
    throw new CliError('TOOL_MISSING', `${expressions}, which the demo builds, is not there`)
  const args = [expressions, '--argstr', 'config', file, '--no-out-link']
  for (const bag of BAGS) args.push('-A', bag)
  const { stdout } = await run('nix-build', args, {
    env: nixEnvironment(),
    maxBuffer: 64 * 1024 * 1024,
    signal,
  }).catch((error: Error & { stderr?: string }) => {
    throw new CliError(
      'NIX_BUILD',
      `nix-build failed: ${(error.stderr ?? error.message).slice(-2000)}`,
    )
  })
  const roots = stdout.trim().split('\n')
  return Object.fromEntries(BAGS.map((bag, index) => [bag, roots[index] ?? ''])) as Record<
    Bag,
    string
  >
}
