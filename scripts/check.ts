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

console.log('check: tests')
// The system tests build with real Nix in a /nix of their own; see private-root.ts.
const vitest = [node, bin('vitest'), 'run', ...process.argv.slice(2)]
process.exit(await enterPrivateRoot(vitest))
