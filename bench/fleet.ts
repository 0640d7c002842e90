// Live workloads of one closure, each a process in a unit of its own, with the packed agent and broker that serve
// them.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { buildBags, startDaemon } from '../packages/cli/src/demo/build.ts'
import { buildWorkload } from './bags.ts'
import { standInForPid1 } from './first-process.ts'
import { openHttp, type HttpClient } from './http.ts'
import { BEARER_AUDIENCE, BEARER_TTL_SECONDS, createInstallation, UID } from './installation.ts'
import type { Running, Usage } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { furnishOne, socketOf, startAgent, startBroker } from './starters.ts'
import { startUnit, type Unit } from './units.ts'

/** An agent, its broker, and what asks them. */
export interface Fleet extends AsyncDisposable {
  /** Where other users reach what lies there. */
  readonly directory: string
  readonly broker: Running
  readonly agent: Running
  /** Starts a workload, which then has a token. */
  start(options?: WorkloadOptions): Promise<Unit>
  /** Starts so many alike. */
  startAll(count: number, options?: WorkloadOptions): Promise<Unit[]>
  /** Tokens that the broker issued so far. */
  issued(): Promise<number>
  /** What the agent counts under that name. */
  agentCounts(name: string): Promise<number>
}

/** What a workload does once it has a token; see workload.pl. */
export interface WorkloadOptions {
  readonly mode?: 'watch' | 'tell' | 'ask'
  readonly ttlSeconds?: number
  /** What it executes or loads, if it is told to. */
  readonly foreign?: string
}

/** Builds the bag, and starts broker and agent. */
export async function openFleet(): Promise<Fleet> {
  await using held = new AsyncDisposableStack()
  const scratch = makeScratch()
  held.defer(() => rmSync(scratch, { recursive: true, force: true }))
  const stopping = new AbortController()
  const daemon = await startDaemon(stopping.signal)
  held.defer(() => void daemon.kill('SIGKILL'))
  const { reports } = await buildBags(scratch, stopping.signal)
  const bag = await buildWorkload(reports)
  held.use(standInForPid1())
  const directory = join(scratch, 'agent')
  const installation = createInstallation(directory, bag.attested)
  const broker = held.use(await startBroker(installation))
  await furnishOne(installation, broker)
  const agent = held.use(await startAgent(installation, broker))
  const brokerHttp = held.use(openHttp({ url: broker.ready['listen'] ?? '' }))
  const agentHttp = held.use(openHttp({ socketPath: socketOf(directory) }))
  const units = held.use(new AsyncDisposableStack())
  let instance = 0
  const start = async ({
    mode = 'watch',
    ttlSeconds = BEARER_TTL_SECONDS,
    foreign = '',
  }: WorkloadOptions = {}): Promise<Unit> => {
    const unit = units.use(
      await startUnit({
        name: 'workload',
        instance: `${(instance += 1)}`,
        unitsDirectory: join(directory, 'units'),
        uid: UID,
        command: bag.command,
        environment: {
          ...{ AGENT_SOCKET: socketOf(directory), AUDIENCE: BEARER_AUDIENCE },
          ...{ TTL: `${ttlSeconds}`, MODE: mode, FOREIGN: foreign },
        },
      }),
    )
    assertToken(await unit.line())
    return unit
  }
  const resources = held.move()
  return {
    directory: scratch,
    broker,
    agent,
    start,
    startAll: async (count, options) => {
      const started: Unit[] = []
      while (started.length < count) started.push(await start(options))
      return started
    },
    issued: () => readCount(brokerHttp, 'bagcheck_broker_tokens_issued_total'),
    agentCounts: (name) => readCount(agentHttp, `bagcheck_agent_${name}`),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** Throws if a workload was answered anything but a token. */
export function assertToken(status: string): void {
  if (!status.includes(' 200 ')) throw new Error(`expected a token, saw ${status}`)
}

/** Resident memory of an agent, front and measurer: what is their own, and the files of Node, which both map, once. */
export function residentBytes(agent: Running): number {
  const usage = agent.usage()
  const own = usage.reduce((sum, each) => sum + each.own, 0)
  return own + Math.max(...usage.map(({ rss, own: apart }) => rss - apart))
}

/** Front and measurer of an agent that root started. */
export function partsOf(agent: Running): readonly [front: Usage, measurer: Usage] {
  const [front, measurer, ...others] = agent.usage()
  if (measurer === undefined || others.length > 0)
    throw new Error(`expected a front and a measurer, saw ${others.length + 1} processes`)
  return [front, measurer]
}

async function readCount(client: HttpClient, name: string): Promise<number> {
  const { text } = await client.send('GET', '/metrics')
  const line = text.split('\n').find((each) => each.startsWith(`${name} `))
  if (line === undefined) throw new Error(`expected a count ${name}`)
  return Number(line.slice(name.length + 1))
}
