import { AUTHORITY_KINDS, type AuthorityKind } from '@bagcheck/api'
import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError } from '../error.ts'

export const authorityPrepare = command({
  summary: 'Make the next authority: in the bundle from now on, signing nothing yet.',
  positionals: 'KIND',
  description: [
    'KIND is x509 or jwt. The broker does this by itself in time; do it by hand to rotate sooner, and wait ' +
      'until verifiers have read the bundle again before you activate it.',
  ],
  options: ADMIN_OPTIONS,
  examples: ['bagcheck authority prepare x509'],
  run: async ({ result }, values, [kind = '']) => {
    const made = await openAdmin(values).prepareAuthority(kindOf(kind))
    result(
      made,
      `${made.id} is prepared, good until ${new Date(made.expiresAt * 1000).toISOString()}`,
    )
  },
})

function kindOf(text: string): AuthorityKind {
  const kind = AUTHORITY_KINDS.find((one) => one === text)
  if (kind !== undefined) return kind
  throw new CliError(
    'USAGE',
    `which kind? ${AUTHORITY_KINDS.join(' or ')}, not ${JSON.stringify(text)}`,
  )
}
