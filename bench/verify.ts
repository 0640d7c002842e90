// Closure verification against `nix store verify`, on the same store paths, interleaved.
//
// Ours are the packed command line, which starts anew each time, with and without extended attributes
// (`nix store verify` knows none), and the library in a process that stays, as in the agent, which has its
// ledger in memory. The first full pass that a ledger sees also hashes each file, which no later one does. The
// last peer is the least that any of it can take in Node (reading.mjs).
//
// Processor time is that of all threads, in user space and in the kernel. On a machine that others use it says
// more than the time on the clock. Alone on two cores a run takes about 6 minutes, 1 of them for the trees.
import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { openLedger, verifyClosure, type ClosureManifest, type Ledger } from '@bagcheck/nix'
import { effort, format, printBudget } from './budget.ts'
import { packedCommand } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { median, printTable } from './statistics.ts'
import { addTrees, nix, NIX_ENVIRONMENT } from './trees.ts'

const ROUNDS = effort(7, 1)

/** A peer; the first is what the others are compared with. */
interface Peer {
  readonly name: string
  readonly prepare?: () => Promise<void> | void
  readonly run: () => Promise<void> | void
}

/** What a round of a peer took, in seconds. */
interface Cost {
  readonly clock: number
  readonly processor: number
}

/** What makes a tree of this machine differ from a store: nothing may. */
async function inProcess(manifest: ClosureManifest, ledger: Ledger, full: boolean): Promise<void> {
  const { mismatches, strength } = await verifyClosure(manifest, { ledger, full, now: Date.now })
  if (mismatches[0] !== undefined) throw new Error(`unexpected: ${JSON.stringify(mismatches[0])}`)
  if (strength !== (full ? 'full' : 'incremental')) throw new Error(`unexpected: ${strength}`)
}

function packed(manifest: ClosureManifest, ledger: string, ...more: readonly string[]): void {
  const [node, ...argv] = packedCommand('bagcheck')
  const args = ['closure', 'verify', manifest.root, '--source', 'database', '--ledger', ledger]
  const result = spawnSync(node, [...argv, ...args, ...more], {
    env: NIX_ENVIRONMENT,
    encoding: 'utf8',
  })
  if (result.status !== 0) throw new Error(`bagcheck: ${result.stdout}${result.stderr}`)
}

async function costOf({ prepare, run }: Peer): Promise<Cost> {
  await prepare?.()
  const [clock, processor] = [performance.now(), processorSeconds()]
  await run()
  return {
    clock: (performance.now() - clock) / 1000,
    processor: processorSeconds() - processor,
  }
}

/** Of this process and of the children that have ended; proc_pid_stat(5), fields 14 to 17, ticks of 10 ms. */
function processorSeconds(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100
}

/** Changes the mode of a file there and back, which moves its ctime; waits until that is past. */
async function touch(file: string): Promise<void> {
  chmodSync(file, 0o644)
  chmodSync(file, 0o444)
  await setTimeout(100) // what has just changed is not remembered
}

/** A small file of the largest path. */
function fileToMove({ entries }: ClosureManifest): string {
  const [{ path } = { path: '' }] = entries.toSorted((a, b) => b.narSize - a.narSize)
  const files = readdirSync(path, { recursive: true, withFileTypes: true })
  const file = files.find((entry) => entry.isFile())
  if (file === undefined) throw new Error(`expected a file in ${path}`)
  return join(file.parentPath, file.name)
}

/** Prints the table; peers run alternately and each ratio is of one round. */
export async function run(): Promise<void> {
  const manifest = await addTrees()
  const bytes = manifest.entries.reduce((sum, entry) => sum + entry.narSize, 0)
  const directory = makeScratch()
  // One ledger, open for the whole run, as the agent keeps it.
  const ledger = openLedger(join(directory, 'agent'))
  const { filesChecked } = await verifyClosure(manifest, { ledger, now: Date.now })
  console.log(
    `closure: ${manifest.entries.length} paths, ${filesChecked} files, ${(bytes / 1e6).toFixed(0)} MB; file system ${statfsSync('/nix').type.toString(16)}`,
  )
  const paths = manifest.entries.map((entry) => entry.path)
  const largestFirst = manifest.entries
    .toSorted((a, b) => b.narSize - a.narSize)
    .map((entry) => entry.path)
  const file = join(directory, 'command-line')
  const first = join(directory, 'first')
  const moving = fileToMove(manifest)
  const peers: readonly Peer[] = [
    {
      name: 'nix store verify --no-trust',
      run: () => void nix('nix', 'store', 'verify', '--no-trust', ...paths),
    },
    {
      name: 'bagcheck closure verify --full --skip-attributes',
      run: () => packed(manifest, file, '--full', '--skip-attributes'),
    },
    { name: 'bagcheck closure verify --full', run: () => packed(manifest, file, '--full') },
    { name: 'bagcheck closure verify --ledger', run: () => packed(manifest, file) },
    { name: 'in the agent, full', run: () => inProcess(manifest, ledger, true) },
    { name: 'in the agent, incremental', run: () => inProcess(manifest, ledger, false) },
    {
      name: 'in the agent, incremental, one file of the largest path moved',
      prepare: () => touch(moving),
      run: () => inProcess(manifest, ledger, false),
    },
    {
      name: 'bagcheck closure verify --ledger, a new ledger',
      prepare: () => rmSync(first, { force: true }),
      run: () => packed(manifest, first, '--skip-attributes'),
    },
    {
      name: 'Node, reading and hashing alone',
      run: () =>
        void nix(process.execPath, join(import.meta.dirname, 'reading.mjs'), ...largestFirst),
    },
  ]
  const costs = peers.map((): Cost[] => [])
  for (let round = 0; round <= ROUNDS; round += 1)
    for (const [index, peer] of peers.entries()) {
      const cost = await costOf(peer)
      if (round > 0) costs[index]?.push(cost) // the first round warms the page cache for everybody
    }
  ledger.close()
  rmSync(directory, { recursive: true })
  const ratios = (of: (cost: Cost) => number): number[][] =>
    costs.map((own) => own.map((cost, round) => of(cost) / of(costs[0]?.[round] ?? NEVER)))
  const clock = ratios((cost) => cost.clock)
  const processor = ratios((cost) => cost.processor)
  printTable(
    ['', 'median s', 'ratio: min', 'median', 'max', 'processor s', 'ratio: min', 'median', 'max'],
    peers.map(({ name }, index) => [
      name,
      format(median((costs[index] ?? []).map((cost) => cost.clock))),
      ...spread(clock[index] ?? []),
      format(median((costs[index] ?? []).map((cost) => cost.processor))),
      ...spread(processor[index] ?? []),
    ]),
  )
  const unit = '× nix store verify'
  const seen = (index: number): number => median(clock[index] ?? [])
  printBudget({ what: 'full verification, command line', limit: 1, unit }, seen(1))
  printBudget({ what: 'full verification, agent', limit: 1, unit }, seen(4))
  printBudget({ what: 'incremental re-check, command line', limit: 0.1, unit }, seen(3))
  printBudget({ what: 'incremental re-check, agent', limit: 0.1, unit }, seen(5))
}

const NEVER: Cost = { clock: Number.NaN, processor: Number.NaN }

const spread = (own: readonly number[]): string[] =>
  [Math.min(...own), median(own), Math.max(...own)].map(format)
