import { sha256Hex } from '@bagcheck/attest'
import { command } from '../command.ts'
import { writeOutput } from '../files.ts'
import { compileFile } from '../policy/source.ts'

export const policyCompile = command({
  summary: 'Compile a policy file to the canonical JSON that is signed.',
  positionals: 'FILE',
  description: ['The same text always gives the same bytes, so that every signer can compile it.'],
  options: {
    output: { type: 'string', value: 'FILE', default: 'policy.json', help: 'where to write it' },
  },
  examples: ['bagcheck policy compile policy.yaml -o policy.json'],
  run: async ({ result, warn }, { output }, [file = '']) => {
    const { policy, json } = await compileFile(file, warn)
    await writeOutput(output, json)
    const sha256 = sha256Hex(json)
    result({ file: output, version: policy.version, sha256 }, [
      `policy   ${output}, version ${policy.version} for ${policy.installation}`,
      `sha256   ${sha256}`,
    ])
  },
})
