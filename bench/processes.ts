// The packed executables as processes: how long each takes to be ready, and what memory it needs then.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { effort, format, printBudget } from './budget.ts'
import { services } from './closures.ts'
import { createInstallation } from './installation.ts'
import { packedCommand } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { furnishOne, startAgent, startBroker } from './starters.ts'
import { median, printTable, quantile } from './statistics.ts'

const EXECUTABLES = ['bagcheck', 'bagcheck-broker', 'bagcheck-agent'] as const

/** Prints the table. */
export async function run(): Promise<void> {
  const directory = makeScratch()
  try {
    await startTimes(directory)
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
