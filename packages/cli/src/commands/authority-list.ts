import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const authorityList = command({
  summary: 'List the authorities that sign SVIDs, of all brokers.',
  description: [
    'Prepared, active, old and tainted ones are in the trust bundle; an active one signs. "here" are those ' +
      'whose keys the asked broker has.',
  ],
  options: ADMIN_OPTIONS,
  run: async ({ result }, values) => {
    const { authorities } = await openAdmin(values).authorities()
    const lines = authorities.map(
      ({ id, kind, state, local, expiresAt }) =>
        `${id}  ${kind}  ${state}  ${local ? 'here' : 'elsewhere'}  until ${new Date(expiresAt * 1000).toISOString()}`,
    )
    result({ authorities }, lines.length === 0 ? 'no authority: the policy has no SVIDs' : lines)
  },
})
