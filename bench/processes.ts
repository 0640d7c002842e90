// The packed executables as processes: how long each takes to be ready, what memory it needs, and what a
// hundred live workloads cost the agent.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { NIX_DAEMON_SOCKET } from '@bagcheck/nix'
import { buildBags, startDaemon } from '../packages/cli/src/demo/build.ts'
import { buildWorkload, type Bag } from './bags.ts'
import { effort, format, printBudget } from './budget.ts'
import { services, type Attested } from './closures.ts'
import { furnish } from './furnish.ts'
import { openHttp } from './http.ts'
import {
  BEARER_AUDIENCE,
  BEARER_TTL_SECONDS,
  createInstallation,
  INSTALLATION,
  UID,
  type Installation,
} from './installation.ts'
import { packedCommand, startPacked, type Running } from './packed.ts'
import { median, printTable, quantile } from './statistics.ts'
import { canStartUnits, startUnit } from './units.ts'

const ISSUER = 'https://broker.bench.test'
const EXECUTABLES = ['bagcheck', 'bagcheck-broker', 'bagcheck-agent'] as const
/** What the budget of the agent's processor time is about: the default lifetime of tokens. */
const DEFAULT_TTL_SECONDS = 300

/** Prints the tables. */
export async function run(): Promise<void> {
  const directory = mkdtempSync('/var/tmp/bagcheck-bench-')
  // The agent's socket lies here, and workloads run as another user.
  chmodSync(directory, 0o711)
  try {
    await startTimes(directory)
    if (canStartUnits()) await workloads(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function startTimes(directory: string): Promise<void> {
  const installation = createInstallation(join(directory, 'start'), services(1))
  const help = {
    bagcheck: [] as number[],
    'bagcheck-broker': [] as number[],
    'bagcheck-agent': [] as number[],
  }
  const broker = { ready: [] as number[], rss: [] as number[] }
  const agent = { ready: [] as number[], rss: [] as number[] }
  // Interleaved, so that a machine whose speed drifts does so for all.
  for (let round = 0; round < effort(20, 2); round += 1) {
    for (const name of EXECUTABLES) help[name].push(helpMs(name))
    await using started = await startBroker(installation)
    broker.ready.push(started.readyMs)
    broker.rss.push(started.rssBytes())
    if (round === 0) await furnishOne(installation, started)
    await using other = await startAgent(installation, started)
    // The first one enrols.
    if (round > 0) agent.ready.push(other.readyMs)
    agent.rss.push(other.rssBytes())
  }
  const row = (name: string, ms: number[], rss: number[]): string[] => [
    name,
    ...[format(median(ms)), format(quantile(ms, 0.95))],
    rss.length > 0 ? (median(rss) / 1e6).toFixed(0) : '',
  ]
  printTable(
    ['', 'p50 ms', 'p95 ms', 'RSS MB'],
    [
      ...EXECUTABLES.map((name) => row(`${name} --help`, help[name], [])),
      row('bagcheck-broker, to ready', broker.ready, broker.rss),
      row('bagcheck-agent, to ready', agent.ready, agent.rss),
    ],
  )
  const slowest = Math.max(median(help.bagcheck), median(broker.ready), median(agent.ready))
  printBudget({ what: 'start of any executable, to ready, p50', limit: 200, unit: 'ms' }, slowest)
}

function helpMs(name: (typeof EXECUTABLES)[number]): number {
  const [file, ...args] = packedCommand(name)
  const start = performance.now()
  const { status, stderr } = spawnSync(file, [...args, '--help'], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${name} --help: ${stderr}`)
  return performance.now() - start
}

async function workloads(directory: string): Promise<void> {
  const stopping = new AbortController()
  const daemon = await startDaemon(stopping.signal)
  try {
    const { reports } = await buildBags(directory, stopping.signal)
    const bag = await buildWorkload(reports)
    const rows: Workloads[] = []
    for (const count of [1, effort(100, 5)])
      rows.push(await serve(join(directory, `agent-${count}`), bag, count))
    printTable(
      [
        'workloads',
        'agent RSS MB',
        'renewals',
        'CPU ms per renewal',
        `cores at TTL ${DEFAULT_TTL_SECONDS} s`,
      ],
      rows.map(({ count, rssBytes, renewals, msPerRenewal, cores }) => [
        `${count}`,
        (rssBytes / 1e6).toFixed(0),
        `${renewals}`,
        format(msPerRenewal),
        format(cores),
      ]),
    )
    const last = rows.at(-1)
    if (last === undefined) return
    const what = `agent with ${last.count} workloads`
    printBudget({ what: `${what}, RSS`, limit: 130, unit: 'MB' }, last.rssBytes / 1e6)
    printBudget({ what, limit: 2, unit: '% of one core' }, last.cores * 100)
  } finally {
    daemon.kill('SIGKILL')
  }
}

interface Workloads {
  readonly count: number
  readonly rssBytes: number
  readonly renewals: number
  readonly msPerRenewal: number
  /** As its renewals and its idle life would take with the default lifetime of tokens. */
  readonly cores: number
}

/** Serves so many workloads, each in a unit of its own, for a while. */
async function serve(directory: string, bag: Bag, count: number): Promise<Workloads> {
  const installation = createInstallation(directory, bag.attested)
  await using held = new AsyncDisposableStack()
  const broker = held.use(await startBroker(installation))
  await furnishOne(installation, broker)
  const agent = held.use(await startAgent(installation, broker))
  const idle = await cpuOver(agent, effort(10, 1))
  for (let instance = 0; instance < count; instance += 1) {
    const unit = held.use(
      await startUnit({
        name: 'workload',
        instance: `${instance}`,
        unitsDirectory: join(directory, 'units'),
        uid: UID,
        command: bag.command,
        environment: { AGENT_SOCKET: socketOf(directory), AUDIENCE: BEARER_AUDIENCE },
      }),
    )
    const status = await unit.firstLine
    if (!status.includes(' 200 ')) throw new Error(`expected a token, saw ${status}`)
  }
  // Renewals come at half the lifetime: in this time each workload has one, or two.
  const seconds = BEARER_TTL_SECONDS * 0.75
  const before = await tokensIssued(broker)
  const busy = await cpuOver(agent, seconds)
  const renewals = (await tokensIssued(broker)) - before
  const msPerRenewal = ((busy - idle) * seconds * 1000) / renewals
  const perSecond = count / (DEFAULT_TTL_SECONDS / 2)
  return {
    count,
    rssBytes: agent.rssBytes(),
    renewals,
    msPerRenewal,
    cores: idle + (perSecond * msPerRenewal) / 1000,
  }
}

/** Share of one core that it takes. */
async function cpuOver(process: Running, seconds: number): Promise<number> {
  const before = process.cpuSeconds()
  await sleep(seconds * 1000)
  return (process.cpuSeconds() - before) / seconds
}

async function tokensIssued(broker: Running): Promise<number> {
  using client = openHttp({ url: broker.ready['listen'] ?? '' })
  const { text } = await client.send('GET', '/metrics')
  const value = /^bagcheck_broker_tokens_issued_total (\d+)$/m.exec(text)?.[1]
  if (value === undefined) throw new Error('expected the broker to count its tokens')
  return Number(value)
}

function startBroker(installation: Installation): Promise<Running> {
  const store = { sqlite: 'bagcheck.sqlite' }
  const config = installation.brokerConfig('broker', { port: 0, issuer: ISSUER, store })
  return startPacked([...packedCommand('bagcheck-broker', 0), '--config', config])
}

async function furnishOne(installation: Installation<Attested>, broker: Running): Promise<void> {
  using client = openHttp({ url: broker.ready['listen'] ?? '' })
  await furnish(installation, [client], { roots: 10, roles: 1 })
}

const socketOf = (directory: string): string => join(`${directory}-run`, 'agent.sock')

function startAgent(installation: Installation, broker: Running): Promise<Running> {
  const { directory, pin } = installation
  mkdirSync(join(directory, 'units'), { recursive: true, mode: 0o700 })
  const joinToken = join(directory, 'join.json')
  writeFileSync(joinToken, installation.joinToken())
  const config = join(directory, 'agent.json')
  writeFileSync(
    config,
    JSON.stringify({
      installation: INSTALLATION,
      broker: broker.ready['listen'],
      issuer: ISSUER,
      trustRootPin: pin,
      stateDir: 'state-agent',
      socket: socketOf(directory),
      unitsDir: 'units',
      joinToken,
      nix: { daemonSocket: NIX_DAEMON_SOCKET },
    }),
  )
  return startPacked([...packedCommand('bagcheck-agent', 1), '--config', config])
}
