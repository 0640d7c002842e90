import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const authorityTaint = command({
  summary: 'Trust an authority no longer: it signs no more, and agents renew what it signed.',
  positionals: 'ID',
  description: [
    'It stays in the bundle until it is revoked, so that SVIDs verify while they are renewed. Any broker can ' +
      "taint any broker's authority; if it was the active one, its broker makes another at once.",
  ],
  options: {
    ...ADMIN_OPTIONS,
    reason: { type: 'string', value: 'TEXT', required: true, help: 'why, for the log' },
  },
  run: async ({ result }, values, [id = '']) => {
    const receipt = await openAdmin(values).taintAuthority(id, values.reason)
    result(receipt, `${id} is tainted; entry ${receipt.logIndex} in the log`)
  },
})
