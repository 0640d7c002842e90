// Issuance by the packed broker: challenge, evidence signed, verified, decided, logged durably, token
// signed. The broker has core 0; this process, which signs the evidence and sends it, has core 1. With two
// replicas the second shares core 1 with us, and PostgreSQL has both cores: there is no third.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, rmSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { findPostgres, startPostgres } from '../packages/testkit/src/index.ts'
import { effort, format, printBudget } from './budget.ts'
import { services, type Service } from './closures.ts'
import { furnish } from './furnish.ts'
import { openHttp } from './http.ts'
import { createInstallation, type BrokerOptions, type Installation } from './installation.ts'
import { paced, saturate, type Action } from './load.ts'
import { enrolNode } from './node.ts'
import { packedCommand, startPacked, type Running } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { printTable, quantile } from './statistics.ts'

const ISSUER = 'https://broker.bench.test'
const NODES = 64
const SERVICES = 8
const CONCURRENCY = 32

interface Figures {
  readonly tokensPerSecond: number
  readonly latenciesMs: readonly number[]
  readonly rssBytes: number
  readonly brokerCores: number
  readonly generatorCores: number
}

/** Prints the table. */
export async function run(): Promise<void> {
  // A real file system: what is durable is what is measured.
  const directory = makeScratch()
  const cores = pin('1')
  try {
    const installation = createInstallation(join(directory, 'sqlite'), services(SERVICES))
    const sqlite = await measure(installation, 1, { sqlite: 'bagcheck.sqlite' })
    const rows = [row('SQLite, 1 broker', sqlite)]
    const postgres = await measurePostgres(directory)
    if (postgres !== undefined) {
      rows.push(row('PostgreSQL, 1 broker', postgres.one))
      rows.push(row('PostgreSQL, 2 replicas', postgres.two))
    }
    printTable(
      [
        ...['', `tokens/s at ${CONCURRENCY}`, 'p50 ms at half', 'p95 ms', 'p99 ms'],
        ...['RSS MB', 'CPU ms/token', 'broker cores', 'generator cores'],
      ],
      rows,
    )
    printBudget(
      { what: 'issuance on SQLite', limit: 1000, unit: 'tokens/s', atLeast: true },
      sqlite.tokensPerSecond,
    )
    printBudget(
      { what: 'p99 at half that load', limit: 50, unit: 'ms' },
      quantile(sqlite.latenciesMs, 0.99),
    )
    if (postgres !== undefined)
      printBudget(
        { what: 'issuance on PostgreSQL, 2 replicas', limit: 800, unit: 'tokens/s', atLeast: true },
        postgres.two.tokensPerSecond,
      )
  } finally {
    if (cores !== undefined) pin(cores)
    rmSync(directory, { recursive: true })
  }
}

async function measurePostgres(
  directory: string,
): Promise<{ one: Figures; two: Figures } | undefined> {
  if (findPostgres() === undefined) {
    console.log('PostgreSQL is not installed: its rows are left out')
    return undefined
  }
  await using server = await startPostgres()
  const on = async (name: string, replicas: number): Promise<Figures> => {
    const store = { postgres: await server.createDatabase(name) }
    return measure(createInstallation(join(directory, name), services(SERVICES)), replicas, store)
  }
  return { one: await on('one', 1), two: await on('two', 2) }
}

/** Throughput at saturation, then latency at half of it. */
async function measure(
  installation: Installation<Service>,
  replicas: number,
  store: BrokerOptions['store'],
): Promise<Figures> {
  await using started = new AsyncDisposableStack()
  const brokers: Running[] = []
  for (let replica = 0; replica < replicas; replica += 1) {
    if (replica > 0) shareSecrets(installation, replica)
    const options = { port: 0, issuer: ISSUER, store }
    const config = installation.brokerConfig(`broker-${replica}`, options)
    const command = [...packedCommand('bagcheck-broker', replica), '--config', config]
    brokers.push(started.use(await startPacked(command)))
  }
  const clients = brokers.map(({ ready }) => started.use(openHttp({ url: ready['listen'] ?? '' })))
  await furnish(installation, clients, { roots: 1_000, roles: 10 })
  const [first] = clients
  if (first === undefined) throw new TypeError('expected a broker')
  const nodes = await Promise.all(
    Array.from({ length: NODES }, () => enrolNode(installation, first, ISSUER)),
  )
  const indices = new Set<number>()
  let tokens = 0
  const action: Action = async (index) => {
    const node = nodes[index % nodes.length]
    const service = installation.services[index % installation.services.length]
    const challenge = clients[index % clients.length]
    const token = clients[(index >> 1) % clients.length]
    if (!node || !service || !challenge) throw new TypeError('expected nodes and services')
    tokens += 1
    indices.add(await node.issue(service, challenge, token))
  }
  const load = { concurrency: CONCURRENCY, seconds: effort(10, 0.5) }
  await saturate(action, { ...load, seconds: effort(3, 0.5) })
  const before = { broker: cpuSeconds(brokers), own: process.cpuUsage(), at: performance.now() }
  const tokensPerSecond = await saturate(action, load)
  const seconds = (performance.now() - before.at) / 1000
  const own = process.cpuUsage(before.own)
  const brokerCores = (cpuSeconds(brokers) - before.broker) / seconds
  const latenciesMs = await paced(action, {
    perSecond: tokensPerSecond / 2,
    seconds: effort(10, 0.5),
  })
  if (indices.size !== tokens) throw new Error('two tokens have one entry of the log')
  return {
    tokensPerSecond,
    latenciesMs,
    rssBytes: brokers.reduce((sum, broker) => sum + broker.rssBytes(), 0),
    brokerCores,
    generatorCores: (own.user + own.system) / 1e6 / seconds,
  }
}

/** Replicas answer for each other: they share the keys that the first one made. */
function shareSecrets(installation: Installation<Service>, replica: number): void {
  const stateOf = (index: number): string => join(installation.directory, `state-broker-${index}`)
  mkdirSync(stateOf(replica), { mode: 0o700 })
  for (const name of ['token-key.pem', 'nonce.key'])
    copyFileSync(join(stateOf(0), name), join(stateOf(replica), name))
}

const cpuSeconds = (brokers: readonly Running[]): number =>
  brokers.reduce((sum, broker) => sum + broker.cpuSeconds(), 0)

function row(name: string, figures: Figures): string[] {
  const { tokensPerSecond, latenciesMs, rssBytes, brokerCores, generatorCores } = figures
  return [
    name,
    tokensPerSecond.toFixed(0),
    ...[0.5, 0.95, 0.99].map((q) => format(quantile(latenciesMs, q))),
    (rssBytes / 1e6).toFixed(0),
    format((brokerCores * 1000) / tokensPerSecond),
    brokerCores.toFixed(2),
    generatorCores.toFixed(2),
  ]
}

/** Moves all threads of this process to `cores`; returns where they were, or undefined on one core. */
function pin(cores: string): string | undefined {
  if (cpus().length < 2) return undefined
  const taskset = (...args: string[]): string =>
    spawnSync('taskset', ['--all-tasks', '--cpu-list', ...args], { encoding: 'utf8' }).stdout
  const before = /list: (\S+)$/m.exec(taskset('--pid', `${process.pid}`))?.[1]
  taskset('--pid', cores, `${process.pid}`)
  return before
}
