// `npm run bench [-- NAME…]`: runs the benchmarks, each of which prints one table. Read bench/README.md first.
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { CGROUP_PARENT_VARIABLE, PRIVATE_ROOT_VARIABLE, enterPrivateRoot } from '@bagcheck/cli'
import { SHORT } from './budget.ts'

const names = [
  'decision',
  'verify',
  'causes',
  'closure-diff',
  'issuance',
  'processes',
  'measure',
  'workloads',
  'renewals',
  'idle',
  'change',
  'day',
  'soak',
] as const

/** These take long, so they run only where they are named. */
const ONLY_BY_NAME: readonly string[] = ['day', 'soak']

/** These run an agent with the process ids of the host, by which the kernel tells it of changes. */
const HOST_PIDS: readonly string[] = [
  'processes',
  'measure',
  'workloads',
  'renewals',
  'idle',
  'change',
  'day',
]

const named = process.argv.slice(2)
const unknown = named.filter((name) => !names.some((known) => known === name))
if (unknown.length > 0) {
  console.error(`bench: no benchmark ${unknown.join(', ')}; there are ${names.join(', ')}`)
  process.exit(2)
}
const wanted = names.filter((name) =>
  named.length === 0 ? !ONLY_BY_NAME.includes(name) : named.includes(name),
)

// The executables are packed first; real Nix builds and mounts happen in a /nix of their own.
if (process.env[PRIVATE_ROOT_VARIABLE] === undefined) {
  const node = process.execPath
  const packing = ['-C', '@bagcheck/source', 'scripts/build.ts']
  const load = loadavg()[0]?.toFixed(2)
  const pack = spawnSync(node, packing, { stdio: ['ignore', 'ignore', 'inherit'] })
  if (pack.status !== 0) process.exit(3)
  const [cpu] = cpus()
  if (SHORT) console.log('a short run: it shows that the benchmarks work; its figures mean nothing')
  const memory = Math.round(totalmem() / 2 ** 30)
  console.log(
    `machine: ${cpus().length} × ${cpu?.model ?? 'unknown'}, ${memory} GiB, Linux ${release()}, Node ${process.version}; load ${load}`,
  )
  if (process.getuid?.() === 0) {
    const self = [node, ...process.execArgv, process.argv[1] ?? '']
    for (const pids of ['private', 'host'] as const) {
      const these = wanted.filter((name) => HOST_PIDS.includes(name) === (pids === 'host'))
      const code = these.length === 0 ? 0 : await enterPrivateRoot([...self, ...these], { pids })
      if (code !== 0) process.exit(code)
    }
    process.exit(0)
  }
} else if (process.pid !== 1) enterCgroup()

for (const name of wanted) {
  console.log(`\n# ${name}`)
  const { run } = (await import(`./${name}.ts`)) as { run: () => Promise<void> }
  await run()
}

/** With the process ids of the host, what is started here ends with us because it is in a cgroup that does. */
function enterCgroup(): void {
  const cgroup = join(process.env[CGROUP_PARENT_VARIABLE] ?? '', 'bench')
  mkdirSync(cgroup, { recursive: true })
  writeFileSync(join(cgroup, 'cgroup.procs'), '0')
}
