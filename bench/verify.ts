// Closure verification against `nix store verify`, on the same store paths, interleaved.
//
// Ours are the packed command line, which starts anew each time, with and without extended attributes
// (`nix store verify` knows none), and the library in a process that stays, as in the agent, which has its
// ledger in memory.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLedger, verifyClosure, type ClosureManifest, type Ledger } from '@bagcheck/nix'
import { effort, format, printBudget } from './budget.ts'
import { packedCommand } from './packed.ts'
import { median, printTable } from './statistics.ts'
import { addTrees, nix, NIX_ENVIRONMENT } from './trees.ts'

const ROUNDS = effort(7, 1)

/** A peer; the first is what the others are compared with. */
interface Peer {
  readonly name: string
  readonly run: () => Promise<void> | void
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

const seconds = async (work: Peer['run']): Promise<number> => {
  const from = performance.now()
  await work()
  return (performance.now() - from) / 1000
}

/** Prints the table; peers run alternately and each ratio is of one round. */
export async function run(): Promise<void> {
  const manifest = await addTrees()
  const bytes = manifest.entries.reduce((sum, entry) => sum + entry.narSize, 0)
  const directory = mkdtempSync(join(tmpdir(), 'bagcheck-bench-'))
  // One ledger, open for the whole run, as the agent keeps it.
  const ledger = openLedger(join(directory, 'agent'))
  const { filesChecked } = await verifyClosure(manifest, { ledger, now: Date.now })
  console.log(
    `closure: ${manifest.entries.length} paths, ${filesChecked} files, ${(bytes / 1e6).toFixed(0)} MB; file system ${statfsSync('/nix').type.toString(16)}`,
  )
  const paths = manifest.entries.map((entry) => entry.path)
  const file = join(directory, 'command-line')
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
  ]
  const times = peers.map((): number[] => [])
  for (let round = 0; round <= ROUNDS; round += 1)
    for (const [index, peer] of peers.entries()) {
      const time = await seconds(peer.run)
      if (round > 0) times[index]?.push(time) // the first round warms the page cache for everybody
    }
  ledger.close()
  rmSync(directory, { recursive: true })
  const ratios = times.map((own) => own.map((time, round) => time / (times[0]?.[round] ?? NaN)))
  printTable(
    ['', 'median s', 'ratio: min', 'median', 'max'],
    peers.map(({ name }, index) => {
      const own = ratios[index] ?? []
      const spread = [Math.min(...own), median(own), Math.max(...own)]
      return [name, format(median(times[index] ?? [])), ...spread.map(format)]
    }),
  )
  const unit = '× nix store verify'
  const seen = (index: number): number => median(ratios[index] ?? [])
  printBudget({ what: 'full verification', limit: 1, unit }, seen(1))
  printBudget({ what: 'incremental re-check', limit: 0.1, unit }, seen(5))
}
