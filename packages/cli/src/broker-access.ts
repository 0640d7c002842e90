// How commands reach a broker: over its URL, or over the admin socket, which serves every route.
import { createClient, type Client } from '@bagcheck/api'
import { CliError } from './error.ts'
import { readSmallText } from './files.ts'

export const ADMIN_OPTIONS = {
  admin: {
    type: 'string',
    value: 'SOCKET',
    environment: 'BAGCHECK_ADMIN_SOCKET',
    help: "the broker's admin socket",
  },
} as const

export const BROKER_OPTIONS = {
  broker: {
    type: 'string',
    value: 'URL',
    environment: 'BAGCHECK_BROKER',
    help: 'where the broker listens',
  },
  'broker-ca': {
    type: 'string',
    value: 'FILE',
    environment: 'BAGCHECK_BROKER_CA',
    help: "certificate of the broker's authority, PEM",
  },
  ...ADMIN_OPTIONS,
} as const

/** A client for the broker that the options name. @throws {CliError} USAGE */
export async function openBroker(values: {
  readonly broker: string | undefined
  readonly 'broker-ca': string | undefined
  readonly admin: string | undefined
}): Promise<Client> {
  if (values.broker !== undefined) {
    const ca = values['broker-ca']
    const address = { url: values.broker, ...(ca && { ca: await readSmallText(ca) }) }
    return createClient(address)
  }
  if (values.admin !== undefined) return createClient({ socket: values.admin })
  throw new CliError(
    'USAGE',
    'which broker? Give --broker URL or --admin SOCKET, or set BAGCHECK_BROKER or BAGCHECK_ADMIN_SOCKET',
  )
}

/** A client for the admin socket. @throws {CliError} USAGE */
export function openAdmin(values: { readonly admin: string | undefined }): Client {
  if (values.admin !== undefined) return createClient({ socket: values.admin })
  throw new CliError('USAGE', 'give --admin SOCKET, or set BAGCHECK_ADMIN_SOCKET')
}
