// The story of the demo: every part real, in the order in which an operator would meet them, and after
// that the attacks. Each step is also an end-to-end test (test/demo.system.test.ts).
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { NIX_DAEMON_SOCKET, NIX_DATABASE_FILE } from '@bagcheck/nix'
import type { Context } from '../command.ts'
import { CliError } from '../error.ts'
import type { Actor, ActorEvent } from './actor.ts'
import { buildBags, findSpareLibrary, startDaemon, BAGS, type Bag } from './build.ts'
import { policyText, TTL_SECONDS, UNITS, type AttestedRoot } from './policy-text.ts'
import { findFreePort, INSTALLATION, makePlaces, Stage, type Places } from './stage.ts'
import { StoryEnded, Teller, type StepResult, type Told } from './teller.ts'

/** Every step, in order. A test compares this with what is told. */
export const STEPS = [
  'build',
  'attest',
  'trust',
  'broker',
  'publish',
  'enrol',
  'issue',
  'verify',
  'renew',
  'alter',
  'restore',
  'unapproved',
  'successor',
  'preload',
  'user',
  'interpreter',
  'foreign-script',
  'jit-denied',
  'jit-allowed',
  'explain',
  'log',
  'evidence',
  'other-root',
] as const

/** The exported evidence of the first token. */
const BUNDLE = 'token.evidence.json'

/** Longest wait for a service to be answered. */
const ANSWER_MS = 20_000

interface Reason {
  readonly code: string
  readonly message: string
  readonly nearest?: { readonly root: string; readonly firstDifference: string }
}

/** Plays the demo and returns what became of each step. Ends all that it started, however it ends. */
export async function playDemo(
  context: Context,
  keepDirectory: string | undefined,
): Promise<readonly StepResult[]> {
  const places = makePlaces(context.env)
  const stage = new Stage(places, context)
  const teller = new Teller(context)
  const daemon = await startDaemon(context.signal)
  try {
    await new Story(context, stage, teller).play()
    if (keepDirectory !== undefined) keep(places, keepDirectory)
  } catch (error) {
    if (!(error instanceof StoryEnded)) throw error
  } finally {
    context.progress('  … ending what still runs')
    await stage.clear()
    daemon.kill('SIGKILL')
  }
  return teller.results
}

/** Copies what can be looked at after the demo. */
function keep({ directory, trust }: Places, target: string): void {
  mkdirSync(target, { recursive: true })
  copyFileSync(join(directory, BUNDLE), join(target, BUNDLE))
  copyFileSync(join(trust, 'root.json'), join(target, 'root.json'))
  for (const version of [1, 2, 3])
    copyFileSync(join(trust, `policy-v${version}.yaml`), join(target, `policy-v${version}.yaml`))
}

class Story {
  readonly #context: Context
  readonly #stage: Stage
  readonly #places: Places
  readonly #teller: Teller

  // What one step finds out and a later one needs.
  #bags: Readonly<Record<Bag, string>> | undefined
  #attested = new Map<string, AttestedRoot>()
  #pin = ''
  #issuer = ''
  #api: Actor | undefined
  #apiUrl = ''
  #orders: Actor | undefined
  #decision = ''
  #denial = ''

  constructor(context: Context, stage: Stage, teller: Teller) {
    this.#context = context
    this.#stage = stage
    this.#places = stage.places
    this.#teller = teller
  }

