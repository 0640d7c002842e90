import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const authorityActivate = command({
  summary: 'Let a prepared authority sign; the active one becomes old and signs no more.',
  positionals: 'ID',
  description: ['Only by the broker that has its key; what the old one signed goes on verifying.'],
  options: ADMIN_OPTIONS,
  run: async ({ result }, values, [id = '']) => {
    const receipt = await openAdmin(values).activateAuthority(id)
    result(receipt, `${id} is active; entry ${receipt.logIndex} in the log`)
  },
})
