import { logEntryResponseSchema } from '@bagcheck/api'
import { parseStrictJson } from '@bagcheck/attest'
import { verifyTrustRootChain } from '@bagcheck/policy'
import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { readInput, readSmallText } from '../files.ts'
import { auditLog } from '../log/audit.ts'
import { readCheckpoint, verifyEntry } from '../log/entry.ts'
import { fetchTrustRoot, readPin, TRUST_OPTION } from '../trust.ts'

const MAX_ENTRY_FILE_BYTES = 8 * 1024 * 1024

export const logVerify = command({
  summary: 'Verify the whole log, or one exported entry offline.',
  positionals: '[FILE]',
  description: [
    'Without FILE every entry is read from the broker and the root computed anew. With FILE, which ' +
      '"log prove" wrote, nothing is asked: the trust root comes from --trust, further versions from --root.',
  ],
  options: {
    ...BROKER_OPTIONS,
    ...TRUST_OPTION,
    root: {
      type: 'string',
      value: 'FILE',
      multiple: true,
      help: 'with FILE: trust root versions 2, 3, … in order',
    },
  },
  run: async ({ now, result, progress }, values, [file]) => {
    if (values.trust === undefined)
      throw new CliError('USAGE', 'verifying needs a trust root: give --trust ROOT')
    if (file === undefined) {
      const client = await openBroker(values)
      const trust = await fetchTrustRoot(client, values.trust, now())
      const checkpoint = readCheckpoint(await client.checkpoint(), trust)
      await auditLog(client, checkpoint, (size) => progress(`read ${size} of ${checkpoint.size}`))
      result(
        { origin: checkpoint.origin, size: checkpoint.size, ok: true },
        `${checkpoint.origin}: ${checkpoint.size} entries give the root that the log signed`,
      )
      return EXIT.ok
    }
    if (values.trust.startsWith('sha256:'))
      throw new CliError('USAGE', 'offline, --trust must be the file of the trust root')
    const chain = await Promise.all([values.trust, ...values.root].map(readSmallText))
    const trust = verifyTrustRootChain(chain, { pin: await readPin(values.trust), now: now() })
    const bytes = await readInput(file, MAX_ENTRY_FILE_BYTES)
    const json = parseStrictJson(bytes, { maxBytes: MAX_ENTRY_FILE_BYTES, maxDepth: 8 })
    const parsed = logEntryResponseSchema.safeParse(json)
    if (!parsed.success)
      throw new CliError('FILE_UNREADABLE', `${file} is not what "log prove" writes`)
    const checkpoint = readCheckpoint(parsed.data.checkpoint, trust)
    verifyEntry(parsed.data, checkpoint)
    result(
      { index: parsed.data.index, size: checkpoint.size, ok: true },
      `entry ${parsed.data.index} is in the log ${checkpoint.origin} at size ${checkpoint.size}`,
    )
    return EXIT.ok
  },
})
