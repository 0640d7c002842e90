import { parseEnvelope, parseStatement } from '@bagcheck/attest'
import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { readCheckpoint, verifyEntry } from '../log/entry.ts'
import { fetchTrustRoot, TRUST_OPTION } from '../trust.ts'

/** An index in the log. @throws {CliError} USAGE */
export function parseIndex(text: string): number {
  if (!/^(0|[1-9][0-9]{0,14})$/.test(text))
    throw new CliError('USAGE', `INDEX is a number, not ${JSON.stringify(text)}`)
  return Number(text)
}

export const logEntry = command({
  summary: 'Print one entry of the log, proven to be in it.',
  positionals: 'INDEX',
  options: { ...BROKER_OPTIONS, ...TRUST_OPTION },
  run: async ({ now, result }, values, [index = '']) => {
    const client = await openBroker(values)
    const entry = await client.logEntry(parseIndex(index))
    const trust = values.trust && (await fetchTrustRoot(client, values.trust, now()))
    const checkpoint = readCheckpoint(entry.checkpoint, trust || undefined)
    verifyEntry(entry, checkpoint)
    const statement = parseStatement(parseEnvelope(Buffer.from(entry.body)).payload)
    const { index: at, kind, ref } = entry
    const verified = Boolean(trust)
    result({ index: at, kind, ref, size: checkpoint.size, verified, statement }, [
      `entry      ${at} of ${checkpoint.size}${verified ? '' : ' (checkpoint not verified: no --trust)'}`,
      `kind       ${kind}`,
      `about      ${ref}`,
      `statement  ${statement.predicateType}`,
      JSON.stringify(statement.predicate, null, 2),
    ])
  },
})
