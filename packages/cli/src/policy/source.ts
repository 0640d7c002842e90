// Compiles a policy file and says what is wrong with it in lines that an editor can jump to.
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import {
  MAX_POLICY_BYTES,
  PolicySourceError,
  compilePolicy,
  type CompiledPolicy,
  type SourceProblem,
} from '@bagcheck/policy'
import { CliError, EXIT } from '../error.ts'
import { readInput } from '../files.ts'

/**
 * Compiles `file`; keys that it names are read from beside it.
 * @throws {CliError} REFUSED – with every mistake of the file
 */
export async function compileFile(
  file: string,
  warn: (line: string) => void,
): Promise<CompiledPolicy> {
  const text = (await readInput(file, MAX_POLICY_BYTES)).toString('utf8')
  const readFile = (path: string): string => readFileSync(resolve(dirname(file), path), 'utf8')
  try {
    const compiled = compilePolicy(text, { file, readFile })
    for (const warning of compiled.warnings) warn(`warning: ${formatProblem(warning)}`)
    return compiled
  } catch (error) {
    if (!(error instanceof PolicySourceError)) throw error
    const { problems } = error
    const count = problems.length === 1 ? '1 mistake' : `${problems.length} mistakes`
    throw new CliError('POLICY_SOURCE', [`${count}`, ...problems.map(formatProblem)].join('\n'), {
      cause: error,
      exit: EXIT.refused,
      detail: { problems },
    })
  }
}

function formatProblem({ file, line, column, message }: SourceProblem): string {
  return `${file}:${line}:${column}: ${message}`
}
