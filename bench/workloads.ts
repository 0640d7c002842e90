// What live workloads cost the agent: a hundred processes of one closure, each in a unit of its own, that hold
// tokens of the default lifetime while the agent renews them.
//
// The agent's one process is looked at from outside: resident memory of all its threads, what of it is its own
// and not the program file's, the most it ever was, and processor time, over one half-life of the tokens, in
// which each is renewed once, give or take.
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildBags, startDaemon } from '../packages/cli/src/demo/build.ts'
import { buildWorkload, type Bag } from './bags.ts'
import { effort, format, printBudget } from './budget.ts'
import { openHttp } from './http.ts'
import { BEARER_AUDIENCE, BEARER_TTL_SECONDS, createInstallation, UID } from './installation.ts'
import type { Running } from './packed.ts'
import { furnishOne, socketOf, startAgent, startBroker } from './starters.ts'
import { printTable } from './statistics.ts'
import { canStartUnits, startUnit } from './units.ts'

/** Renewals come at half the lifetime, ± 10 %. */
const WINDOW_SECONDS = BEARER_TTL_SECONDS / 2

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  const directory = mkdtempSync('/var/tmp/bagcheck-bench-')
  // The agent's socket lies here, and workloads run as another user.
  chmodSync(directory, 0o711)
  const stopping = new AbortController()
  const daemon = await startDaemon(stopping.signal)
  try {
    const { reports } = await buildBags(directory, stopping.signal)
    const bag = await buildWorkload(reports)
    await serve(join(directory, 'agent'), bag, effort(100, 5))
  } finally {
    daemon.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  }
}

async function serve(directory: string, bag: Bag, count: number): Promise<void> {
  const installation = createInstallation(directory, bag.attested)
  await using held = new AsyncDisposableStack()
  const broker = held.use(await startBroker(installation))
  await furnishOne(installation, broker)
  const agent = held.use(await startAgent(installation, broker))
  const rows = [await observe('idle', agent, broker, effort(10, 1))]
  const started = performance.now()
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
  const issuing = (performance.now() - started) / 1000
  // Until the first token is due for renewal there is nothing to see.
  await sleep(Math.max(0, WINDOW_SECONDS * 0.9 - issuing) * 1000)
  const last = await observe(`${count} workloads`, agent, broker, WINDOW_SECONDS)
  rows.push(last)
  printTable(
    ['agent', 'RSS MB', 'of it its own', 'at most', 'renewals', 'seconds', 'cores', 'CPU ms each'],
    rows.map((row) => [
      row.what,
      ...[row.rss, row.own, row.peak].map((bytes) => (bytes / 1e6).toFixed(0)),
      `${row.renewals}`,
      row.seconds.toFixed(0),
      format(row.cores),
      row.renewals === 0 ? '' : format((row.cores * row.seconds * 1000) / row.renewals),
    ]),
  )
  const what = `agent with ${count} workloads`
  printBudget({ what: `${what}, RSS`, limit: 130, unit: 'MB' }, last.rss / 1e6)
  printBudget(
    { what: `${what}, lifetime ${BEARER_TTL_SECONDS} s`, limit: 2, unit: '% of one core' },
    last.cores * 100,
  )
}

interface Observation {
  readonly what: string
  readonly rss: number
  readonly own: number
  readonly peak: number
  readonly renewals: number
  readonly seconds: number
  /** Processor seconds per second. */
  readonly cores: number
}

async function observe(
  what: string,
  agent: Running,
  broker: Running,
  wanted: number,
): Promise<Observation> {
  const tokens = await tokensIssued(broker)
  const cpu = agent.cpuSeconds()
  const start = performance.now()
  await sleep(wanted * 1000)
  const seconds = (performance.now() - start) / 1000
  return {
    what,
    ...memoryOf(agent.pid),
    renewals: (await tokensIssued(broker)) - tokens,
    seconds,
    cores: (agent.cpuSeconds() - cpu) / seconds,
  }
}

/** proc_pid_status(5). */
function memoryOf(pid: number): { rss: number; own: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024
  return { rss: bytes('VmRSS'), own: bytes('RssAnon'), peak: bytes('VmHWM') }
}

async function tokensIssued(broker: Running): Promise<number> {
  using client = openHttp({ url: broker.ready['listen'] ?? '' })
  const { text } = await client.send('GET', '/metrics')
  const value = /^bagcheck_broker_tokens_issued_total (\d+)$/m.exec(text)?.[1]
  if (value === undefined) throw new Error('expected the broker to count its tokens')
  return Number(value)
}
