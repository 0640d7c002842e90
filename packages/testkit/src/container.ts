// Containers of a real runc or crun, as a caller of the OCI runtime would make them: a bundle whose root file
// system is an overlay, `config.json`, a state directory of the test's own. Nothing of the host's containers
// is touched. They end with the private root (their PID namespace), whatever ends that.
//
// `unified` shows the runtime the unified cgroup hierarchy alone, in a mount namespace of its own; `hybrid`
// what the host has: runc 1.1 works with both, crun 1.8 refuses a hybrid one.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

export type ContainerRuntime = 'runc' | 'crun'
export type CgroupLayout = 'unified' | 'hybrid'

const START_TIMEOUT_MS = 30_000
const HIERARCHY = '/sys/fs/cgroup'

/**
 * Whether tests can start containers with `runtime` here; where they cannot, prints why. With `CI=true`
 * throws instead: there the tests are required.
 */
export function containersAvailable(runtime: ContainerRuntime, layout: CgroupLayout): boolean {
  const reason = findObstacle(runtime, layout)
  if (reason === undefined) return true
  if (process.env['CI'] === 'true' && layout === 'unified')
    throw new Error(`tests with ${runtime} are required: ${reason}`)
  console.warn(`tests with ${runtime} (${layout} cgroups) are skipped: ${reason}`)
  return false
}

function findObstacle(runtime: ContainerRuntime, layout: CgroupLayout): string | undefined {
  if (process.env['BAGCHECK_PRIVATE_ROOT'] === undefined)
    return 'not in a private root (npm test makes one when it runs as root)'
  if (process.env['BAGCHECK_CGROUP_PARENT'] === undefined) return 'there is no cgroup2 hierarchy'
  if (spawnSync(runtime, ['--version']).error !== undefined) return `${runtime} is not installed`
  const isHybrid = process.env['BAGCHECK_CGROUP_PARENT'].startsWith(`${HIERARCHY}/unified/`)
  if (layout === 'hybrid' && !isHybrid) return 'the cgroup hierarchies of this host are not hybrid'
  return undefined
}

/** What differs between the containers of tests; everything else is as {@link containerConfig} has it. */
export interface ContainerOptions {
  readonly runtime: ContainerRuntime
  readonly layout?: CgroupLayout
  readonly id: string
  /** The runtime's `--root`. */
  readonly stateDir: string
  readonly bundle: string
  /** Further arguments of `run`, such as `--no-pivot`. */
  readonly arguments?: readonly string[]
}

/** A container that runs. */
export interface TestContainer extends AsyncDisposable {
  /** Of its first process, outside. */
  readonly pid: number
  /** The runtime in the foreground: standard input and output are those of the first process. */
  readonly child: ChildProcess
  /**
   * Runs a program in the container as the runtime does it, in the foreground: a detached one would be left
   * to the first process of the private root, which waits for nobody's children.
   */
  exec(...args: readonly string[]): { readonly ended: Promise<unknown>; end(): Promise<unknown> }
}

/** A directory to hold bundles, with what they are made in; removed with its mounts at the end. */
export interface Bundles extends Disposable {
  readonly directory: string
  /**
   * A bundle with `config` whose root file system is an overlay: empty mount points below, an upper layer on
   * top; `layers` lie between, the first on top.
   */
  make(
    name: string,
    config: Readonly<Record<string, unknown>> | string,
    layers?: readonly string[],
  ): { readonly bundle: string; readonly rootfs: string; readonly upper: string }
}

