import { command } from '../command.ts'
import { examineHost } from '../doctor.ts'
import { EXIT } from '../error.ts'
import { AGENT_OPTIONS } from '../agent-access.ts'
import { BROKER_OPTIONS } from '../broker-access.ts'

export const doctor = command({
  summary: 'Say what is missing on this host, and how to get it.',
  description: ['The exit code is 1 where something is missing that Bagcheck cannot do without.'],
  options: { ...AGENT_OPTIONS, ...BROKER_OPTIONS },
  run: async ({ result, signal }, values) => {
    const findings = await examineHost(values, signal)
    const mark = { ok: 'ok     ', note: 'note   ', missing: 'MISSING' } as const
    result(
      { findings },
      findings.map(({ state, what, seen, remedy }) =>
        [`${mark[state]}  ${what}: ${seen}`, ...(remedy ? [`         → ${remedy}`] : [])].join(
          '\n',
        ),
      ),
    )
    return findings.some(({ state }) => state === 'missing') ? EXIT.refused : EXIT.ok
  },
})
