import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { writeOutput } from '../files.ts'
import { readCheckpoint, verifyEntry } from '../log/entry.ts'
import { parseIndex } from './log-entry.ts'

export const logProve = command({
  summary: 'Export one entry with its inclusion proof and checkpoint.',
  positionals: 'INDEX',
  options: {
    output: { type: 'string', value: 'FILE', help: 'write there instead of standard output' },
    ...BROKER_OPTIONS,
  },
  examples: [
    'bagcheck log prove 12 -o entry-12.json && bagcheck log verify entry-12.json --trust root.json',
  ],
  run: async ({ print, result }, values, [index = '']) => {
    const entry = await (await openBroker(values)).logEntry(parseIndex(index))
    verifyEntry(entry, readCheckpoint(entry.checkpoint, undefined))
    const text = JSON.stringify(entry)
    if (values.output === undefined) return print(text)
    await writeOutput(values.output, `${text}\n`)
    result({ index: entry.index, file: values.output }, `entry ${index} is in ${values.output}`)
  },
})
