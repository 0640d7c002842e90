// What an agent costs while it renews nothing: without workloads, and with a hundred that hold tokens. Processor
// time, how often its threads wake up, and memory, of front and measurer.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { effort, format } from './budget.ts'
import { openFleet, partsOf, residentBytes, type Fleet } from './fleet.ts'
import { printTable } from './statistics.ts'
import { canStartUnits } from './units.ts'

/** With the time it takes to start the workloads, less than nine tenths of half a life. */
const SECONDS = effort(60, 1)
const SETTLE_SECONDS = effort(10, 0.5)

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  await using fleet = await openFleet()
  const count = effort(100, 2)
  const rows = await observe('no workload', fleet)
  await fleet.startAll(count)
  rows.push(...(await observe(`${count} workloads`, fleet)))
  printTable(
    [
      '',
      'CPU ms/minute',
      'wakeups/s',
      'forks/s',
      'RSS MB',
      'PSS MB',
      'own MB',
      'resident MB, both',
    ],
    rows,
  )
}

async function observe(what: string, fleet: Fleet): Promise<string[][]> {
  await sleep(SETTLE_SECONDS * 1000)
  const issued = await fleet.issued()
  const before = partsOf(fleet.agent)
  const forks = hostForks()
  await sleep(SECONDS * 1000)
  const after = partsOf(fleet.agent)
  const forked = hostForks() - forks
  const renewals = (await fleet.issued()) - issued
  if (renewals > 0) console.log(`${what}: ${renewals} renewals fell into it`)
  return (['front', 'measurer'] as const).map((part, index) => {
    const [from, to] = [before[index], after[index]]
    if (from === undefined || to === undefined) throw new TypeError('there are two parts')
    return [
      `${what}, ${part}`,
      (((to.cpuSeconds - from.cpuSeconds) * 60_000) / SECONDS).toFixed(0),
      format((to.wakeups - from.wakeups) / SECONDS),
      index === 1 ? format(forked / SECONDS) : '',
      ...[to.rss, to.pss, to.own].map((bytes) => (bytes / 1e6).toFixed(0)),
      index === 1 ? (residentBytes(fleet.agent) / 1e6).toFixed(0) : '',
    ]
  })
}

/** Processes and threads that were ever started here, proc_stat(5): of each the kernel tells the measurer. */
function hostForks(): number {
  return Number(/^processes (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1])
}
