import { resolve } from 'node:path'
import { command } from '../command.ts'
import { findMissingCommands } from '../demo/build.ts'
import { enterPrivateRoot, PRIVATE_ROOT_VARIABLE } from '../demo/private-root.ts'
import { programCommand } from '../demo/programs.ts'
import { playDemo, STEPS } from '../demo/story.ts'
import { CliError, EXIT, type ExitCode } from '../error.ts'

export const demo = command({
  summary: 'Play the whole story on this machine, with real Nix builds and real processes.',
  description: [
    'Builds two services with Nix in a /nix of its own (the machine is not touched), attests and approves ' +
      'them, runs them, and then attacks them one way after the other. Each step says what was seen; the ' +
      'exit code is 1 if one did not go as told. --json prints an object for each step and a summary last; ' +
      'paths in them are of a scratch directory that is gone by then, but for --output. Needs root, nix-bin, patchelf and busybox-static.',
  ],
  options: {
    output: {
      type: 'string',
      value: 'DIR',
      help: 'keep the evidence bundle, the trust root and the policies there',
    },
  },
  examples: ['bagcheck demo', 'bagcheck demo --json | jq .title'],
  run: async (context, { output }) => {
    if (process.getuid?.() !== 0)
      throw new CliError(
        'NOT_ROOT',
        'the demo makes a /nix of its own, which needs root: run it with sudo',
      )
    const missing = await findMissingCommands()
    if (missing.length > 0)
      throw new CliError(
        'TOOL_MISSING',
        `not installed: ${missing.join(', ')}; "bagcheck doctor" says how to get them`,
      )
    if (context.env[PRIVATE_ROOT_VARIABLE] === undefined) {
      const again = [
        ...[...programCommand('bagcheck'), 'demo', ...(context.json ? ['--json'] : [])],
        ...(output === undefined ? [] : ['--output', resolve(output)]),
      ]
      const code = await enterPrivateRoot(again)
      if (code > 128 && !context.json) context.warn('interrupted; nothing is left')
      return code as ExitCode
    }
    const start = performance.now()
    const results = await playDemo(context, output)
    const passed = new Set(results.filter(({ ok }) => ok).map(({ id }) => id))
    const failures = STEPS.filter((id) => !passed.has(id)) // or not reached
    const seconds = ((performance.now() - start) / 1000).toFixed(0)
    if (context.json)
      context.print(
        JSON.stringify({ summary: { steps: results.length, failures, kept: output ?? null } }),
      )
    else {
      context.print('')
      context.print(
        failures.length === 0
          ? `All ${results.length} steps went as told, in ${seconds} s.`
          : `${failures.length} of ${STEPS.length} steps did not go as told: ${failures.join(', ')}.`,
      )
    }
    return failures.length === 0 ? EXIT.ok : EXIT.refused
  },
})
