// Root causes between two systems of 1,000 derivations that real Nix instantiated from causes.nix.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import {
  findRootCauses,
  loadDerivationGraph,
  parseStorePath,
  storeDirectoryReader,
  verifyOutputPaths,
  type StorePath,
} from '@bagcheck/nix'
import { effort, format, printBudget } from './budget.ts'
import { median, printTable, quantile } from './statistics.ts'

const ROUNDS = effort(15, 1)
const EXPECTED = ['package60-1.60', 'package7-1.7.1', 'source-11.tar.gz']

function instantiate(changed: boolean): StorePath {
  const file = join(import.meta.dirname, 'causes.nix')
  const args = ['--arg', 'changed', `${changed}`, file]
  const { status, stdout, stderr } = spawnSync('nix-instantiate', args, {
    env: { ...process.env, NIX_REMOTE: '', NIX_CONFIG: 'build-users-group =', NIX_PATH: '' },
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`nix-instantiate: ${stderr}`)
  return parseStorePath(stdout.trim())
}

/** Prints the table. */
export async function run(): Promise<void> {
  const before = instantiate(false)
  const after = instantiate(true)
  const read = storeDirectoryReader()
  const times = { load: [] as number[], recompute: [] as number[], diff: [] as number[] }
  let summary = ''
  for (let round = 0; round <= ROUNDS; round += 1) {
    const start = performance.now()
    const from = await loadDerivationGraph([before], read)
    const to = await loadDerivationGraph([after], read)
    const loaded = performance.now()
    const found = findRootCauses(from, to)
    const compared = performance.now()
    verifyOutputPaths(from)
    const recomputed = performance.now()
    const names = found.causes.map(({ name }) => name).toSorted()
    if (names.join() !== EXPECTED.join()) throw new Error(`unexpected causes: ${names.join(', ')}`)
    const differ = found.causes.length + found.propagated.length
    summary = `${from.derivations.size} derivations, ${differ} differ, ${names.length} root causes`
    if (round === 0) continue // warms the page cache and the compiler
    times.load.push((loaded - start) / 1000)
    times.diff.push((compared - loaded) / 1000)
    times.recompute.push((recomputed - compared) / 1000)
  }
  console.log(summary)
  const row = (name: string, values: readonly number[]): string[] => [
    name,
    format(median(values)),
    format(quantile(values, 0.9)),
  ]
  printTable(
    ['', 'median s', 'p90 s'],
    [
      row('load both graphs, each text checked against its path', times.load),
      row('find the root causes', times.diff),
      row('recompute every output path of one graph', times.recompute),
    ],
  )
  const whole = times.load.map((load, index) => load + (times.diff[index] ?? Number.NaN))
  printBudget(
    {
      what: 'root causes of two 1,000-derivation systems, loading included',
      limit: 0.5,
      unit: 's',
    },
    median(whole),
  )
}
