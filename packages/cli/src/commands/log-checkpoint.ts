import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { readCheckpoint } from '../log/entry.ts'
import { fetchTrustRoot, TRUST_OPTION } from '../trust.ts'

export const logCheckpoint = command({
  summary: "Print the log's newest signed checkpoint.",
  description: ['With --trust its signature is verified with the keys of the trust root.'],
  options: { ...BROKER_OPTIONS, ...TRUST_OPTION },
  run: async ({ now, result }, values) => {
    const client = await openBroker(values)
    const note = await client.checkpoint()
    const trust = values.trust && (await fetchTrustRoot(client, values.trust, now()))
    const { origin, size, root } = readCheckpoint(note, trust || undefined)
    const verified = Boolean(trust)
    result(
      { origin, size, root: Buffer.from(root).toString('base64'), verified, note },
      note.trimEnd(),
    )
  },
})
