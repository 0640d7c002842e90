// Closure verification against `nix store verify`, on the same store paths, interleaved.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  buildFileList,
  buildManifest,
  openLedger,
  openNixDatabase,
  parseStorePath,
  verifyClosure,
  type ClosureManifest,
  type FileList,
  type Ledger,
} from '@bagcheck/nix'
import { effort, format, printBudget } from './budget.ts'
import { median, printTable } from './statistics.ts'

const ROUNDS = effort(5, 1)
const nixEnvironment = {
  ...process.env,
  NIX_REMOTE: '',
  NIX_CONFIG: 'experimental-features = nix-command\nbuild-users-group =\nsubstitute = false',
}

/** Directories that a Debian machine or a checkout has; as many as are needed for the size of the issue. */
const sources = [
  'node_modules',
  '/usr/share',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/python3',
  '/usr/include',
  '/usr/lib/postgresql',
  '/usr/lib/gcc',
]

function nix(command: string, ...args: string[]): string {
  const result = spawnSync(command, args, { env: nixEnvironment, encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`${command} ${args[0]}: ${result.stderr}`)
  return result.stdout.trim()
}

/** One closure: a root that refers to every added tree, so that both tools check the same paths. */
async function addTrees(): Promise<ClosureManifest> {
  const added = sources.flatMap((source) => {
    const result = spawnSync('nix-store', ['--add', source], {
      env: nixEnvironment,
      encoding: 'utf8',
    })
    return result.status === 0 ? [result.stdout.trim()] : []
  })
  const list = added.map((path) => `(builtins.storePath ${path})`).join(' ')
  const expression = `derivation { name = "trees"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo $trees > $out" ]; trees = [ ${list} ]; }`
  const environment = {
    ...nixEnvironment,
    NIX_CONFIG: `${nixEnvironment.NIX_CONFIG}\nsandbox-paths = /bin/sh=/bin/busybox`,
  }
  const built = spawnSync('nix-build', ['--no-out-link', '-E', expression], {
    env: environment,
    encoding: 'utf8',
  })
  if (built.status !== 0) throw new Error(`nix-build: ${built.stderr}`)
  const root = parseStorePath(built.stdout.trim())
  const database = openNixDatabase('/nix/var/nix/db/db.sqlite')
  const manifest = buildManifest(root, database.readClosure(root))
  await database.close()
  return manifest
}

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const from = performance.now()
  await work()
  return (performance.now() - from) / 1000
}

async function bagcheck(
  manifest: ClosureManifest,
  files: FileList,
  ledger: Ledger,
  full: boolean,
): Promise<void> {
  const result = await verifyClosure(manifest, { files, ledger, full, now: Date.now })
  const other = result.mismatches.filter(({ kind }) => kind !== 'owner' && kind !== 'mode')
  if (other.length > 0) throw new Error(`unexpected mismatch: ${JSON.stringify(other[0])}`)
}

/** Prints the table; peers run alternately and each ratio is of one pair. */
export async function run(): Promise<void> {
  const manifest = await addTrees()
  const files = await buildFileList(manifest)
  const bytes = manifest.entries.reduce((sum, entry) => sum + entry.narSize, 0)
  console.log(
    `closure: ${manifest.entries.length} paths, ${files.files.length} files, ${(bytes / 1e6).toFixed(0)} MB; file system ${statfsSync('/nix').type.toString(16)}`,
  )
  // One ledger, open for the whole run, as the agent keeps it.
  const directory = mkdtempSync(join(tmpdir(), 'bagcheck-bench-'))
  const ledger = openLedger(join(directory, 'ledger'))
  const paths = manifest.entries.map((entry) => entry.path)
  const times = { nix: [] as number[], full: [] as number[], incremental: [] as number[] }
  for (let round = 0; round <= ROUNDS; round += 1) {
    const peer = await seconds(async () => nix('nix', 'store', 'verify', '--no-trust', ...paths))
    const full = await seconds(() => bagcheck(manifest, files, ledger, true))
    const incremental = await seconds(() => bagcheck(manifest, files, ledger, false))
    if (round === 0) continue // warms the page cache for everybody
    times.nix.push(peer)
    times.full.push(full)
    times.incremental.push(incremental)
  }
  ledger.close()
  rmSync(directory, { recursive: true })
  const ratio = (values: readonly number[]): number =>
    median(values.map((value, index) => value / (times.nix[index] ?? Number.NaN)))
  const row = (name: string, values: readonly number[]): string[] => [
    name,
    format(median(values)),
    format(ratio(values)),
  ]
  printTable(
    ['', 'median s', 'ratio to nix store verify'],
    [
      row('nix store verify --no-trust', times.nix),
      row('bagcheck, full', times.full),
      row('bagcheck, incremental', times.incremental),
    ],
  )
  const unit = '× nix store verify'
  printBudget({ what: 'full verification', limit: 1, unit }, ratio(times.full))
  printBudget({ what: 'incremental re-check', limit: 0.1, unit }, ratio(times.incremental))
}
