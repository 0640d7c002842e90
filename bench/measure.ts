// Measuring live processes as the front does: by a question to the packed measurer, a process of its own, over its
// socket. The programs are interpreters of the demo, whose files all lie in the store, each a unit with a
// recorded launch contract. Cold: nothing is remembered of the files, which are in the page cache. Warm: as at a
// renewal.
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { readFileSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { STORE_DIR } from '@bagcheck/nix'
import type { MeasurerSettings } from '../packages/agent/src/config.ts'
import { MeasurerClient } from '../packages/agent/src/front/measurer-client.ts'
import type { SettledMeasurement } from '../packages/agent/src/measure/messages.ts'
import { buildBags, startDaemon } from '../packages/cli/src/demo/build.ts'
import { effort, format, printBudget, SHORT } from './budget.ts'
import { standInForPid1 } from './first-process.ts'
import { UID } from './installation.ts'
import { DIST } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { MAPPINGS, shaped } from './shapes.ts'
import { median, printTable, quantile } from './statistics.ts'
import { canStartUnits, startUnit, type Unit } from './units.ts'

const COUNTS = SHORT ? [50, 500] : [50, 500, 5000, 20_000]
const PROCESSES = SHORT ? [1, 10] : [1, 10, 50, 200]
/** Of one program: a unit that takes more than half of a thread's time has to rest. */
const MAX_MS = 4000

/** Prints the tables. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  const directory = makeScratch()
  const stopping = new AbortController()
  const daemon = await startDaemon(stopping.signal)
  try {
    const bags = await buildBags(directory, stopping.signal)
    using _first = standInForPid1()
    const node = realpathSync(join(bags.orders, 'bin/node'))
    const perl = realpathSync(join(bags.reports, 'bin/perl'))
    const program = [node, '--jitless', '-e', 'console.log(); setInterval(Date, 1e9)'] as const
    const ordinary = [
      await measure('perl', directory, shaped(perl, {})),
      await measure('node --jitless', directory, [...program]),
    ]
    print(ordinary)
    const slowest = Math.max(...ordinary.map(({ warm }) => median(warm)))
    printBudget({ what: 'measuring an ordinary process, warm', limit: 5, unit: 'ms' }, slowest)
    console.log('\nby mappings of one process')
    for (const kind of MAPPINGS) {
      const rows: Row[] = []
      for (const mappings of COUNTS)
        rows.push(await measure(kind, directory, shaped(perl, { kind, mappings })))
      print(rows)
      printSlope(rows, ({ mappings }) => mappings / 1000, '1,000 mappings')
    }
    console.log('\nby processes of one unit')
    const rows: Row[] = []
    for (const processes of PROCESSES)
      rows.push(await measure('perl', directory, shaped(perl, { processes })))
    print(rows)
    printSlope(rows, ({ processes }) => processes, 'process')
  } finally {
    daemon.kill('SIGKILL')
    rmSync(directory, { recursive: true })
  }
}

interface Row {
  readonly name: string
  readonly processes: number
  /** Of the first process. */
  readonly mappings: number
  readonly files: number
  readonly bytes: number
  readonly cold: number
  readonly warm: number[]
}

function print(rows: readonly Row[]): void {
  const header = ['processes', 'mappings', 'files', 'MB', 'cold ms', 'warm p50 ms', 'warm p95 ms']
  printTable(
    ['', ...header],
    rows.map(({ name, processes, mappings, files, bytes, cold, warm }) => [
      ...[name, `${processes}`, `${mappings}`, `${files}`, format(bytes / 1e6), format(cold)],
      ...[format(median(warm)), format(quantile(warm, 0.95))],
    ]),
  )
}

/** What each more of `count` costs, from the second row and the last. */
function printSlope(rows: readonly Row[], count: (row: Row) => number, what: string): void {
  const [from, to] = [rows[1], rows.at(-1)]
  if (from === undefined || to === undefined || from === to) return
  const slope = (median(to.warm) - median(from.warm)) / (count(to) - count(from))
  console.log(`each ${what} more: ${format(slope)} ms`)
}

async function measure(
  name: string,
  directory: string,
  command: [string, ...string[]],
): Promise<Row> {
  const unitsDirectory = join(directory, 'units')
  const started = { instance: '1', unitsDirectory, uid: UID }
  await using unit = await startUnit({ ...started, name: 'bench', command })
  // Something that shares no file with it gets a measurer's thread going before it is timed.
  const idle = [realpathSync('/bin/busybox'), 'sleep', '1000'] as const
  await using other = await startUnit({ ...started, name: 'other', command: idle })
  await unit.line()
  await settle(unit)
  await using measurer = await openMeasurer(directory)
  await measurer.client.measure(other.instance)
  let measurement: SettledMeasurement | undefined
  const timed = async (): Promise<number> => {
    const start = performance.now()
    measurement = await measurer.client.measure(unit.instance)
    return performance.now() - start
  }
  const begun = performance.now()
  const cold = await timed()
  const warm: number[] = []
  while (warm.length < effort(400, 3) && performance.now() - begun < MAX_MS)
    warm.push(await timed())
  const { unit: seen, processes = [] } = measurement ?? {}
  const [process] = processes
  if (seen?.contract?.intact !== true || process === undefined)
    throw new Error('expected a unit with an intact contract')
  const files = [process.executable, ...process.files]
  if (!files.every(({ isStoreFile }) => isStoreFile)) throw new Error('expected store files only')
  return {
    ...{ name, cold, warm, files: files.length, processes: processes.length },
    mappings: countMappings(unit),
    bytes: files.reduce((sum, { path }) => sum + readFileSync(path).length, 0),
  }
}

const countMappings = ({ pid }: Unit): number =>
  readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n').length

/** Waits until the program has mapped what it maps. */
async function settle(unit: Unit): Promise<void> {
  for (let before = -1; ;) {
    const count = countMappings(unit)
    if (count === before) return
    before = count
    await sleep(200)
  }
}

interface OpenMeasurer extends AsyncDisposable {
  readonly client: MeasurerClient
}

/** The packed measurer as the child of an agent, with this process as its front. */
async function openMeasurer(directory: string): Promise<OpenMeasurer> {
  const settings: MeasurerSettings = {
    ...{ socket: null, user: 'root', stateDir: join(directory, 'measurer') },
    options: { unitsDir: join(directory, 'units'), ociStateDirs: [], storeDir: STORE_DIR },
  }
  const child = spawn(
    process.execPath,
    [join(DIST, 'bagcheck-measurer.mjs'), '--own', JSON.stringify(settings)],
    { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] },
  )
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const socket = child.stdio[3] as Socket
  const say = (_level: string, message: string): void => console.error(`measurer: ${message}`)
  const client = new MeasurerClient(
    () => Promise.resolve(socket),
    () => undefined,
    say,
  )
  while (!client.state.up) await sleep(5)
  return {
    client,
    [Symbol.asyncDispose]: async () => {
      client[Symbol.dispose]()
      await ended
    },
  }
}
