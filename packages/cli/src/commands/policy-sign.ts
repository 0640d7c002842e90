import { dirname, join } from 'node:path'
import { formatEnvelope, parseEnvelope, parseSigningKey, sha256Hex } from '@bagcheck/attest'
import {
  MAX_POLICY_BYTES,
  PolicyError,
  addPolicySignature,
  createPolicyEnvelope,
  parsePolicy,
} from '@bagcheck/policy'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { ifThere, readInput, readSmallText, writeOutput } from '../files.ts'
import { checkSigner, SIGNER_OPTION } from '../trust.ts'

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
    ...SIGNER_OPTION,
  },
  examples: ['bagcheck policy sign policy.json --key keys/policy-1.pem --previous policy-v1.json'],
  run: async ({ now, result }, values, [file = '']) => {
    const json = (await readInput(file, MAX_POLICY_BYTES)).toString('utf8')
    const policy = parsePolicy(json)
    const key = parseSigningKey(await readSmallText(values.key))
    const signers = await checkSigner(values.trust, 'policy', key.keyId, now())
    const output = values.output ?? join(dirname(file), 'policy.dsse.json')
    const previous = await digestOfPrevious(values.previous, policy.version)
    const before = await ifThere(readSmallText(output))
    const envelope =
      before === undefined
        ? createPolicyEnvelope(json, previous, [key])
        : addSignature(output, () =>
            addPolicySignature(json, previous, parseEnvelope(Buffer.from(before)), key),
          )
    await writeOutput(output, formatEnvelope(envelope))
    const count = envelope.signatures.length
    const needed = signers && { needed: signers.threshold }
    const shown = needed
      ? `${count} of ${needed.needed} signatures`
      : `${count} signature${count === 1 ? '' : 's'}`
    result(
      { envelope: output, signatures: count, keyId: key.keyId, ...needed },
      `${output}: ${shown}, this one by ${key.keyId}`,
    )
  },
})

/** Most likely the envelope of the version before lies where this one's is to be. */
function addSignature<T>(file: string, add: () => T): T {
  try {
    return add()
  } catch (error) {
    if (!(error instanceof PolicyError) || error.code !== 'POLICY_STATEMENT') throw error
    const hint = `move ${file} away, or give each version a directory of its own`
    throw new PolicyError(error.code, `${error.message}; ${hint}`, { cause: error })
  }
}

async function digestOfPrevious(file: string | undefined, version: number): Promise<string | null> {
  if (version === 1) {
    if (file === undefined) return null
    throw new CliError('USAGE', 'version 1 has no --previous')
  }
  if (file === undefined)
    throw new CliError('USAGE', `version ${version} needs --previous, the policy.json before it`)
  return sha256Hex(await readInput(file, MAX_POLICY_BYTES))
}