  async play(): Promise<void> {
    const teller = this.#teller
    const essential = { essential: true }

    teller.chapter('Build time: real Nix builds bags, CI attests them')
    await teller.step('build', 'Nix builds two services, a hotfix and a next version, sandboxed', () => this.#build(), essential) // prettier-ignore
    await teller.step('attest', 'CI attests each closure: manifest, file list, signature', () => this.#attest(), essential) // prettier-ignore

    teller.chapter('Approval: people sign a policy that gates one role')
    await teller.step('trust', 'A trust root is made, and policy version 1 signed by 2 of 3 people', () => this.#trust(), essential) // prettier-ignore

    teller.chapter('Run time: no attested, approved closure, no token')
    await teller.step('broker', 'The broker starts, with its log', () => this.#startBroker(), essential) // prettier-ignore
    await teller.step('publish', 'Policy and attestations are brought to it and logged', () => this.#publish(), essential) // prettier-ignore
    await teller.step('enrol', 'The agent starts; a signed join token enrols the node, once', () => this.#enrol(), essential) // prettier-ignore
    await teller.step('issue', 'The service asks, its bag is measured, it gets a token', () => this.#issue(), essential) // prettier-ignore
    await teller.step('verify', 'A relying party on a stock OAuth client accepts it', () =>
      this.#verify(),
    )
    await teller.step('renew', 'It is renewed twice at half its life, each time measured again', () => this.#renew()) // prettier-ignore

    teller.chapter('The bag changes')
    await teller.step('alter', 'One data file of the closure is altered: the next renewal is denied', () => this.#alter()) // prettier-ignore
    await teller.step('restore', 'The file is restored: a token is issued again', () =>
      this.#restore(),
    )
    await teller.step('unapproved', 'The next version, attested but not approved: denied', () => this.#unapproved()) // prettier-ignore
    await teller.step('successor', 'The hotfix, approved as successor in policy version 2: both run', () => this.#successor()) // prettier-ignore

    teller.chapter('Attacks')
    await teller.step('preload', 'A library preloaded from outside the store: denied', () => this.#preload()) // prettier-ignore
    await teller.step('user', 'Another user runs the approved program: denied', () => this.#user())
    await teller.step('interpreter', 'The perl service runs its own script: allowed', () => this.#interpreter()) // prettier-ignore
    await teller.step('foreign-script', 'A foreign script in the approved perl: denied', () => this.#foreignScript()) // prettier-ignore
    await teller.step('jit-denied', 'Node makes code at run time, which nobody allowed: denied', () => this.#jitDenied()) // prettier-ignore
    await teller.step('jit-allowed', 'Policy version 3 allows it for this very runtime: allowed', () => this.#jitAllowed()) // prettier-ignore

    teller.chapter('Audit')
    await teller.step('explain', 'Why a process has its token, and why another had none', () => this.#explain()) // prettier-ignore
    await teller.step('log', 'The whole log is read and its root computed anew', () => this.#log())
    await teller.step('evidence', 'The evidence of one token is exported and verified offline', () => this.#evidence()) // prettier-ignore
    await teller.step('other-root', 'The same file against another trust root: refused', () => this.#otherRoot()) // prettier-ignore
  }

  async #build(): Promise<Told> {
    this.#bags = await buildBags(this.#places.directory, this.#context.signal)
    return { seen: BAGS.map((bag) => this.#bag(bag)), facts: this.#bags }
  }

  async #attest(): Promise<Told> {
    const { directory, attestations } = this.#places
    const ciKey = join(directory, 'ci.pem')
    await this.#stage.bagcheck('keygen', ciKey)
    const seen: string[] = []
    for (const bag of BAGS) {
      const key = ['--key', ciKey, '--pure']
      const facts = await this.#stage.bagcheck<{
        root: string
        closureDigest: string
        paths: number
        files: number
      }>('attest', this.#bag(bag), ...key, '-o', attestations)
      this.#attested.set(bag, facts)
      seen.push(
        `${short(facts.root)}: ${facts.paths} paths, ${facts.files} files, closure ${facts.closureDigest.slice(0, 16)}…`,
      )
    }
    return { seen, facts: Object.fromEntries(this.#attested) }
  }

  async #trust(): Promise<Told> {
    const { directory, keys, trust } = this.#places
    const made = await this.#stage.bagcheck<{ pin: string }>(
      ...['policy', 'init', '--installation', INSTALLATION, '-o', trust],
    )
    this.#pin = made.pin
    copyFileSync(join(directory, 'ci.pub'), join(keys, 'ci.pub'))
    const { sha256 } = await this.#signPolicy(1)
    return {
      seen: [`pinned everywhere: sha256:${made.pin}`, `policy version 1: sha256:${sha256}`],
      facts: { pin: made.pin, policy: sha256 },
    }
  }

  async #startBroker(): Promise<Told> {
    const { trust, keys, adminSocket } = this.#places
    const directory = dirname(adminSocket)
    const port = await findFreePort()
    this.#issuer = `http://127.0.0.1:${port}`
    const config = join(directory, 'broker.json')
    writeJson(config, {
      installation: INSTALLATION,
      issuer: this.#issuer,
      stateDir: join(directory, 'state'),
      listen: { host: '127.0.0.1', port, tls: null },
      adminSocket,
      store: { sqlite: 'bagcheck.sqlite' },
      trustRoot: { pin: this.#pin, chain: [join(trust, 'root.json')] },
      logKey: join(keys, 'log.key'),
      decisionKey: join(keys, 'broker.pem'),
    })
    const broker = this.#stage.start('broker', 'broker', '--config', config)
    const ready = await broker.next(({ msg }) => msg === 'ready')
    return { seen: [`listening on ${String(ready['listen'])}`] }
  }

  async #publish(): Promise<Told> {
    const policy = await this.#publishPolicy(1)
    const { attestations } = await this.#stage.bagcheck<{ attestations: { logIndex: number }[] }>(
      ...['attest', 'submit', this.#places.attestations, '--broker', this.#issuer],
    )
    const entries = attestations.map(({ logIndex }) => logIndex)
    return {
      seen: [`log entries: policy ${policy}, attestations ${entries.join(', ')}`],
      facts: { policy, attestations: entries },
    }
  }

  async #enrol(): Promise<Told> {
    const { directory, keys, agentSocket, unitsDirectory } = this.#places
    const joinToken = join(keys, 'join.json')
    const signing = ['--installation', INSTALLATION, '--key', join(keys, 'enrolment.pem')]
    await this.#stage.bagcheck(
      ...['node', 'join-token', ...signing, '--class', 'demo', '-o', joinToken],
    )
    const config = join(unitsDirectory, '..', 'agent.json')
    writeJson(config, {
      installation: INSTALLATION,
      broker: this.#issuer,
      brokerCa: null,
      trustRootPin: this.#pin,
      stateDir: join(directory, 'agent-state'),
      socket: agentSocket,
      unitsDir: unitsDirectory,
      joinToken,
      storeCheckIntervalSeconds: 0,
      nix: { daemonSocket: NIX_DAEMON_SOCKET, database: NIX_DATABASE_FILE },
    })
    const agent = this.#stage.start('agent', 'agent', '--config', config)
    const ready = await agent.next(({ msg }) => msg === 'ready')
    return { seen: [`node ${String(ready['node'])}`], facts: { node: ready['node'] } }
  }

  async #issue(): Promise<Told> {
    const { audience } = UNITS.orders
    this.#api = this.#stage.start(
      ...(['api', 'bagcheck', 'demo', 'api'] as const),
      ...['--issuer', this.#issuer, '--audience', audience],
    )
    const ready = await this.#api.next(({ event }) => event === 'ready')
    this.#apiUrl = String(ready['url'])
    this.#orders = this.#startOrders('orders')
    const token = await nextToken(this.#orders)
    this.#decision = String(token['decision'])
    return {
      seen: [
        `decision ${this.#decision}, entry ${String(token['logIndex'])} in the log`,
        `for role orders, good for ${TTL_SECONDS} s, bound to a key of that process`,
      ],
      facts: token,
    }
  }

  async #verify(): Promise<Told> {
    const call = await this.#running(this.#orders).next(({ event }) => event === 'api')
    if (call['status'] !== 200) throw failed('the relying party refused the token', call)
    return {
      seen: [`subject ${String(call['subject'])}`, `closure ${String(call['closure'])}`],
      facts: call,
    }
  }

  async #renew(): Promise<Told> {
    const orders = this.#running(this.#orders)
    const issued = await nextToken(orders)
    const renewals: ActorEvent[] = []
    let from = orders.since(0).indexOf(issued) + 1
    while (renewals.length < 2) {
      const token = await orders.next(({ event }) => event === 'token', {
        from,
        timeoutMs: ANSWER_MS,
      })
      if (token['renewed'] !== true) throw failed('a token was issued instead of renewed', token)
      from = orders.since(0).indexOf(token) + 1
      renewals.push(token)
    }
    const times = [issued, ...renewals].map(({ at }) => Number(at))
    const gaps = times.slice(1).map((at, index) => ((at - (times[index] ?? at)) / 1000).toFixed(1))
    return { seen: [`renewed after ${gaps.join(' s and ')} s`], facts: { renewals } }
  }

  async #alter(): Promise<Told> {
    const orders = this.#running(this.#orders)
    const { position } = orders
    this.#writeData('{"currency":"EUR","rounding":"up!!"}')
    const { code, reasons, decision } = await nextDenial(orders, position)
    this.#denial = decision
    const file = this.#dataFile()
    expectCode(reasons, 'CONTENT_MISMATCH')
    if (!reasons.some(({ message }) => message.includes(file)))
      throw failed('the denial does not name the file', reasons)
    return { seen: sayReasons(reasons), facts: { code, reasons } }
  }

  async #restore(): Promise<Told> {
    const orders = this.#running(this.#orders)
    const { position } = orders
    this.#writeData('{"currency":"EUR","rounding":"down"}')
    const token = await nextToken(orders, position)
    if (token['renewed'] === true)
      throw failed('after a denial comes an issue, not a renewal', token)
    return { seen: [`issued again: decision ${String(token['decision'])}`], facts: token }
  }

  async #unapproved(): Promise<Told> {
    const service = this.#startOrders('orders', { bag: 'next', instance: 'next' })
    const { reasons } = await nextDenial(service)
    await service.stop()
    const { nearest } = expectCode(reasons, 'CLOSURE_NOT_APPROVED')
    if (nearest?.root !== this.#bag('orders') || !nearest.firstDifference.includes('orders.mjs'))
      throw failed('the nearest approved closure and the first difference were not named', reasons)
    return { seen: sayReasons(reasons), facts: { reasons } }
  }

  async #successor(): Promise<Told> {
    const orders = this.#running(this.#orders)
    const { position } = orders
    await this.#signPolicy(2)
    const entry = await this.#publishPolicy(2)
    const hotfix = this.#startOrders('orders', { bag: 'hotfix', instance: 'hotfix' })
    const first = await nextToken(hotfix)
    const from = hotfix.since(0).indexOf(first) + 1
    // One renewal each while both run.
    const together = orders.position
    const renewed = await Promise.all([nextToken(hotfix, from), nextToken(orders, together)])
    await hotfix.stop()
    const denials = [...orders.since(position), ...hotfix.since(0)].filter(
      ({ event }) => event === 'denied',
    )
    if (denials.length > 0) throw failed('there was a denial', denials)
    return {
      seen: [
        `policy version 2 is entry ${entry} in the log`,
        'orders-1.0 and orders-1.0.1 got and renewed tokens side by side, without one denial',
      ],
      facts: { first, renewed },
    }
  }

  async #preload(): Promise<Told> {
    const library = join(this.#places.directory, 'public/libpreloaded.so')
    copyFileSync(await findSpareLibrary(), library)
    await chmod(library, 0o755)
    const service = this.#startOrders('orders', {
      instance: 'preload',
      environment: { LD_PRELOAD: library },
    })
    const { reasons } = await nextDenial(service)
    await service.stop()
    const { message } = expectCode(reasons, 'FILE_NOT_IN_CLOSURE')
    if (!message.includes(library)) throw failed('the denial does not name the library', reasons)
    return { seen: sayReasons(reasons), facts: { reasons } }
  }

  async #user(): Promise<Told> {
    const service = this.#startOrders('orders', { instance: 'user', uid: 61_009 })
    const { reasons } = await nextDenial(service)
    await service.stop()
    expectCode(reasons, 'UID_NOT_ALLOWED')
    return { seen: sayReasons(reasons), facts: { reasons } }
  }

  async #interpreter(): Promise<Told> {
    const service = this.#startReports(join(this.#bag('reports'), 'lib/reports.pl'))
    const token = await nextToken(service)
    await service.stop()
    return { seen: [`decision ${String(token['decision'])}, role reports`], facts: token }
  }

  async #foreignScript(): Promise<Told> {
    const script = join(this.#places.directory, 'public/reports.pl')
    copyFileSync(join(this.#bag('reports'), 'lib/reports.pl'), script)
    await chmod(script, 0o644)
    const service = this.#startReports(script)
    const { reasons } = await nextDenial(service)
    await service.stop()
    if (!reasons.some(({ message }) => message.includes(script)))
      throw failed('the denial does not name the script', reasons)
    return { seen: sayReasons(reasons), facts: { reasons } }
  }

  async #jitDenied(): Promise<Told> {
    const service = this.#startOrders('pricing')
    const { reasons } = await nextDenial(service)
    await service.stop()
    expectCode(reasons, 'JIT_NOT_ALLOWED')
    return { seen: sayReasons(reasons), facts: { reasons } }
  }

  async #jitAllowed(): Promise<Told> {
    await this.#signPolicy(3)
    const entry = await this.#publishPolicy(3)
    const service = this.#startOrders('pricing')
    const token = await nextToken(service)
    await service.stop()
    return {
      seen: [
        `policy version 3 is entry ${entry} in the log`,
        `decision ${String(token['decision'])}, role pricing`,
      ],
      facts: token,
    }
  }

  async #explain(): Promise<Told> {
    const { unitsDirectory, agentSocket, adminSocket } = this.#places
    const record = readFileSync(join(unitsDirectory, 'orders.json'), 'utf8')
    const { pid } = JSON.parse(record) as { pid: number }
    const options = ['--agent', agentSocket, '--admin', adminSocket]
    const explain = () => this.#context.invoke(['explain', String(pid), ...options], {})
    // The attacks ran under the same unit's name: its newest decision is its own again after a renewal.
    const deadline = Date.now() + TTL_SECONDS * 1000
    let allowed = await explain()
    while (allowed.code === 1 && Date.now() < deadline) {
      await delay(500)
      allowed = await explain()
    }
    const denied = await this.#context.invoke(['explain', this.#denial, ...options], {})
    if (allowed.code !== 0 || denied.code !== 1)
      throw failed('it was not explained', { allowed, denied })
    return { seen: `${allowed.stdout}${denied.stdout}`.trim().split('\n') }
  }

  async #log(): Promise<Told> {
    const args = ['--broker', this.#issuer, '--trust', join(this.#places.trust, 'root.json')]
    const { size } = await this.#stage.bagcheck<{ size: number }>('log', 'verify', ...args)
    return { seen: [`${size} entries give the root that the log signed`], facts: { size } }
  }

  async #evidence(): Promise<Told> {
    const file = this.#bundleFile()
    await this.#stage.bagcheck('evidence', 'export', this.#decision, '-o', file)
    const said = await this.#context.invoke(
      ['evidence', 'verify', file, '--trust', `sha256:${this.#pin}`],
      {},
    )
    if (said.code !== 0) throw failed('the bundle did not verify', said.stderr)
    return { seen: said.stdout.trim().split('\n'), facts: { file: basename(file) } }
  }

  async #otherRoot(): Promise<Told> {
    const other = join(this.#places.directory, 'other')
    await this.#stage.bagcheck('policy', 'init', '--installation', INSTALLATION, '-o', other)
    const root = join(other, 'root.json')
    const answer = await this.#stage.attempt(
      'evidence',
      'verify',
      this.#bundleFile(),
      '--trust',
      root,
    )
    if (answer.code !== 1) throw failed('it was not refused', answer)
    const { code, message } = JSON.parse(answer.stderr) as { code: string; message: string }
    return { seen: [`${code}: ${message}`], facts: { code, message } }
  }

  // What several steps do.

  #bag(bag: Bag): string {
    const root = this.#bags?.[bag]
    if (root === undefined) throw new TypeError(`${bag} is not built`)
    return root
  }

  #running(actor: Actor | undefined): Actor {
    if (actor === undefined) throw new TypeError('the service was not started')
    return actor
  }

  #attestedRoot(bag: Bag): AttestedRoot {
    const attested = this.#attested.get(bag)
    if (attested === undefined) throw new TypeError(`${bag} is not attested`)
    return attested
  }

  #policyFile(version: number): string {
    return join(this.#places.trust, `policy-v${version}/policy.json`)
  }

  /** Writes, compiles and signs a version; two of three people sign. */
  async #signPolicy(version: 1 | 2 | 3): Promise<{ sha256: string }> {
    const { trust, keys } = this.#places
    const source = join(trust, `policy-v${version}.yaml`)
    const node = realpathSync(join(this.#bag('orders'), 'bin/node'))
    const text = policyText({
      version,
      now: this.#context.now(),
      orders: this.#attestedRoot('orders'),
      hotfix: this.#attestedRoot('hotfix'),
      reports: this.#attestedRoot('reports'),
      runtime: createHash('sha256').update(readFileSync(node)).digest('hex'),
    })
    writeFileSync(source, text)
    const file = this.#policyFile(version)
    await this.#stage.bagcheck('policy', 'check', source)
    const compiled = await this.#stage.bagcheck<{ sha256: string }>(
      ...['policy', 'compile', source, '-o', file],
    )
    const previous = version === 1 ? [] : ['--previous', this.#policyFile(version - 1)]
    for (const person of ['policy-1', 'policy-2'])
      await this.#stage.bagcheck(
        ...['policy', 'sign', file, '--key', join(keys, `${person}.pem`), ...previous],
      )
    return compiled
  }

  async #publishPolicy(version: number): Promise<number> {
    const { logIndex } = await this.#stage.bagcheck<{ logIndex: number }>(
      ...['policy', 'publish', this.#policyFile(version), '--broker', this.#issuer],
    )
    return logIndex
  }

  /** Starts a service on Node; with `pricing`, one that may compile at run time. */
  #startOrders(
    unit: 'orders' | 'pricing',
    options: {
      bag?: Bag
      instance?: string
      uid?: number
      environment?: Readonly<Record<string, string>>
    } = {},
  ): Actor {
    const root = this.#bag(options.bag ?? 'orders')
    const { audience } = UNITS[unit]
    const environment = { API_URL: this.#apiUrl, AUDIENCE: audience, ...options.environment }
    return this.#exec(unit, options, environment, [
      join(root, 'bin/node'),
      ...(unit === 'orders' ? ['--jitless'] : []),
      join(root, 'lib/orders.mjs'),
    ])
  }

  #startReports(script: string): Actor {
    const { audience } = UNITS.reports
    const command = [join(this.#bag('reports'), 'bin/perl'), script]
    return this.#exec('reports', {}, { AUDIENCE: audience }, command)
  }

  #exec(
    unit: keyof typeof UNITS,
    { instance, uid = UNITS[unit].uid }: { instance?: string; uid?: number },
    environment: Readonly<Record<string, string>>,
    command: readonly string[],
  ): Actor {
    const { agentSocket, unitsDirectory } = this.#places
    const variables = Object.entries({ AGENT_SOCKET: agentSocket, ...environment })
    return this.#stage.start(
      ...([instance === undefined ? unit : `${unit}@${instance}`, 'bagcheck', 'exec'] as const),
      ...['--name', unit, ...(instance === undefined ? [] : ['--instance', instance])],
      ...['--user', String(uid), '--units-dir', unitsDirectory],
      ...variables.flatMap(([name, value]) => ['--env', `${name}=${value}`]),
      ...['--', ...command],
    )
  }

  #dataFile(): string {
    return join(this.#bag('orders'), 'share/prices.json')
  }

  /** Writes over the data file of the closure, as root can. */
  #writeData(text: string): void {
    writeFileSync(this.#dataFile(), text, { flag: 'r+' })
  }

  #bundleFile(): string {
    return join(this.#places.directory, BUNDLE)
  }
}

