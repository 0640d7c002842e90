import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const nodeBan = command({
  summary: 'Ban a node for good: no token is issued to it any more.',
  positionals: 'NODE',
  description: [
    'Tokens that it holds lapse within their lifetime; a relying party that keeps sessions keeps them ' +
      'longer. The ban is an entry in the log.',
  ],
  options: {
    ...ADMIN_OPTIONS,
    reason: { type: 'string', value: 'TEXT', required: true, help: 'why, for the log' },
  },
  run: async ({ result }, values, [node = '']) => {
    const receipt = await openAdmin(values).banNode(node, values.reason)
    result(receipt, `${node} is banned; entry ${receipt.logIndex} in the log`)
  },
})
