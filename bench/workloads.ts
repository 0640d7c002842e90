// What live workloads cost the agent: a hundred processes of one closure, each in a unit of its own, that hold
// tokens of the default lifetime while the agent renews them.
//
// The agent's two processes are looked at from outside: resident memory, what of it is their own and not the
// program file's, and processor time, over one half-life of the tokens, in which each is renewed once, give or take.
import { setTimeout as sleep } from 'node:timers/promises'
import { effort, format, printBudget } from './budget.ts'
import { openFleet, partsOf, residentBytes, type Fleet } from './fleet.ts'
import { BEARER_TTL_SECONDS } from './installation.ts'
import { printTable } from './statistics.ts'
import { canStartUnits } from './units.ts'

/** Renewals come at half the lifetime, ± 10 %. */
const WINDOW_SECONDS = BEARER_TTL_SECONDS / 2

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  const count = effort(100, 5)
  await using fleet = await openFleet()
  const rows = [await observe('idle', fleet, effort(10, 1))]
  const started = performance.now()
  await fleet.startAll(count)
  const issuing = (performance.now() - started) / 1000
  // Until the first token is due for renewal there is nothing to see.
  await sleep(Math.max(0, WINDOW_SECONDS * 0.9 - issuing) * 1000)
  const last = await observe(`${count} workloads`, fleet, WINDOW_SECONDS)
  rows.push(last)
  printTable(
    ['', 'resident MB', 'front own', 'measurer own', 'renewals', 'seconds', 'cores', 'CPU ms each'],
    rows.map((row) => [
      row.what,
      ...[row.resident, row.front, row.measurer].map((bytes) => (bytes / 1e6).toFixed(0)),
      `${row.renewals}`,
      row.seconds.toFixed(0),
      format(row.cores),
      row.renewals === 0 ? '' : format((row.cores * row.seconds * 1000) / row.renewals),
    ]),
  )
  const what = `agent with ${count} workloads`
  printBudget({ what: `${what}, resident`, limit: 130, unit: 'MB' }, last.resident / 1e6)
  printBudget(
    { what: `${what}, lifetime ${BEARER_TTL_SECONDS} s`, limit: 2, unit: '% of one core' },
    last.cores * 100,
  )
}

interface Observation {
  readonly what: string
  readonly resident: number
  readonly front: number
  readonly measurer: number
  readonly renewals: number
  readonly seconds: number
  /** Processor seconds per second. */
  readonly cores: number
}

async function observe(what: string, fleet: Fleet, wanted: number): Promise<Observation> {
  const { agent } = fleet
  const tokens = await fleet.issued()
  const cpu = agent.cpuSeconds()
  const start = performance.now()
  await sleep(wanted * 1000)
  const seconds = (performance.now() - start) / 1000
  const [front, measurer] = partsOf(agent)
  return {
    what,
    resident: residentBytes(agent),
    front: front.own,
    measurer: measurer.own,
    renewals: (await fleet.issued()) - tokens,
    seconds,
    cores: (agent.cpuSeconds() - cpu) / seconds,
  }
}
