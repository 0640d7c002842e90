// `npm run bench [-- NAME…]`: runs the benchmarks, each of which prints one table. Read bench/README.md first.
import { spawnSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { PRIVATE_ROOT_VARIABLE, enterPrivateRoot } from '@bagcheck/cli'

const names = ['decision', 'verify', 'measure', 'issuance', 'processes'] as const

// Real Nix builds and mounts happen in a /nix of their own; the executables are packed first.
if (process.getuid?.() === 0 && process.env[PRIVATE_ROOT_VARIABLE] === undefined) {
  const node = process.execPath
  const pack = spawnSync(node, ['-C', '@bagcheck/source', 'scripts/build.ts'], { stdio: 'inherit' })
  if (pack.status !== 0) process.exit(3)
  process.exit(await enterPrivateRoot([node, ...process.execArgv, ...process.argv.slice(1)]))
}

const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !names.some((known) => known === name))
if (unknown.length > 0) {
  console.error(`bench: no benchmark ${unknown.join(', ')}; there are ${names.join(', ')}`)
  process.exit(2)
}

const [cpu] = cpus()
const memory = Math.round(totalmem() / 2 ** 30)
console.log(
  `machine: ${cpus().length} × ${cpu?.model ?? 'unknown'}, ${memory} GiB, Linux ${release()}, Node ${process.version}; load ${loadavg()[0]?.toFixed(2)}`,
)
for (const name of names) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  console.log(`\n# ${name}`)
  const { run } = (await import(`./${name}.ts`)) as { run: () => Promise<void> }
  await run()
}
