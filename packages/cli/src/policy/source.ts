// Compiles a policy file and turns its errors into lines that an editor can jump to.
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { compilePolicy, type CompiledPolicy } from '@bagcheck/policy'
import { readInput } from '../files.ts'

const MAX_SOURCE_BYTES = 64 * 1024 * 1024

/** Compiles `file`; keys that it names are read from beside it. @throws {PolicyError} with every error of the file */
export async function compileFile(file: string): Promise<CompiledPolicy> {
  const text = (await readInput(file, MAX_SOURCE_BYTES)).toString('utf8')
  return compilePolicy(text, {
    file,
    readFile: (path) => readFileSync(resolve(dirname(file), path), 'utf8'),
  })
}
