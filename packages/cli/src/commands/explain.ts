import { problemSchema, type Client, type DecisionRecord, type Evidence } from '@bagcheck/api'
import { AGENT_OPTIONS, askAgent } from '../agent-access.ts'
import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { couldNot } from '../exit-code.ts'
import { remedy } from '../policy/remedy.ts'

export const explain = command({
  summary: 'Say why a decision was made, and what would make a denied one pass.',
  positionals: 'PID|DECISION',
  description: [
    "A PID stands for the newest decision about that process's unit, which the agent of this host tells to " +
      'root. The exit code is 0 where the token was issued and 1 where it was denied.',
  ],
  options: {
    ...ADMIN_OPTIONS,
    ...AGENT_OPTIONS,
  },
  examples: ['bagcheck explain 4711', 'bagcheck explain 0198c2d4-…'],
  run: async ({ result }, values, [subject = '']) => {
    const client = openAdmin(values)
    const decision = /^[1-9][0-9]{0,9}$/.test(subject)
      ? await newestOf(client, await unitOf(Number(subject), values.agent))
      : await client.decision(subject)
    result(decision, explainDecision(decision))
    return decision.allow ? EXIT.ok : EXIT.refused
  },
})

/** The unit of a process, as the agent of this host would state it. */
async function unitOf(pid: number, agent: string): Promise<string> {
  const { status, body } = await askAgent(agent, 'GET', `/v1/unit?pid=${pid}`)
  if (status !== 200) {
    const problem = problemSchema.safeParse(body)
    const said = problem.success ? problem.data.error_description : `it answered ${status}`
    throw new CliError('NOT_FOUND', `the agent does not tell the unit of process ${pid}: ${said}`, {
      exit: couldNot(status) ? EXIT.failed : EXIT.refused,
    })
  }
  const { launcher, name, cgroup } = body as Evidence['facts']['unit']
  if (launcher !== 'none') return name
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
    unit === null
      ? `for       node ${node}, whose evidence did not verify`
      : `for       unit ${unit} on node ${node}, audience ${audience}`,
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
