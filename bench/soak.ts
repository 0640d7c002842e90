// Ordinary work under the gate: services on the runtimes that this machine has, each doing what such programs do
// and asking for a token every second or so. Every denial of them is a false one. By default an hour; the number of
// minutes can be given in BAGCHECK_SOAK_MINUTES.
import { join } from 'node:path'
import { Arena, type Answer, type Subject } from '../packages/cli/test/attacks/arena.ts'
import {
  javaRuntime,
  nodeRuntime,
  perlRuntime,
  pythonRuntime,
  type ServicePlan,
} from '../packages/cli/test/attacks/services.ts'
import { effort } from './budget.ts'
import { canStartUnits } from './units.ts'

const WORK = join(import.meta.dirname, '../packages/cli/test/attacks/work')
const MINUTES = Number(process.env['BAGCHECK_SOAK_MINUTES'] ?? effort(60, 0.2))
const PROGRESS_MS = 5 * 60_000

/** What one service was answered. */
interface Tally {
  tokens: number
  readonly denials: Map<string, number>
}

/** Runs the services side by side and prints what they were answered. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  await using arena = await Arena.open(plans)
  const deadline = Date.now() + MINUTES * 60_000
  const rows = await Promise.all(
    arena.services.map(async (service) => {
      await using subject = await arena.start(service)
      return { name: service.name, ...(await tally(service.name, subject, deadline)) }
    }),
  )
  console.log(`${MINUTES} minutes of ordinary work\n`)
  console.log(
    '| service | measured and judged | denied | false positives |\n| --- | --- | --- | --- |',
  )
  for (const { name, tokens, denials } of rows) {
    const denied = [...denials.values()].reduce((sum, count) => sum + count, 0)
    const codes = [...denials].map(([code, count]) => ` ${code} × ${count}`).join(',')
    const rate = ((100 * denied) / (tokens + denied)).toFixed(3)
    console.log(`| ${name} | ${tokens + denied} | ${denied}${codes} | ${rate} % |`)
  }
}

async function tally(name: string, subject: Subject, deadline: number): Promise<Tally> {
  const seen: Tally = { tokens: 0, denials: new Map() }
  let told = Date.now()
  while (Date.now() < deadline) {
    const answer = (await subject.next()) as Answer
    if (answer.token === true) seen.tokens += 1
    else {
      const code = answer.code ?? 'none'
      seen.denials.set(code, (seen.denials.get(code) ?? 0) + 1)
      console.error(`${name}: ${JSON.stringify(answer)}`)
    }
    if (Date.now() - told > PROGRESS_MS) {
      told = Date.now()
      console.error(`${name}: ${seen.tokens} tokens so far`)
    }
  }
  return seen
}

async function plans(scratch: string): Promise<ServicePlan[]> {
  const work = (file: string): string => join(WORK, file)
  const jit = { maxRegions: 4096, maxBytes: 2 ** 30 }
  const [python, java] = [pythonRuntime(scratch), javaRuntime(scratch)]
  if (python === undefined) console.log('python: left out, Debian’s python3 is not installed')
  if (java === undefined) console.log('java: left out, no JVM of Debian is installed')
  const all: (Omit<ServicePlan, 'uid'> | undefined)[] = [
    { name: 'perl', script: work('work.pl'), options: [], runtime: await perlRuntime() },
    { name: 'node', script: work('work.mjs'), options: [], runtime: nodeRuntime, jit },
    {
      name: 'node-jitless',
      script: work('work.mjs'),
      options: ['--jitless'],
      runtime: nodeRuntime,
    },
    python && { name: 'python', script: work('work.py'), options: ['-I', '-B'], runtime: python },
    java && { name: 'java', script: work('Work.java'), options: [], runtime: java, jit },
  ]
  return all
    .filter((plan) => plan !== undefined)
    .map((plan, index) => ({ ...plan, uid: 61_080 + index }))
}
