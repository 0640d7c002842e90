// Where attacks are staged: a real broker and a real agent as processes, real closures that a sandboxed Nix
// built, a policy that people signed, and services that `bagcheck exec` started. Made with the commands that
// operators use.
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { NIX_DAEMON_SOCKET } from '@bagcheck/nix'
import { nixString, runNix } from '@bagcheck/testkit'
import { CGROUP_PARENT_VARIABLE, PRIVATE_ROOT_VARIABLE } from '../../src/demo/private-root.ts'
import {
  buildBags,
  findCommand,
  nixEnvironment,
  startDaemon,
  type Bag,
} from '../../src/demo/build.ts'

const SOURCES = resolve(import.meta.dirname, '../../..')
const DERIVATIONS = join(SOURCES, 'cli/src/demo/nix')
export const UID = 61_070
export const AUDIENCE = 'https://api.arena.test'

/** What a service or the agent printed. */
export type Line = Readonly<Record<string, unknown>>

/** What the agent answered: a token, or why there is none. */
export interface Answer {
  readonly token?: true
  readonly code?: string
  readonly reasons?: readonly { readonly code: string; readonly message: string }[]
}

/** A process that prints JSON lines and takes lines on standard input. */
export class Program implements AsyncDisposable {
  readonly child: ChildProcess
  readonly #lines: Line[] = []
  readonly #ended: Promise<void>
  #complaints = ''
  #wake: () => void = () => undefined

  constructor(command: readonly string[], environment: NodeJS.ProcessEnv = process.env) {
    const [file = '', ...args] = command
    this.child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], env: environment })
    this.child.stdin?.on('error', () => undefined) // it has ended, which shows when its answer is awaited
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      if (line.startsWith('{')) this.#lines.push(JSON.parse(line) as Line)
      this.#wake()
    })
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-4000)
    })
    this.#ended = new Promise((resolve) => {
      this.child.once('close', () => {
        this.#wake()
        resolve()
      })
    })
  }

  /** The next line it prints. */
  async next(): Promise<Line> {
    for (;;) {
      const line = this.#lines.shift()
      if (line !== undefined) return line
      if (this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(`${this.child.spawnargs.at(-1)} ended: ${this.#complaints}`)
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }

  /** The next line that fits; those before it are gone. */
  async nextOf(fits: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const line = await this.next()
      if (fits(line)) return line
    }
  }

  /** Gives a command and waits for its answer. */
  async tell(command: string): Promise<Line> {
    this.child.stdin?.write(`${command}\n`)
    const line = await this.next()
    if ('failed' in line) throw new Error(`${command}: ${String(line['failed'])}`)
    return line
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGTERM')
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 5000)
    await this.#ended
    clearTimeout(timer)
  }
}

/** A live service. */
export class Subject extends Program {
  #pid = 0

  /** Of the service itself, not of its launcher. */
  get pid(): number {
    return this.#pid
  }

  async ready(units: string, unit: string): Promise<void> {
    await this.nextOf((line) => line['ready'] === true)
    const file = join(units, `${unit}.json`)
    await until(() => existsSync(file))
    this.#pid = (JSON.parse(readFileSync(file, 'utf8')) as { pid: number }).pid
  }

  async ask(): Promise<Answer> {
    return (await this.tell('ask')) as Answer
  }

  /** Lets root start something and puts it into this service's unit; it ends with the unit. */
  async intrude(script: string): Promise<ChildProcess> {
    const cgroup = /^0::(.*)$/m.exec(readFileSync(`/proc/${this.#pid}/cgroup`, 'utf8'))?.[1] ?? ''
    const mount = dirname(process.env[CGROUP_PARENT_VARIABLE] ?? '')
    const enter = `echo 0 > ${join(mount, cgroup)}/cgroup.procs && ${script}`
    const child = spawn('unshare', ['-m', 'sh', '-c', enter], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const before = /\/(sh|dash|unshare|mount|setpriv|chroot)$/
    await until(() => !before.test(readlinkSync(`/proc/${child.pid}/exe`)))
    return child
  }
}

/** Waits until `holds`; the test's own time limit ends what never does. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10)
}

/** How a service is started, where it is not as policy wants it. */
export interface Start {
  readonly environment?: Readonly<Record<string, string>>
  readonly uid?: number
  readonly script?: string
  readonly program?: string
}

/** The arena; everything in it ends with it. */
export class Arena implements AsyncDisposable {
  readonly #resources: AsyncDisposableStack
  readonly directory: string
  /** Where every user may read. */
  readonly publicDirectory: string
  readonly bags: Readonly<Record<Bag, string>>
  /** The service's own store path; `perl` is its interpreter, links resolved. */
  readonly root: string
  readonly perl: string
  readonly agent: Program
  readonly #unitsDirectory: string
  readonly #socket: string
  #serial = 0

