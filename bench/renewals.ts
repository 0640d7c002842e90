// How many renewals one agent sustains, and what each costs front, measurer and broker.
//
// As fast as it goes: workloads ask anew in turn, so many at a time, in a closed loop. What the agent does for each is
// what it does for a renewal (challenge, measurement, store, evidence, exchange), and the request besides. At its own
// pace: nobody asks, and the agent renews 1,000 tokens of the default lifetime at half their lives.
import { setTimeout as sleep } from 'node:timers/promises'
import { effort, format } from './budget.ts'
import { assertToken, openFleet, partsOf, type Fleet } from './fleet.ts'
import { BEARER_TTL_SECONDS } from './installation.ts'
import { median, printTable, quantile } from './statistics.ts'
import { canStartUnits, type Unit } from './units.ts'

const AT_A_TIME = 8
/** Shorter than 100 workloads, which may ask twenty times and then once a second, could be kept from asking. */
const SECONDS = effort(30, 1)

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  await using fleet = await openFleet()
  const rows: string[][] = []
  const units: Unit[] = []
  for (const count of [effort(100, 10), effort(1000, 20)]) {
    const start = performance.now()
    units.push(...(await fleet.startAll(count - units.length, { mode: 'ask' })))
    const seconds = (performance.now() - start) / 1000
    console.log(`${count} workloads: the last of them were started in ${format(seconds)} s`)
    const latencies: number[] = []
    const row = await observe(fleet, () => askInTurn(units, latencies))
    const name = `${count} workloads, ${AT_A_TIME} at a time`
    rows.push([name, ...row, format(median(latencies)), format(quantile(latencies, 0.95))])
  }
  // Each has asked at most so long ago; after most of half a life their renewals begin.
  await sleep(Math.max(0, (BEARER_TTL_SECONDS / 2) * 0.9 - SECONDS) * 1000)
  const own = await observe(fleet, () => sleep((BEARER_TTL_SECONDS / 2) * 1000))
  rows.push([`${units.length} workloads, lifetime ${BEARER_TTL_SECONDS} s`, ...own, '', ''])
  printTable(
    [
      ...['', 'renewals', '/s', 'front ms each', 'measurer ms each', 'broker ms each'],
      ...['agent cores', 'broker cores', 'p50 ms', 'p95 ms'],
    ],
    rows,
  )
  const held = await fleet.agentCounts('tokens_held')
  console.log(`tokens held at the end: ${held} of ${units.length}`)
  if (held !== units.length) throw new Error('expected every workload to hold a token')
}

/** Asks in the name of each unit in turn until the time is up. */
async function askInTurn(units: readonly Unit[], latencies: number[]): Promise<void> {
  const end = performance.now() + SECONDS * 1000
  const queue = [...units]
  const ask = async (): Promise<void> => {
    while (performance.now() < end) {
      const unit = queue.shift() as Unit // more units than asked at a time
      const start = performance.now()
      unit.say('')
      assertToken(await unit.line())
      latencies.push(performance.now() - start)
      queue.push(unit)
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_A_TIME, units.length) }, ask))
}

/** Renewals, their rate, processor time of each part for each, and how busy agent and broker were. */
async function observe(fleet: Fleet, work: () => Promise<unknown>): Promise<string[]> {
  const look = async (): Promise<number[]> => {
    const cpu = [...partsOf(fleet.agent).map((part) => part.cpuSeconds), fleet.broker.cpuSeconds()]
    return [await fleet.issued(), performance.now() / 1000, ...cpu]
  }
  const before = await look()
  await work()
  const after = await look()
  const [issued = 0, seconds = 0, front = 0, measurer = 0, broker = 0] = after.map(
    (value, index) => value - (before[index] ?? 0),
  )
  return [
    ...[`${issued}`, format(issued / seconds)],
    ...[front, measurer, broker].map((part) => format((part * 1000) / issued)),
    ...[front + measurer, broker].map((part) => format(part / seconds)),
  ]
}