/** Makes bundles below the private root's scratch directory. */
export function openBundles(): Bundles {
  const scratch = process.env['BAGCHECK_PRIVATE_ROOT']
  if (scratch === undefined) throw new Error('not in a private root')
  const directory = mkdtempSync(join(scratch, 'bundles-'))
  chmodSync(directory, 0o755) // a root file system is reached by the container's users
  const base = join(directory, 'base')
  for (const point of ['proc', 'dev', 'tmp', 'sys', 'nix/store', 'run/bagcheck'])
    mkdirSync(join(base, point), { recursive: true })
  const mounted: string[] = []
  return {
    directory,
    make(name, config, layers = []) {
      const bundle = join(directory, name)
      const [rootfs, upper, work] = ['rootfs', 'upper', 'work'].map((part) => join(bundle, part))
      for (const path of [rootfs, upper, work]) mkdirSync(path as string, { recursive: true })
      const lower = [...layers, base].join(':')
      run('mount', [
        ...['-t', 'overlay', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`],
        ...['overlay', rootfs as string],
      ])
      mounted.push(rootfs as string)
      const text = typeof config === 'string' ? config : JSON.stringify(config)
      writeFileSync(join(bundle, 'config.json'), text, { mode: 0o600 })
      return { bundle, rootfs: rootfs as string, upper: upper as string }
    },
    [Symbol.dispose]() {
      for (const path of mounted) spawnSync('umount', ['-l', path])
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** What a test's container is made of. */
export interface ContainerWishes {
  readonly args: readonly string[]
  readonly uid: number
  readonly environment?: Readonly<Record<string, string>>
  readonly mounts?: readonly Readonly<Record<string, unknown>>[]
  readonly namespaces?: readonly string[]
  readonly annotations?: Readonly<Record<string, string>>
  readonly linux?: Readonly<Record<string, unknown>>
  readonly process?: Readonly<Record<string, unknown>>
}

/** A bind mount, read-only unless `options` says otherwise. */
export function bindMount(
  source: string,
  destination = source,
  options: readonly string[] = ['rbind', 'ro'],
): Readonly<Record<string, unknown>> {
  return { destination, type: 'bind', source, options }
}

const CONTAINER_NAMESPACES = ['pid', 'mount', 'ipc', 'uts', 'network', 'cgroup']

/** `config.json` of a confined container: no capabilities, no-new-privs, a read-only root, namespaces of its own. */
export function containerConfig(wishes: ContainerWishes): Record<string, unknown> {
  const { args, uid, environment = {}, mounts = [], annotations = {}, linux = {} } = wishes
  const { namespaces = CONTAINER_NAMESPACES } = wishes
  const none = { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] }
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid, gid: uid },
      args,
      env: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      cwd: '/',
      capabilities: none,
      noNewPrivileges: true,
      ...wishes.process,
    },
    root: { path: 'rootfs', readonly: true },
    hostname: 'bagcheck',
    annotations,
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      ...mounts,
    ],
    linux: { namespaces: namespaces.map((type) => ({ type })), ...linux },
  }
}

const unifiedOnly = `mount -t cgroup2 cgroup2 ${HIERARCHY} && exec "$@"`

/** Starts a container and resolves once its first process is what was asked for. */
export async function startContainer(options: ContainerOptions): Promise<TestContainer> {
  const { runtime, layout = 'unified', id, stateDir, bundle } = options
  const around =
    layout === 'unified'
      ? ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', unifiedOnly, 'sh']
      : []
  const command = [...around, runtime, '--root', stateDir]
  const [file, ...args] = [
    ...[...command, 'run', '--bundle', bundle],
    ...[...(options.arguments ?? []), id],
  ]
  const child = spawn(file as string, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)))
  const call = (...more: readonly string[]) => {
    const [program, ...rest] = [...command, ...more]
    return spawnSync(program as string, rest, { encoding: 'utf8' })
  }
  const pid = await waitForInit()
  return {
    pid,
    child,
    exec(...more) {
      const [program, ...rest] = [...command, 'exec', id, ...more]
      const entered = spawn(program as string, rest, { stdio: 'ignore' })
      const ended = new Promise((resolve) => entered.once('exit', resolve))
      // Both runtimes pass a signal on.
      return { ended, end: () => (entered.kill('SIGTERM'), ended) }
    },
    async [Symbol.asyncDispose]() {
      call('delete', '--force', id)
      if (child.exitCode === null && child.signalCode === null)
        await new Promise((resolve) => child.once('exit', resolve))
    },
  }

  async function waitForInit(): Promise<number> {
    const deadline = Date.now() + START_TIMEOUT_MS
    for (;;) {
      const { stdout } = call('state', id)
      const found = /"pid": *([1-9]\d*)/.exec(stdout)?.[1]
      if (/"status": *"running"/.test(stdout) && found !== undefined && executes(Number(found)))
        return Number(found)
      if (child.exitCode !== null || Date.now() > deadline)
        throw new Error(`${runtime} did not start ${id}: ${said}`)
      await setTimeout(20)
    }
  }

  function executes(init: number): boolean {
    try {
      return !/runc|crun/.test(basename(readlinkSync(`/proc/${init}/exe`)))
    } catch {
      return false // gone: the runtime says so next
    }
  }
}

/** Removes what a hybrid layout leaves below a cgroup of every hierarchy. */
export function removeHybridCgroups(name: string): void {
  for (const hierarchy of readdirSync(HIERARCHY)) {
    const path = join(HIERARCHY, hierarchy, name)
    if (existsSync(path))
      spawnSync('find', [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+'])
  }
}

function run(command: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stderr}`)
}
