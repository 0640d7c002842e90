import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'

export const nodeList = command({
  summary: 'List enrolled nodes, and when each last got a token.',
  options: ADMIN_OPTIONS,
  run: async ({ result }, values) => {
    const { nodes } = await openAdmin(values).nodes()
    const lines = nodes.map(({ node, nodeClass, expiresAt, banned, banReason, lastSuccessAt }) => {
      const state = banned
        ? `banned: ${banReason ?? ''}`
        : `until ${new Date(expiresAt * 1000).toISOString()}`
      const last =
        lastSuccessAt === null
          ? 'no token yet'
          : `last token ${new Date(lastSuccessAt * 1000).toISOString()}`
      return `${node}  ${nodeClass}  ${state}  ${last}`
    })
    result({ nodes }, lines.length === 0 ? 'no node is enrolled' : lines)
  },
})
