import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { verdictOf } from './explain.ts'

export const decisions = command({
  summary: 'List decisions and observations, newest first.',
  description: ['"bagcheck explain DECISION" gives all reasons of one.'],
  options: {
    unit: { type: 'string', value: 'NAME', help: 'only about this unit' },
    role: { type: 'string', value: 'NAME', help: 'only in this role' },
    denied: { type: 'boolean', help: 'only what was denied' },
    observed: { type: 'boolean', help: 'only observations, of which nothing was issued' },
    limit: { type: 'string', value: 'N', default: '20', help: 'at most so many, up to 999' },
    before: { type: 'string', value: 'ENTRY', help: 'only those with a lesser log index' },
    ...ADMIN_OPTIONS,
  },
  examples: ['bagcheck decisions --unit orders.service --denied', 'bagcheck decisions --observed'],
  run: async ({ result }, values) => {
    const { unit, role, denied, observed, limit, before } = values
    if (denied && observed) throw new CliError('USAGE', 'give --denied or --observed, not both')
    if (!/^[1-9][0-9]{0,2}$/.test(limit))
      throw new CliError('USAGE', `--limit takes a number up to 999, not ${JSON.stringify(limit)}`)
    if (before !== undefined && !/^[0-9]{1,15}$/.test(before))
      throw new CliError('USAGE', `--before takes a log index, not ${JSON.stringify(before)}`)
    const answer = await openAdmin(values).decisions({
      limit: Number(limit),
      ...(before !== undefined && { before: Number(before) }),
      ...(unit !== undefined && { unit }),
      ...(role !== undefined && { role }),
      ...(denied && { allow: false, kind: 'decision' as const }),
      ...(observed && { kind: 'observation' as const }),
    })
    const lines = answer.decisions.map((decision) => {
      const { id, at, logIndex, node, audience, reasons } = decision
      const why = reasons[0] === undefined ? '' : `  ${reasons[0].code}`
      const about = `${decision.unit ?? '-'}  ${audience ?? '-'}  ${node}`
      const when = new Date(at * 1000).toISOString()
      return `${logIndex}  ${when}  ${verdictOf(decision)}${why}  ${about}  ${id}`
    })
    result(answer, lines.length === 0 ? 'nothing was decided' : lines)
  },
})
