// A broker's store in a process of its own, to be killed. Commits one decision after the other (or, with
// a crash point, three at once after reopening) and writes the id of each to stdout once it is answered.
//   argv: engine (JSON), crash point or "", first number, how many
import { writeSync } from 'node:fs'
import { CRASH_POINTS } from '../../src/store/crash-point.ts'
import { decision, open } from './fixtures.ts'

const [engineJson = '', crashPoint = '', first = '', count = ''] = process.argv.slice(2)
const engine = JSON.parse(engineJson)
const start = Number(first)

async function commit(store: Awaited<ReturnType<typeof open>>, i: number): Promise<void> {
  await store.commitDecision(decision(i))
  writeSync(1, `decision-${i}\n`)
}

const store = await open(engine)
for (let i = start; i < start + Number(count); i++) await commit(store, i)
await store.close()
const testingOnlyCrashAt = CRASH_POINTS.find((point) => point === crashPoint)
if (testingOnlyCrashAt !== undefined) {
  const crashing = await open(engine, { testingOnlyCrashAt })
  await Promise.all([0, 1, 2].map((i) => commit(crashing, start + Number(count) + i)))
}
