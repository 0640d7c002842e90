// `npm run bench [-- NAME…]`: runs the benchmarks, each of which prints one table. Read bench/README.md first.
import { spawnSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { PRIVATE_ROOT_VARIABLE, enterPrivateRoot } from '@bagcheck/cli'
import { SHORT } from './budget.ts'

const names = [
  'decision',
  'verify',
  'causes',
  'closure-diff',
  'measure',
  'issuance',
  'processes',
  'workloads',
  'soak',
] as const

/** Takes an hour, so it runs only where it is named. */
const ONLY_BY_NAME: readonly string[] = ['soak']

const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !names.some((known) => known === name))
if (unknown.length > 0) {
  console.error(`bench: no benchmark ${unknown.join(', ')}; there are ${names.join(', ')}`)
  process.exit(2)
}

// The executables are packed first; real Nix builds and mounts happen in a /nix of their own.
if (process.env[PRIVATE_ROOT_VARIABLE] === undefined) {
  const node = process.execPath
  const packing = ['-C', '@bagcheck/source', 'scripts/build.ts']
  const pack = spawnSync(node, packing, { stdio: ['ignore', 'ignore', 'inherit'] })
  if (pack.status !== 0) process.exit(3)
  const self = [node, ...process.execArgv, ...process.argv.slice(1)]
  if (process.getuid?.() === 0) process.exit(await enterPrivateRoot(self))
}

const [cpu] = cpus()
if (SHORT) console.log('a short run: it shows that the benchmarks work; its figures mean nothing')
const memory = Math.round(totalmem() / 2 ** 30)
console.log(
  `machine: ${cpus().length} × ${cpu?.model ?? 'unknown'}, ${memory} GiB, Linux ${release()}, Node ${process.version}; load ${loadavg()[0]?.toFixed(2)}`,
)
for (const name of names) {
  const isWanted = wanted.length === 0 ? !ONLY_BY_NAME.includes(name) : wanted.includes(name)
  if (!isWanted) continue
  console.log(`\n# ${name}`)
  const { run } = (await import(`./${name}.ts`)) as { run: () => Promise<void> }
  await run()
}
