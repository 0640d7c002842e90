import { randomBytes } from 'node:crypto'
import { formatEnvelope, parseSigningKey } from '@bagcheck/attest'
import { createJoinToken } from '@bagcheck/policy'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { readSmallText, writeSecret } from '../files.ts'
import { rfc3339 } from '../time.ts'
import { checkSigner, SIGNER_OPTION } from '../trust.ts'

export const nodeJoinToken = command({
  summary: 'Sign a join token: one node may enrol with it, once.',
  description: [
    'Needs no broker. Bring the file to the new node and name it in the configuration of its agent.',
  ],
  options: {
    installation: { type: 'string', value: 'NAME', required: true, help: 'the installation' },
    key: { type: 'string', value: 'FILE', required: true, help: 'the enrolment key, PEM' },
    class: {
      type: 'string',
      value: 'CLASS',
      required: true,
      help: 'class of the node, as in policy',
    },
    output: {
      type: 'string',
      value: 'FILE',
      required: true,
      help: 'where to write it (mode 0600)',
    },
    minutes: { type: 'string', value: 'N', default: '60', help: 'how long it can be used' },
    'node-days': {
      type: 'string',
      value: 'N',
      default: '90',
      help: 'how long the node is enrolled',
    },
    ...SIGNER_OPTION,
  },
  examples: [
    'bagcheck node join-token --installation production --key keys/enrolment.pem --class web -o join.json',
  ],
  run: async ({ now, result }, values) => {
    const key = parseSigningKey(await readSmallText(values.key))
    const notBefore = now()
    await checkSigner(values.trust, 'enrolment', key.keyId, notBefore)
    const token = {
      installation: values.installation,
      tokenId: randomBytes(16).toString('hex'),
      nodeClass: values.class,
      notBefore: rfc3339(notBefore),
      expires: rfc3339(new Date(notBefore.getTime() + count('--minutes', values.minutes) * 60_000)),
      nodeExpiresSeconds: count('--node-days', values['node-days']) * 86_400,
    }
    await writeSecret(values.output, formatEnvelope(createJoinToken(token, key)))
    const { tokenId, expires } = token
    result({ file: values.output, tokenId, expires }, [
      `join token  ${values.output}, id ${tokenId}`,
      `good for    one node of class ${values.class}, until ${expires}`,
    ])
  },
})

function count(option: string, text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new CliError('USAGE', `${option} takes a number`)
  return Number(text)
}
