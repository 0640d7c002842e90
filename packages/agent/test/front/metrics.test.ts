import { expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { labels, MeasureMetrics, metricsText } from '../../src/front/metrics.ts'
import type { Success } from '../../src/front/outcomes.ts'
import { readInstance } from '../../src/measure/instance.ts'

const instance = readInstance(process.pid)

async function text(successes: readonly Success[] = []): Promise<string> {
  const measurements = new MeasureMetrics()
  const failing = measurements.timed(() => Promise.reject(new AgentError('PROCESS_HIDDEN', 'x')))
  await failing(instance).catch(() => undefined)
  return metricsText({
    outcomes: { successes: () => successes, byCode: new Map([['TRACED', 2]]), issued: 3 },
    measurements,
    measurer: () => ({ up: false, waiting: 1 }),
    sessions: () => ({ size: 1, held: 2 }),
    policyVersion: () => 7,
    enrolmentExpiresAt: 100,
    more: () => ['extra 1'],
    now: () => 60_000,
  })
}

test('says when each unit last succeeded, how old that is, and why others did not', async () => {
  const unit = { launcher: 'systemd', name: 'orders.service', cgroup: '/x' } as const
  const success = { unit, audience: 'https://a', at: 20_000, decision: 'd', logIndex: 1, instance }
  const lines = (await text([success, { ...success, audience: null }])).split('\n')
  expect(lines).toEqual(
    expect.arrayContaining([
      'bagcheck_agent_last_success_seconds{launcher="systemd",unit="orders.service",audience="https://a"} 20',
      'bagcheck_agent_last_success_age_seconds{launcher="systemd",unit="orders.service",audience="https://a"} 40',
      'bagcheck_agent_last_success_seconds{launcher="systemd",unit="orders.service",audience="x509-svid"} 20',
      'bagcheck_agent_issued_total 3',
      'bagcheck_agent_denied_total{code="TRACED"} 2',
      'bagcheck_agent_measure_failures_total{code="PROCESS_HIDDEN"} 1',
      'bagcheck_agent_measure_seconds_count 1',
      'bagcheck_agent_measurer_up 0',
      'bagcheck_agent_tokens_held 2',
      'bagcheck_agent_enrolment_expires_seconds 40',
      'extra 1',
    ]),
  )
})

test('every line is a comment or a series', async () => {
  const series =
    /^[a-z0-9_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? \S+$/
  for (const line of (await text()).trimEnd().split('\n'))
    expect(line).toMatch(line.startsWith('#') ? /^# (HELP|TYPE) / : series)
})

test('a unit whose name holds quotes and newlines makes one series, not two', () => {
  expect(labels({ unit: 'a"} 1\nforged{x="\\' })).toBe('{unit="a\\"} 1\\nforged{x=\\"\\\\"}')
})
