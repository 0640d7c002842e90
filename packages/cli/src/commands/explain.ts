import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Client, DecisionRecord } from '@bagcheck/api'
import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { remedy } from '../policy/remedy.ts'

export const explain = command({
  summary: 'Say why a decision was made, and what would make a denied one pass.',
  positionals: 'PID|DECISION',
  description: [
    "A PID stands for the newest decision about that process's unit. The exit code is 0 where the token " +
      'was issued and 1 where it was denied.',
  ],
  options: {
    ...ADMIN_OPTIONS,
    'units-dir': {
      type: 'string',
      value: 'DIR',
      default: '/run/bagcheck/units',
      environment: 'BAGCHECK_UNITS_DIR',
      help: 'where bagcheck exec records units',
    },
  },
  examples: ['bagcheck explain 4711', 'bagcheck explain 0198c2d4-…'],
  run: async ({ result }, values, [subject = '']) => {
    const client = openAdmin(values)
    const decision = /^[1-9][0-9]{0,9}$/.test(subject)
      ? await newestOf(client, await unitOf(Number(subject), values['units-dir']))
      : await client.decision(subject)
    result(decision, explainDecision(decision))
    return decision.allow ? EXIT.ok : EXIT.refused
  },
})

/** The unit of a process, from its cgroup and what `bagcheck exec` recorded. */
async function unitOf(pid: number, unitsDirectory: string): Promise<string> {
  const text = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => {
    throw new CliError('NOT_FOUND', `no process ${pid}`)
  })
  const cgroup = /^0::(.*)$/m.exec(text)?.[1] ?? '/'
  for (const name of await readdir(unitsDirectory).catch(() => [])) {
    if (!name.endsWith('.json')) continue
    const record = JSON.parse(await readFile(join(unitsDirectory, name), 'utf8')) as {
      name: string
      cgroup: string
    }
    if (cgroup === record.cgroup || cgroup.startsWith(`${record.cgroup}/`)) return record.name
  }
  const service = /([^/]+\.service)$/.exec(cgroup)?.[1]
  if (service !== undefined) return service
  throw new CliError(
    'NOT_FOUND',
    `process ${pid} belongs to no unit (cgroup ${cgroup}); start it with bagcheck exec or systemd`,
    { exit: EXIT.refused },
  )
}

async function newestOf(client: Client, unit: string): Promise<DecisionRecord> {
  const { decisions } = await client.decisions({ unit, limit: 1 })
  const [newest] = decisions
  if (newest === undefined) throw new CliError('NOT_FOUND', `no decision about unit ${unit}`)
  return newest
}

function explainDecision(decision: DecisionRecord): string[] {
  const { id, allow, at, node, unit, role, audience, root, closureDigest, reasons } = decision
  return [
    `decision  ${id}, entry ${decision.logIndex} in the log: ${allow ? 'ALLOWED' : 'DENIED'}`,
    `at        ${new Date(at * 1000).toISOString()}, ${decision.purpose}`,
    `for       unit ${unit} on node ${node}, audience ${audience}`,
    `role      ${role ?? 'none'}`,
    ...(root === null ? [] : [`bag       ${root}`, `          closure ${closureDigest}`]),
    ...reasons.flatMap(({ code, message, nearest }) => {
      const advice = remedy(code)
      return [
        `because   ${code}: ${message}`,
        ...(nearest
          ? [
              `          nearest approved: ${nearest.root}`,
              `          first difference: ${nearest.firstDifference}`,
            ]
          : []),
        ...(advice === null ? [] : [`to pass   ${advice}`]),
      ]
    }),
  ]
}
