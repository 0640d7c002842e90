import { dirname, join } from 'node:path'
import { MAX_POLICY_BYTES } from '@bagcheck/policy'
import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { readInput, readSmallText } from '../files.ts'

export const policyPublish = command({
  summary: 'Bring a signed policy to the broker, which installs it.',
  positionals: 'POLICY',
  description: [
    'The signatures are what authorises it: the broker takes the next version, signed by enough different ' +
      'policy keys, and nothing else.',
  ],
  options: {
    ...BROKER_OPTIONS,
    envelope: {
      type: 'string',
      value: 'FILE',
      help: 'its signatures; default: policy.dsse.json beside POLICY',
    },
  },
  examples: ['bagcheck policy publish policy.json --broker https://broker.example.org'],
  run: async ({ result }, values, [file = '']) => {
    const client = await openBroker(values)
    const policy = (await readInput(file, MAX_POLICY_BYTES)).toString('utf8')
    const envelope = await readSmallText(values.envelope ?? join(dirname(file), 'policy.dsse.json'))
    const receipt = await client.publishPolicy({ policy, envelope })
    const state = receipt.known ? 'was installed before' : 'is installed'
    result(
      receipt,
      `policy version ${receipt.version} ${state}; entry ${receipt.logIndex} in the log`,
    )
  },
})
