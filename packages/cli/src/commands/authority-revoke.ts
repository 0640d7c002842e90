import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const authorityRevoke = command({
  summary: 'Take a tainted authority out of the bundle: nothing that it signed verifies any more.',
  positionals: 'ID',
  description: ['Verifiers that keep bundles go on until they have read the bundle again.'],
  options: {
    ...ADMIN_OPTIONS,
    reason: { type: 'string', value: 'TEXT', required: true, help: 'why, for the log' },
  },
  run: async ({ result }, values, [id = '']) => {
    const receipt = await openAdmin(values).revokeAuthority(id, values.reason)
    result(receipt, `${id} is revoked; entry ${receipt.logIndex} in the log`)
  },
})
