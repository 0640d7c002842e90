import { trustRootDigest } from '@bagcheck/policy'
import { command } from '../command.ts'
import { readSmallText } from '../files.ts'

export const policyPin = command({
  summary: 'Print the digest of a trust root, to be pinned in every configuration.',
  positionals: 'ROOT',
  description: [
    'ROOT is the file of version 1 (root.json). The pin is the sha256 of what is signed, not of the file ' +
      'around it, so sha256sum gives another value. Nothing is verified: compare the pin with the one that ' +
      'its makers published.',
  ],
  examples: ['bagcheck policy pin trust/root.json'],
  run: async ({ result }, _values, [file = '']) => {
    const pin = trustRootDigest(await readSmallText(file))
    result({ pin }, pin)
  },
})