/** The next token; a denial instead ends the wait. */
async function nextToken(service: Actor, from = 0): Promise<ActorEvent> {
  const event = await service.next(({ event: kind }) => kind === 'token' || kind === 'denied', {
    from,
    timeoutMs: ANSWER_MS,
  })
  if (event['event'] === 'denied') throw failed(`${service.name} was denied`, event)
  return event
}

async function nextDenial(
  service: Actor,
  from = 0,
): Promise<{ code: string; reasons: readonly Reason[]; decision: string }> {
  // A renewal that was under way may still bring a token.
  const event = await service.next(({ event: kind }) => kind === 'denied', {
    from,
    timeoutMs: ANSWER_MS,
  })
  return {
    code: String(event['code']),
    reasons: (event['reasons'] ?? []) as readonly Reason[],
    decision: String(event['decision']),
  }
}

function expectCode(reasons: readonly Reason[], code: string): Reason {
  const found = reasons.find((reason) => reason.code === code)
  if (found === undefined) throw failed(`it was not denied for ${code}`, reasons)
  return found
}

function sayReasons(reasons: readonly Reason[]): string[] {
  return reasons.map(({ code, message }) => `${code}: ${message}`)
}

function failed(message: string, detail: unknown): CliError {
  return new CliError('DEMO_STEP', message, { detail })
}

const short = (root: string): string => basename(root).slice(33)

function writeJson(file: string, value: unknown): void {
  rmSync(file, { force: true })
  writeFileSync(file, JSON.stringify(value), { mode: 0o600 })
}
