import { problemSchema, type DecisionRecord } from '@bagcheck/api'
import { AGENT_OPTIONS, askAgent } from '../agent-access.ts'
import {
  explanationLines,
  explanationSchema,
  reasonLines,
  type Explanation,
} from '../agent-explanation.ts'
import { ADMIN_OPTIONS, openAdmin } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { couldNot } from '../exit-code.ts'

export const explain = command({
  summary: 'Say why a decision was made, and what would make a denied one pass.',
  positionals: 'PID|DECISION',
  description: [
    'Of a PID the agent of this host tells root what it would state about it now (its unit, the closures that ' +
      'fit, foreign files), why its last request came out as it did, and what was last observed of it. With ' +
      "--admin, and where the agent knows of no request, the newest decision about its unit is the broker's. " +
      'What looks like a secret in arguments is not shown; tokens never are.',
    'Of a DECISION the broker tells all reasons (--admin).',
    'The exit code is 0 where the token was issued, and 1 where it was denied or nothing was asked for yet.',
  ],
  options: {
    ...ADMIN_OPTIONS,
    ...AGENT_OPTIONS,
  },
  examples: ['bagcheck explain 4711', 'bagcheck explain 0198c2d4-…'],
  run: async ({ result, signal }, values, [subject = '']) => {
    if (!/^[1-9][0-9]{0,9}$/.test(subject)) {
      const decision = await openAdmin(values).decision(subject)
      result(decision, explainDecision(decision))
      return decision.allow ? EXIT.ok : EXIT.refused
    }
    const said = await askAbout(Number(subject), values.agent, signal)
    const decision = said.last === null ? await newestDecision(said, values) : undefined
    result(decision === undefined ? said : { ...said, decision }, [
      ...explanationLines(said),
      ...(decision === undefined ? [] : ['', ...explainDecision(decision)]),
    ])
    return (said.last?.allowed ?? decision?.allow) === true ? EXIT.ok : EXIT.refused
  },
})

async function askAbout(pid: number, agent: string, signal: AbortSignal): Promise<Explanation> {
  const { status, body } = await askAgent(agent, signal, 'GET', `/v1/explain?pid=${pid}`)
  if (status !== 200) {
    const problem = problemSchema.safeParse(body)
    const said = problem.success ? problem.data.error_description : `it answered ${status}`
    throw new CliError('NOT_FOUND', `the agent does not tell of process ${pid}: ${said}`, {
      exit: couldNot(status) ? EXIT.failed : EXIT.refused,
    })
  }
  const explanation = explanationSchema.safeParse(body)
  if (explanation.success) return explanation.data
  throw new CliError('AGENT_UNREACHABLE', 'the agent explains in a way that is not understood')
}

/** What the broker decided last about the unit, where it is to be asked. */
async function newestDecision(
  { now }: Explanation,
  values: { readonly admin: string | undefined },
): Promise<DecisionRecord | undefined> {
  if (!now.measured || now.unit.launcher === 'none' || values.admin === undefined) return undefined
  const query = { unit: now.unit.name, kind: 'decision', limit: 1 } as const
  const { decisions } = await openAdmin(values).decisions(query)
  return decisions[0]
}

/** A decision in words. */
function explainDecision(decision: DecisionRecord): string[] {
  const { id, at, node, unit, role, audience, root, closureDigest, reasons } = decision
  return [
    `decision  ${id}, entry ${decision.logIndex} in the log: ${verdictOf(decision)}`,
    `at        ${new Date(at * 1000).toISOString()}, ${decision.purpose}`,
    unit === null
      ? `for       node ${node}, whose evidence did not verify`
      : `for       unit ${unit} on node ${node}, audience ${audience}`,
    `role      ${role ?? 'none'}`,
    ...(root === null ? [] : [`bag       ${root}`, `          closure ${closureDigest}`]),
    ...reasonLines(reasons),
  ]
}

/** An observation is neither: nothing was asked for. */
export function verdictOf({ allow, wouldAllow }: DecisionRecord): string {
  if (wouldAllow !== null) return wouldAllow ? 'OBSERVED, would allow' : 'OBSERVED, would deny'
  return allow ? 'ALLOWED' : 'DENIED'
}
