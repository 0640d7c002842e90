import { problemSchema, z } from '@bagcheck/api'
import { AGENT_OPTIONS, askAgent } from '../agent-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { couldNot } from '../exit-code.ts'
import { remedy } from '../policy/remedy.ts'

/** Of the agent's answer what is printed alone without `--json`. */
const grantedSchema = z.looseObject({ accessToken: z.string().min(1) })

export const token = command({
  summary: 'Ask the agent for a token and print it.',
  description: [
    'What the agent measures is the process that asks: this one. So it works from a unit whose approved ' +
      'closure holds this program, for an audience that takes bearer tokens; a service asks from its own ' +
      'code, with a key of its own, or has the agent write its tokens into a file (tokenFiles of the agent).',
    'The token alone is printed, with --json all of the answer. A denial says why, what would make the request ' +
      'pass, and which decision it was.',
  ],
  options: {
    audience: { type: 'string', value: 'URL', required: true, help: 'who the token is for' },
    ttl: { type: 'string', value: 'SECONDS', help: 'wanted lifetime; policy has the last word' },
    profile: {
      type: 'string',
      value: 'NAME',
      help: 'denied if the policy gives the audience another one',
    },
    ...AGENT_OPTIONS,
  },
  examples: ['bagcheck token --audience https://api.example.org'],
  run: async ({ result, signal }, { audience, ttl, profile, agent }) => {
    if (!URL.canParse(audience))
      throw new CliError('USAGE', `--audience takes a URL, not ${JSON.stringify(audience)}`)
    if (ttl !== undefined && !/^[1-9][0-9]{0,5}$/.test(ttl))
      throw new CliError('USAGE', `--ttl takes seconds, not ${JSON.stringify(ttl)}`)
    const answer = await askAgent(agent, signal, 'POST', '/v1/token', {
      audience,
      ...(ttl === undefined ? {} : { ttlSeconds: Number(ttl) }),
      ...(profile === undefined ? {} : { profile }),
    })
    const granted = grantedSchema.safeParse(answer.body)
    if (answer.status === 200 && granted.success) {
      result(granted.data, granted.data.accessToken)
      return EXIT.ok
    }
    const problem = problemSchema.safeParse(answer.body)
    if (!problem.success)
      throw new CliError(
        'AGENT_UNREACHABLE',
        `the agent's answer, of status ${answer.status}, is not understood`,
      )
    const { code, error_description: description, reasons = [], decision } = problem.data
    // The description is the first reason's.
    const said = reasons.length > 0 ? reasons : [{ code, message: description }]
    const lines = [
      ...said.flatMap((reason) => {
        const advice = remedy(reason.code)
        return [
          `${reason.code}: ${reason.message}`,
          ...(advice === null ? [] : [`to pass: ${advice}`]),
        ]
      }),
      ...(decision === undefined ? [] : [`"bagcheck explain ${decision}" tells of the decision`]),
    ]
    throw new CliError('REFUSED', lines.join('\n  '), {
      exit: couldNot(answer.status) ? EXIT.failed : EXIT.refused,
      detail: problem.data,
    })
  },
})