  private constructor(made: Made, resources: AsyncDisposableStack) {
    this.directory = made.directory
    this.publicDirectory = made.publicDirectory
    this.bags = made.bags
    this.root = made.root
    this.perl = made.perl
    this.agent = made.agent
    this.#unitsDirectory = made.unitsDirectory
    this.#socket = made.socket
    this.#resources = resources
  }

  static async open(): Promise<Arena> {
    await using resources = new AsyncDisposableStack()
    const made = await make(resources)
    return new Arena(made, resources.move())
  }

  /** Starts the service in a unit of its own and waits until it listens. */
  async start({ environment = {}, uid = UID, script, program }: Start = {}): Promise<Subject> {
    const instance = `n${(this.#serial += 1)}`
    const variables = { AGENT_SOCKET: this.#socket, AUDIENCE, ...environment }
    const subject = new Subject([
      ...bagcheck('exec', '--name', 'subject', '--instance', instance, '--user', String(uid)),
      ...['--units-dir', this.#unitsDirectory],
      ...Object.entries(variables).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
      ...['--', program ?? this.perl, script ?? join(this.root, 'lib/subject.pl')],
    ])
    try {
      await subject.ready(this.#unitsDirectory, `subject@${instance}`)
    } catch (error) {
      await subject[Symbol.asyncDispose]()
      throw error
    }
    return subject
  }

  /** A copy of `file` that every user may execute. */
  publish(file: string, name: string): string {
    const copy = join(this.publicDirectory, name)
    copyFileSync(file, copy)
    chmodSync(copy, 0o755)
    return copy
  }

  /** An empty file system of its own in the public directory, until the arena ends. */
  mountTmpfs(name: string): string {
    const directory = join(this.publicDirectory, name)
    mkdirSync(directory)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'none', directory])
    this.#resources.defer(() => void execFileSync('umount', ['--lazy', directory]))
    return directory
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#resources.disposeAsync()
  }
}

interface Made {
  readonly directory: string
  readonly publicDirectory: string
  readonly bags: Readonly<Record<Bag, string>>
  readonly root: string
  readonly perl: string
  readonly agent: Program
  readonly unitsDirectory: string
  readonly socket: string
}

async function make(resources: AsyncDisposableStack): Promise<Made> {
  const scratch = process.env[PRIVATE_ROOT_VARIABLE] ?? ''
  chmodSync(scratch, 0o711)
  const directory = mkdtempSync(join(scratch, 'arena-'))
  resources.defer(() => {
    rmSync(directory, { recursive: true, force: true })
  })
  chmodSync(directory, 0o755)
  const [publicDirectory, run] = [join(directory, 'public'), join(directory, 'run')]
  for (const path of [publicDirectory, run]) mkdirSync(path, { mode: 0o755 })
  const signal = AbortSignal.timeout(120_000)
  resources.adopt(await startDaemon(signal), (daemon) => void daemon.kill('SIGKILL'))
  const bags = await buildBags(directory, signal)
  const perl = realpathSync(join(bags.reports, 'bin/perl'))
  const root = await buildSubject(perl)
  cli('keygen', join(directory, 'ci.pem'))
  const attested = cli(
    ...[
      'attest',
      root,
      '--key',
      join(directory, 'ci.pem'),
      '--pure',
      '-o',
      join(directory, 'bags'),
    ],
  )
  const trust = join(directory, 'trust')
  const { pin } = cli('policy', 'init', '--installation', 'arena', '-o', trust)
  const keys = join(trust, 'keys')
  copyFileSync(join(directory, 'ci.pub'), join(keys, 'ci.pub'))
  writeFileSync(join(trust, 'policy.yaml'), policyText(root, String(attested['closureDigest'])))
  cli('policy', 'compile', join(trust, 'policy.yaml'), '-o', join(trust, 'policy.json'))
  for (const person of ['policy-1', 'policy-2'])
    cli('policy', 'sign', join(trust, 'policy.json'), '--key', join(keys, `${person}.pem`))

  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const brokerConfig = join(directory, 'broker.json')
  writeJson(brokerConfig, {
    ...{
      installation: 'arena',
      issuer,
      stateDir: 'broker',
      listen: { host: '127.0.0.1', port, tls: null },
    },
    ...{ adminSocket: 'admin.sock', store: { sqlite: 'bagcheck.sqlite' } },
    trustRoot: { pin, chain: [join(trust, 'root.json')] },
    ...{ logKey: join(keys, 'log.key'), decisionKey: join(keys, 'broker.pem') },
  })
  const broker = resources.use(new Program(source('broker', '--config', brokerConfig)))
  await broker.nextOf(({ msg }) => msg === 'ready')
  cli('policy', 'publish', join(trust, 'policy.json'), '--broker', issuer)
  cli('attest', 'submit', join(directory, 'bags'), '--broker', issuer)

  const joinToken = join(keys, 'join.json')
  const enrolment = ['--installation', 'arena', '--key', join(keys, 'enrolment.pem')]
  cli('node', 'join-token', ...enrolment, '--class', 'arena', '-o', joinToken)
  const agentConfig = join(directory, 'agent.json')
  const [socket, unitsDirectory] = [join(run, 'agent.sock'), join(directory, 'units')]
  writeJson(agentConfig, {
    ...{
      installation: 'arena',
      broker: issuer,
      trustRootPin: pin,
      stateDir: 'agent',
      socket,
      joinToken,
    },
    ...{
      unitsDir: unitsDirectory,
      storeCheckIntervalSeconds: 0,
      nix: { daemonSocket: NIX_DAEMON_SOCKET },
    },
  })
  const agent = resources.use(new Program(source('agent', '--config', agentConfig)))
  await agent.nextOf(({ msg }) => msg === 'ready')
  return { directory, publicDirectory, bags, root, perl, agent, unitsDirectory, socket }
}

const source = (name: 'broker' | 'agent' | 'cli', ...args: string[]): string[] => [
  ...[process.execPath, '-C', '@bagcheck/source', join(SOURCES, name, 'src/main.ts')],
  ...args,
]

const bagcheck = (...args: string[]): string[] => source('cli', ...args)

function cli(...args: string[]): Line {
  const [file = '', ...rest] = bagcheck(...args, '--json')
  const { status, stdout, stderr } = spawnSync(file, rest, {
    encoding: 'utf8',
    env: nixEnvironment(),
  })
  if (status !== 0) throw new Error(`bagcheck ${args.join(' ')} ended with ${status}: ${stderr}`)
  return JSON.parse(stdout) as Line
}

async function buildSubject(perl: string): Promise<string> {
  const busybox = (await findCommand('busybox')) ?? ''
  const expression = `import ${DERIVATIONS}/service.nix {
      name = "subject-1.0";
      runtime = builtins.storePath ${dirname(dirname(perl))};
      program = "perl";
      script = ${join(import.meta.dirname, 'subject.pl')};
      scriptName = "subject.pl";
      data = "{}";
      tools.busybox = "\${builtins.path {
        path = ${dirname(busybox)};
        name = "busybox";
        filter = file: type: file == ${nixString(busybox)};
      }}/busybox";
    }`
  return runNix('nix-build', ['--no-out-link', '--expr', expression], nixEnvironment()).trim()
}

function policyText(root: string, closure: string): string {
  const expires = new Date(Date.now() + 86_400_000).toISOString().replace(/\.\d+/, '')
  return `schema: bagcheck.policy/v1
installation: arena
version: 1
expires: ${expires}
trustDomain: arena.bagcheck.test
signers:
  ci: { key: keys/ci.pub }
profiles:
  plain: { type: access_token, binding: none }
roles:
  subject:
    nodeClasses: [arena]
    unit: { launcher: bagcheck-exec, name: subject }
    uid: ${UID}
    entry:
      kind: interpreter
      executable: 'demo-perl-*/bin/perl'
      script: 'subject-*/lib/subject.pl'
      arguments: ['{script}']
    audiences:
      ${AUDIENCE}:
        profile: plain
        ttlSeconds: { min: 5, default: 60, max: 300 }
        minTier: 0
        minStrength: incremental
        maxAgeFullSeconds: 86400
    signers: [ci]
    build: { sandbox: true, sandboxFallback: false, impure: false }
    roots:
      - { root: ${root}, closure: ${closure} }
`
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, JSON.stringify(value), { mode: 0o600 })
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
