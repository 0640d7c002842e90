import { join } from 'node:path'
import {
  formatEnvelope,
  formatVerifyingKey,
  generateSigningKey,
  type SigningKey,
} from '@bagcheck/attest'
import { generateNoteKey } from '@bagcheck/log'
import {
  INSTALLATION_NAME,
  createTrustRoot,
  trustRootDigest,
  type TrustRole,
  type TrustRootInput,
} from '@bagcheck/policy'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { makeNewDirectory, writeOutput, writeSecret } from '../files.ts'
import { rfc3339 } from '../time.ts'

const DAY_MS = 86_400_000

/** A role of the trust root with the number of its keys and how many must sign. */
interface RoleSize {
  readonly threshold: number
  readonly keys: number
}

export const policyInit = command({
  summary: 'Make a trust root and the keys that it names.',
  description: [
    'Writes root.json, keys/ROLE-N.pem (mode 0600) with their .pub, and keys/log.key. Print the digest and ' +
      'pin it in the configuration of broker, agent and auditor: it is what all trust hangs on. Then take ' +
      'the root keys offline, and give each of the others to who is to use it.',
  ],
  options: {
    installation: { type: 'string', value: 'NAME', required: true, help: 'one per environment' },
    output: {
      type: 'string',
      value: 'DIR',
      required: true,
      help: 'directory to make; if it is there it must be empty',
    },
    root: { type: 'string', value: 'N/M', default: '2/3', help: 'N of M root keys must sign' },
    policy: { type: 'string', value: 'N/M', default: '2/3', help: 'N of M policy keys must sign' },
    approvals: {
      type: 'string',
      value: 'N/M',
      default: '1/1',
      help: 'reserved for change requests',
    },
    'expires-days': { type: 'string', value: 'DAYS', default: '365', help: 'life of this version' },
    origin: {
      type: 'string',
      value: 'NAME',
      help: 'origin of the log; default: INSTALLATION.bagcheck.log',
    },
  },
  examples: ['bagcheck policy init --installation production -o trust/ --policy 2/3'],
  run: async ({ now, result }, values) => {
    const { installation, output } = values
    if (!INSTALLATION_NAME.test(installation))
      throw new CliError('USAGE', 'an installation is named with a-z, 0-9, "." and "-", 64 at most')
    if (!/^[1-9][0-9]{0,4}$/.test(values['expires-days']))
      throw new CliError('USAGE', '--expires-days takes a number of days')
    const sizes: Readonly<Record<TrustRole, RoleSize>> = {
      root: parseSize('--root', values.root),
      policy: parseSize('--policy', values.policy),
      approvals: parseSize('--approvals', values.approvals),
      enrolment: { threshold: 1, keys: 1 },
      broker: { threshold: 1, keys: 1 },
    }
    const keys = new Map<string, SigningKey>()
    const folder = join(output, 'keys')
    await makeNewDirectory(output)
    await makeNewDirectory(folder)
    for (const [role, size] of Object.entries(sizes)) {
      for (let index = 1; index <= size.keys; index++) {
        const name = size.keys === 1 ? role : `${role}-${index}`
        const { signing, pem } = generateSigningKey()
        await writeSecret(join(folder, `${name}.pem`), pem)
        await writeOutput(join(folder, `${name}.pub`), formatVerifyingKey(signing))
        keys.set(name, signing)
      }
    }
    const origin = values.origin ?? `${installation}.bagcheck.log`
    const log = generateNoteKey(origin)
    await writeSecret(join(folder, 'log.key'), `${log.secretKey}\n`)
    await writeOutput(join(folder, 'log.pub'), `${log.vkey}\n`)

    const role = (name: TrustRole): TrustRootInput['roles'][TrustRole] => ({
      threshold: sizes[name].threshold,
      keys: [...keys]
        .filter(([key]) => key === name || key.startsWith(`${name}-`))
        .map(([key, signing]) => ({ name: key, key: signing })),
    })
    const expires = rfc3339(new Date(now().getTime() + Number(values['expires-days']) * DAY_MS))
    const envelope = createTrustRoot(
      {
        installation,
        version: 1,
        expires,
        prev: null,
        roles: {
          root: role('root'),
          policy: role('policy'),
          approvals: role('approvals'),
          enrolment: role('enrolment'),
          broker: role('broker'),
        },
        log: { origin, keys: [log.vkey] },
      },
      [...keys].filter(([name]) => /^root(-|$)/.test(name)).map(([, key]) => key),
    )
    const text = formatEnvelope(envelope)
    const file = join(output, 'root.json')
    await writeOutput(file, text)
    const pin = trustRootDigest(text)
    result({ installation, file, pin, keys: [...keys.keys()], expires }, [
      `trust root   ${file}, version 1, until ${expires}`,
      `keys         ${folder}: ${[...keys.keys(), 'log'].join(', ')}`,
      `pin this     ${pin}`,
    ])
  },
})

function parseSize(option: string, text: string): RoleSize {
  const [, threshold, keys] = /^([1-9][0-9]?)\/([1-9][0-9]?)$/.exec(text) ?? []
  const size = { threshold: Number(threshold), keys: Number(keys) }
  if (threshold === undefined || keys === undefined || size.threshold > size.keys)
    throw new CliError(
      'USAGE',
      `${option} takes N/M with N no more than M, not ${JSON.stringify(text)}`,
    )
  return size
}
