// A day's renewals in minutes: a hundred workloads whose tokens live for as short a time as policy may say, five
// seconds, so that the agent renews sixty times as often as with the default. Memory of front and measurer must be at
// the end what it was when all had begun. BAGCHECK_BENCH_RENEWALS sets how many; a day of 100 workloads is 57,600.
import { setTimeout as sleep } from 'node:timers/promises'
import { effort, format } from './budget.ts'
import { openFleet, partsOf, residentBytes, type Fleet } from './fleet.ts'
import { printTable } from './statistics.ts'
import { canStartUnits } from './units.ts'

const TTL_SECONDS = 5
const RENEWALS = Number(process.env['BAGCHECK_BENCH_RENEWALS'] ?? effort(57_600, 20))
const AT = [0, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1]

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  await using fleet = await openFleet()
  const count = effort(100, 5)
  await fleet.startAll(count, { ttlSeconds: TTL_SECONDS })
  const [from, start] = [await fleet.issued(), performance.now()]
  const rows: string[][] = []
  const residents: number[] = []
  for (const share of AT) {
    let done = 0
    while ((done = (await fleet.issued()) - from) < share * RENEWALS) await sleep(1000)
    const resident = await leastResident(fleet)
    residents.push(resident)
    const minutes = (performance.now() - start) / 60_000
    const parts = partsOf(fleet.agent)
    rows.push([
      `${done}`,
      format(minutes),
      (resident / 1e6).toFixed(1),
      ...parts.flatMap(({ own, pss }) => [(own / 1e6).toFixed(1), (pss / 1e6).toFixed(1)]),
    ])
    console.error(`${done} of ${RENEWALS} renewals after ${format(minutes)} minutes`)
  }
  printTable(
    [
      ...['renewals', 'minutes', 'resident MB', 'front own', 'front PSS'],
      ...['measurer own', 'measurer PSS'],
    ],
    rows,
  )
  const [end = 0, tenth = 0] = [residents.at(-1), residents[AT.indexOf(0.1)]]
  console.log(`at the end ${format(end / tenth)} × what it was after a tenth`)
  const held = await fleet.agentCounts('tokens_held')
  if (held < count) throw new Error(`expected ${count} tokens to be held, saw ${held}`)
}

/** The least of some looks: what garbage there is comes and goes. */
async function leastResident({ agent }: Fleet): Promise<number> {
  const looks: number[] = []
  while (looks.length < effort(10, 2)) {
    looks.push(residentBytes(agent))
    await sleep(300)
  }
  return Math.min(...looks)
}
