// `npm test`: the cheap checks first, the tests last, so that the totals line closes the output.
import { spawnSync } from 'node:child_process'
import { enterPrivateRoot } from '../packages/cli/src/demo/private-root.ts'

const node = process.execPath
const bin = (name: string): string => `node_modules/.bin/${name}`

const steps: readonly [title: string, command: string, ...args: string[]][] = [
  ['format', bin('oxfmt'), '--check', '.'],
  ['lint', bin('oxlint'), '--type-aware', '--deny-warnings', '.'],
  ['types', bin('tsc'), '--noEmit', '-p', 'tsconfig.json'],
  ['unused', bin('knip'), '--strict', '--treat-config-hints-as-errors'],
  ['generated files', node, '-C', '@bagcheck/source', 'scripts/generate.ts', '--check'],
]

for (const [title, command, ...args] of steps) {
  console.log(`check: ${title}`)
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) {
    console.log(`check: ${title} failed\n0 passed, 1 failed, 0 skipped`)
    process.exit(1)
  }
}

// The system tests build with real Nix in a /nix of their own; see private-root.ts. What the kernel tells of
// processes is about the host's process ids, so those tests keep them, and come first.
const vitest = [node, bin('vitest'), 'run']
const filters = process.argv.slice(2)
if (filters.length === 0) {
  console.log('check: tests with the process ids of the host')
  const code = await enterPrivateRoot([...vitest, '--project', 'host'], { pids: 'host' })
  if (code !== 0) process.exit(code)
}
console.log('check: tests')
const rest = filters.length === 0 ? ['--project', 'unit', '--project', 'system'] : filters
process.exit(await enterPrivateRoot([...vitest, ...rest]))
