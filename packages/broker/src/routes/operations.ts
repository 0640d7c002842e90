import type { Broker } from '../broker.ts'
import type { Handler } from '../app.ts'
import { readiness } from '../health.ts'
import { content, json } from './answer.ts'

export const livez: Handler = () => content('ok\n', 'text/plain; charset=utf-8')

export const readyz: Handler = async ({ broker }) => {
  const answer = await readiness(broker)
  return json(answer, { status: answer.ready ? 200 : 503 })
}

export const metrics: Handler = async ({ broker }) => {
  const policy = broker.policy.current()
  const health = await broker.store.health().catch(() => null) // its absence is the measure
  const now = broker.clock.wallMs() / 1000
  // Without the store what is known stands, and grows old.
  await broker.lastSuccess.refresh().catch(() => undefined)
  const gauges = {
    policy_version: { help: 'Installed policy version', value: policy?.version ?? 0 },
    policy_expires_seconds: {
      help: 'Seconds until the installed policy or the trust root behind it expires',
      value: policy && Math.round(policy.verified.inForceMs.until / 1000 - now),
    },
    authority_expires_seconds: {
      help: 'Seconds until the first of the authorities that sign SVIDs here expires',
      value: untilFirst(broker, now),
    },
    log_size: { help: 'Entries in the log', value: health?.size ?? null },
    store_up: { help: '1 if the store answers', value: health === null ? 0 : 1 },
    store_waiting: { help: 'Writes that wait for the store', value: health?.waiting ?? null },
    closures: { help: 'Attested closures in memory', value: broker.closures.size },
  }
  const text = broker.metrics.text(gauges, broker.lastSuccess.lines(broker.nodes))
  return content(text, 'text/plain; version=0.0.4; charset=utf-8')
}

function untilFirst({ authorities }: Broker, now: number): number | null {
  const signing = authorities.list().filter(({ local, state }) => local && state === 'active')
  const ends = signing.map(({ expiresAt }) => Math.round(expiresAt - now))
  return ends.length === 0 ? null : Math.min(...ends)
}
