// How to start Bagcheck's own programs: from the sources in the workspace, or packed beside ourselves.
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CliError } from '../error.ts'

/** The command line that starts one of our programs, to which arguments are added. */
export function programCommand(name: 'bagcheck' | 'broker' | 'agent'): string[] {
  const main = realpathSync(process.argv[1] ?? '')
  const options = process.execArgv
  if (name === 'bagcheck') return [process.execPath, ...options, main]
  const candidates = [
    join(dirname(main), `../../${name}/src/main.ts`),
    join(dirname(main), `bagcheck-${name}.mjs`),
    join(dirname(main), `bagcheck-${name}`),
  ]
  const file = candidates.find((candidate) => existsSync(candidate))
  if (file === undefined)
    throw new CliError('TOOL_MISSING', `bagcheck-${name} is not beside ${main}`)
  return file.endsWith('.mjs') || file.endsWith('.ts')
    ? [process.execPath, ...options, file]
    : [file]
}
