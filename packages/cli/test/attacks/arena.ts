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
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { NIX_DAEMON_SOCKET } from '@bagcheck/nix'
import { nixEnvironment, startDaemon } from '../../src/demo/build.ts'
import { CGROUP_PARENT_VARIABLE, PRIVATE_ROOT_VARIABLE } from '../../src/demo/private-root.ts'
import { Program, until, type Line } from './program.ts'
import { buildServices, roleText, type Service, type ServicePlan } from './services.ts'

const SOURCES = resolve(import.meta.dirname, '../../..')
export const AUDIENCE = 'https://api.arena.test'

/** What the agent answered: a token, or why there is none. */
export interface Answer {
  readonly token?: true
  readonly code?: string
  readonly reasons?: readonly { readonly code: string; readonly message: string }[]
}

/** A live service. */
export class Subject extends Program {
  readonly service: Service
  #pid = 0

  constructor(service: Service, command: readonly string[]) {
    super(command)
    this.service = service
  }

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
  readonly services: readonly Service[]
  /** Where every user may read. */
  readonly publicDirectory: string
  readonly agent: Program
  readonly socket: string
  readonly #unitsDirectory: string
  readonly #clock: string
  #serial = 0

  private constructor(made: Made, resources: AsyncDisposableStack) {
    this.services = made.services
    this.publicDirectory = made.publicDirectory
    this.agent = made.agent
    this.#unitsDirectory = made.unitsDirectory
    this.socket = made.socket
    this.#clock = made.clock
    this.#resources = resources
  }

  /** Builds and approves the services that `plan` names; it gets a directory for what it needs. */
  static async open(
    plan: (scratch: string) => Promise<readonly ServicePlan[]> | readonly ServicePlan[],
  ): Promise<Arena> {
    await using resources = new AsyncDisposableStack()
    const made = await make(plan, resources)
    return new Arena(made, resources.move())
  }

  /** Starts a service in a unit of its own and waits until it listens. */
  async start(service: Service, start: Start = {}): Promise<Subject> {
    const { environment = {}, uid = service.uid, script, program } = start
    const instance = `n${(this.#serial += 1)}`
    const variables = { AGENT_SOCKET: this.socket, AUDIENCE, ...environment }
    const subject = new Subject(service, [
      ...bagcheck('exec', '--name', service.name, '--instance', instance, '--user', String(uid)),
      ...['--units-dir', this.#unitsDirectory],
      ...Object.entries(variables).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
      ...['--', program ?? service.executable, ...service.options, script ?? service.scriptPath],
    ])
    try {
      await subject.ready(this.#unitsDirectory, `${service.name}@${instance}`)
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

  /** Sets the wall clock of the agent and its measurer, and of nobody else. */
  moveAgentClock(seconds: number): void {
    writeFileSync(this.#clock, String(seconds * 1000))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#resources.disposeAsync()
  }
}

interface Made {
  readonly services: readonly Service[]
  readonly publicDirectory: string
  readonly agent: Program
  readonly unitsDirectory: string
  readonly socket: string
  readonly clock: string
}

async function make(
  plan: Parameters<typeof Arena.open>[0],
  resources: AsyncDisposableStack,
): Promise<Made> {
  const scratch = process.env[PRIVATE_ROOT_VARIABLE] ?? ''
  chmodSync(scratch, 0o711)
  const directory = mkdtempSync(join(scratch, 'arena-'))
  resources.defer(() => rmSync(directory, { recursive: true, force: true }))
  chmodSync(directory, 0o755)
  const [publicDirectory, run] = [join(directory, 'public'), join(directory, 'run')]
  mkdirSync(publicDirectory, { mode: 0o755 })
  const daemon = await startDaemon(AbortSignal.timeout(60_000))
  resources.defer(() => void daemon.kill('SIGKILL'))
  const services = await buildServices(await plan(directory), directory)

  const [key, bags] = [join(directory, 'ci.pem'), join(directory, 'bags')]
  cli('keygen', key)
  const roles = services.map((service) => {
    const { closureDigest } = cli('attest', service.root, '--key', key, '--pure', '-o', bags)
    return roleText(service, String(closureDigest), AUDIENCE)
  })
  const trust = join(directory, 'trust')
  const { pin } = cli('policy', 'init', '--installation', 'arena', '-o', trust)
  const keys = join(trust, 'keys')
  copyFileSync(join(directory, 'ci.pub'), join(keys, 'ci.pub'))
  writeFileSync(join(trust, 'policy.yaml'), policyText(roles))
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
  cli('attest', 'submit', bags, '--broker', issuer)

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
      user: '61000',
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
  const clock = join(directory, 'clock')
  writeFileSync(clock, '0', { mode: 0o644 })
  const [node = '', ...args] = source('agent', '--config', agentConfig)
  const moved = `${join(import.meta.dirname, 'moved-clock.ts')}?${encodeURIComponent(clock)}`
  const command = [node, '--import', `file://${moved}`, ...args]
  const agent = resources.use(new Program(command))
  await agent.nextOf(({ msg }) => msg === 'ready')
  return { services, publicDirectory, agent, unitsDirectory, socket, clock }
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

function policyText(roles: readonly string[]): string {
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
${roles.join('')}`
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
