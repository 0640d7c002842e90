// Real Nix for tests. In a private root (see packages/cli/src/demo/private-root.ts) `/nix` is scratch, so
// builds, a daemon and tampering touch nothing of the host; outside one, nothing is built.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseStorePath } from '@bagcheck/nix'
import type { StorePath } from '@bagcheck/nix'

/** Settings with which builds work in a private root. */
export const NIX_TEST_SETTINGS: readonly string[] = [
  'build-users-group =',
  'sandbox = true',
  'sandbox-fallback = false',
  'substitute = false',
  'sandbox-paths = /bin/sh=/bin/busybox',
]

/**
 * Whether tests can use Nix here. Where they cannot, prints why; with `CI=true` throws instead, because
 * there the tests are required.
 */
export function nixAvailable(): boolean {
  const reason = findObstacle()
  if (reason === undefined) return true
  if (process.env['CI'] === 'true') throw new Error(`tests with real Nix are required: ${reason}`)
  console.warn(`tests with real Nix are skipped: ${reason}`)
  return false
}

function findObstacle(): string | undefined {
  if (process.env['BAGCHECK_PRIVATE_ROOT'] === undefined)
    return 'not in a private root (npm test makes one when it runs as root)'
  const programs = ['nix-build', 'nix-daemon', 'setpriv']
  const missing = programs.find((program) => spawnSync(program, ['--version']).status !== 0)
  if (missing !== undefined) return `${missing} is not installed`
  return existsSync('/bin/busybox') ? undefined : '/bin/busybox (busybox-static) is not installed'
}

/** The environment in which Nix programs work here; `extra` is added. */
export function nixEnvironment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return {
    ...process.env,
    NIX_CONFIG: NIX_TEST_SETTINGS.join('\n'),
    NIX_PATH: '',
    NIX_REMOTE: '',
    ...extra,
  }
}

/** Runs a Nix program and returns its standard output; throws with its standard error. */
export function runNix(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = nixEnvironment(),
): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    env: environment,
    maxBuffer: 1 << 28,
  })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stderr}`)
  return stdout
}

/** Builds an expression, or a file given as `{ file }`, and returns its (first) output. */
export function nixBuild(
  source: string | { readonly file: string },
  args: readonly string[] = [],
): StorePath {
  const what = typeof source === 'string' ? ['--expr', source] : [source.file]
  const output = runNix('nix-build', ['--no-out-link', ...what, ...args])
  return parseStorePath(output.split('\n')[0] ?? '')
}

/**
 * An expression whose output a shell script makes in the sandbox; `$out` is the output, the shell is
 * busybox with its applets, and `variables` (other derivations too) are in the environment.
 */
export function shellDerivation(
  name: string,
  script: string,
  variables: Readonly<Record<string, string>> = {},
): string {
  const attributes = Object.entries(variables).map(([key, value]) => `${key} = ${value};`)
  return `(derivation {
    name = ${nixString(name)}; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-ec" ${nixString(script)} ]; ${attributes.join(' ')}
  })`
}

/** `text` as a string literal of the Nix language. */
export function nixString(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&').replaceAll('${', '\\${')}"`
}

/** A running Nix daemon. */
export interface TestNixDaemon {
  readonly socketPath: string
  /** The environment for clients of this daemon. */
  readonly environment: NodeJS.ProcessEnv
  stop(): Promise<void>
}

/**
 * Starts a Nix daemon whose socket lies in `directory`; the kernel ends it with this process. `extra` is
 * added to its environment, such as NIX_STATE_DIR for a database of its own.
 */
export async function startNixDaemon(
  directory: string,
  extra: NodeJS.ProcessEnv = {},
): Promise<TestNixDaemon> {
  mkdirSync(directory, { recursive: true })
  const socketPath = join(directory, 'daemon.sock')
  const [program, ...args] = ['setpriv', '--pdeathsig', 'TERM', 'nix-daemon']
  const child = spawn(program, args, {
    stdio: 'ignore',
    env: nixEnvironment({ ...extra, NIX_DAEMON_SOCKET_PATH: socketPath }),
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  while (!(await accepts(socketPath))) {
    if (child.exitCode !== null) throw new Error(`nix-daemon ended with ${child.exitCode}`)
    await setTimeout(10)
  }
  return {
    socketPath,
    environment: nixEnvironment({ NIX_REMOTE: `unix://${socketPath}` }),
    async stop() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

// The socket file appears at bind, a moment before listen: only a connection says that the daemon is ready.
function accepts(socketPath: string): Promise<boolean> {
  const socket = connect(socketPath)
  return new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  }).finally(() => socket.destroy())
}
