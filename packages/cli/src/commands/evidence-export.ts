import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { writeOutput } from '../files.ts'

export const evidenceExport = command({
  summary: 'Export the evidence bundle of one token.',
  positionals: 'JTI',
  description: [
    'One file with everything that the token rests on: decision, evidence, enrolment, attestation with ' +
      'manifest and file list, policy with its signatures and root chain, inclusion proofs and checkpoint.',
  ],
  options: {
    ...ADMIN_OPTIONS,
    output: { type: 'string', value: 'FILE', required: true, help: 'where to write it' },
  },
  examples: ['bagcheck evidence export 0198… -o token.evidence.json'],
  run: async ({ result }, values, [jti = '']) => {
    const bytes = await openAdmin(values).evidence(jti)
    await writeOutput(values.output, bytes)
    result(
      { jti, file: values.output, bytes: bytes.length },
      `${values.output}: ${bytes.length} bytes`,
    )
  },
})
