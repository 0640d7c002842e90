import { dirname, join } from 'node:path'
import { formatEnvelope, parseEnvelope, parseSigningKey, sha256Hex } from '@bagcheck/attest'
import {
  MAX_POLICY_BYTES,
  addPolicySignature,
  createPolicyEnvelope,
  parsePolicy,
} from '@bagcheck/policy'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { ifThere, readInput, readSmallText, writeOutput } from '../files.ts'

export const policySign = command({
  summary: 'Sign a compiled policy, or add a signature to it.',
  positionals: 'POLICY',
  description: [
    'Each holder of a policy key signs in turn; the envelope lies beside the policy as policy.dsse.json ' +
      'and gains a signature each time. A version above 1 names the one before it with --previous.',
  ],
  options: {
    key: { type: 'string', value: 'FILE', required: true, help: 'the policy key, PEM' },
    previous: { type: 'string', value: 'FILE', help: 'policy.json of the version before' },
    output: {
      type: 'string',
      value: 'FILE',
      help: 'the envelope; default: policy.dsse.json beside POLICY',
    },
  },
  examples: ['bagcheck policy sign policy.json --key keys/policy-1.pem --previous policy-v1.json'],
  run: async ({ result }, values, [file = '']) => {
    const json = (await readInput(file, MAX_POLICY_BYTES)).toString('utf8')
    const policy = parsePolicy(json)
    const key = parseSigningKey(await readSmallText(values.key))
    const output = values.output ?? join(dirname(file), 'policy.dsse.json')
    const previous = await digestOfPrevious(values.previous, policy.version)
    const before = await ifThere(readSmallText(output))
    const envelope =
      before === undefined
        ? createPolicyEnvelope(json, previous, [key])
        : addPolicySignature(json, previous, parseEnvelope(Buffer.from(before)), key)
    await writeOutput(output, formatEnvelope(envelope))
    const count = envelope.signatures.length
    result(
      { envelope: output, signatures: count, keyId: key.keyId },
      `${output}: ${count === 1 ? '1 signature' : `${count} signatures`}, this one by ${key.keyId}`,
    )
  },
})

async function digestOfPrevious(file: string | undefined, version: number): Promise<string | null> {
  if (version === 1) {
    if (file === undefined) return null
    throw new CliError('USAGE', 'version 1 has no --previous')
  }
  if (file === undefined)
    throw new CliError('USAGE', `version ${version} needs --previous, the policy.json before it`)
  return sha256Hex(await readInput(file, MAX_POLICY_BYTES))
}
