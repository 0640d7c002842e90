// Measuring live processes with the agent's own measurer thread, packed: interpreters of the demo, whose
// files all lie in the store, each as a unit with a recorded launch contract. Cold: nothing is remembered
// of the files, which are in the page cache. Warm: as at a renewal.
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { STORE_DIR } from '@bagcheck/nix'
import type {
  Measurement,
  MeasureReply,
  MeasurerOptions,
  ProcessInstance,
} from '../packages/agent/src/measure/messages.ts'
import { sharedMemoryDevice } from '../packages/agent/src/peer.ts'
import { buildBags, startDaemon } from '../packages/cli/src/demo/build.ts'
import { effort, format, printBudget } from './budget.ts'
import { UID } from './installation.ts'
import { DIST } from './packed.ts'
import { median, printTable, quantile } from './statistics.ts'
import { canStartUnits, startUnit, type Unit } from './units.ts'

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  const directory = mkdtempSync('/var/tmp/bagcheck-bench-')
  const stopping = new AbortController()
  const daemon = await startDaemon(stopping.signal)
  try {
    const bags = await buildBags(directory, stopping.signal)
    const node = realpathSync(join(bags.orders, 'bin/node'))
    const perl = realpathSync(join(bags.reports, 'bin/perl'))
    const rows = [
      await measure('perl', directory, [perl, '-e', 'sleep']),
      await measure('node --jitless', directory, [
        node,
        '--jitless',
        '-e',
        'setInterval(Date, 1e9)',
      ]),
    ]
    printTable(
      ['', 'mappings', 'mapped files', 'MB', 'cold ms', 'warm p50 ms', 'warm p99 ms'],
      rows.map(({ name, mappings, files, bytes, cold, warm }) => [
        name,
        `${mappings}`,
        `${files}`,
        format(bytes / 1e6),
        format(median(cold)),
        format(median(warm)),
        format(quantile(warm, 0.99)),
      ]),
    )
    const slowest = Math.max(...rows.map(({ warm }) => median(warm)))
    printBudget({ what: 'measuring an ordinary process, warm', limit: 5, unit: 'ms' }, slowest)
  } finally {
    daemon.kill('SIGKILL')
    rmSync(directory, { recursive: true })
  }
}

interface Row {
  readonly name: string
  readonly mappings: number
  readonly files: number
  readonly bytes: number
  readonly cold: number[]
  readonly warm: number[]
}

async function measure(
  name: string,
  directory: string,
  command: [string, ...string[]],
): Promise<Row> {
  const unitsDirectory = join(directory, 'units')
  await using unit = await startUnit({
    ...{ name: 'bench', instance: '1', unitsDirectory, uid: UID, command },
  })
  // Something that shares no file with it gets a measurer's thread going before it is timed.
  const idle = ['/bin/busybox', 'sleep', '1000'] as const
  await using other = await startUnit({
    ...{ name: 'other', instance: '1', unitsDirectory, uid: UID, command: realCommand(idle) },
  })
  await settle(unit)
  const options = {
    unitsDir: unitsDirectory,
    ociStateDirs: [],
    storeDir: STORE_DIR,
    sharedMemoryDevice: sharedMemoryDevice(),
  }
  const cold: number[] = []
  const warm: number[] = []
  let measurement: Measurement | undefined
  for (let round = 0; round < effort(5, 1); round += 1) {
    await using measurer = openMeasurer(options)
    await measurer.measure(other.instance)
    const timed = async (): Promise<number> => {
      const start = performance.now()
      measurement = await measurer.measure(unit.instance)
      return performance.now() - start
    }
    cold.push(await timed())
    for (let index = 0; index < effort(200, 5); index += 1) warm.push(await timed())
  }
  const [process] = measurement?.processes ?? []
  if (measurement?.unit.contract?.intact !== true || process === undefined)
    throw new Error('expected a unit with an intact contract')
  const files = [process.executable, ...process.files]
  if (!files.every(({ isStoreFile }) => isStoreFile)) throw new Error('expected store files only')
  return {
    name,
    mappings: readMaps(unit.pid).length,
    files: files.length,
    bytes: files.reduce((sum, { path }) => sum + readFileSync(path).length, 0),
    cold,
    warm,
  }
}

const realCommand = ([program, ...args]: readonly [string, ...string[]]): [string, ...string[]] => [
  realpathSync(program),
  ...args,
]

const readMaps = (pid: number): string[] =>
  readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n')

/** Waits until the program has mapped what it maps. */
async function settle({ pid }: Unit): Promise<void> {
  for (let before = -1; ;) {
    const count = readMaps(pid).length
    if (count === before) return
    before = count
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

interface OpenMeasurer extends AsyncDisposable {
  measure(instance: ProcessInstance): Promise<Measurement>
}

/** The packed measurer in a thread of its own, one request at a time. */
function openMeasurer(options: MeasurerOptions): OpenMeasurer {
  const file = join(DIST, 'bagcheck-agent.measure-worker.mjs')
  const worker = new Worker(file, { workerData: options, execArgv: [] })
  let id = 0
  return {
    measure: async (instance) => {
      worker.postMessage({ id: (id += 1), instance })
      const [reply] = (await once(worker, 'message')) as [MeasureReply]
      if (!reply.ok) throw new Error(`${reply.code}: ${reply.message}`)
      if (!('measurement' in reply)) throw new TypeError('expected a measurement')
      return reply.measurement
    },
    [Symbol.asyncDispose]: async () => {
      await worker.terminate()
    },
  }
}
