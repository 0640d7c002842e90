// Readiness: could a token be issued now? Each check says what it saw.
import type { Readiness } from '@bagcheck/api'
import { whyNotInForce } from '@bagcheck/policy'
import type { Broker } from './broker.ts'

type Check = Readiness['checks'][number]

/** Runs every check; `ready` if all hold. */
export async function readiness(broker: Broker): Promise<Readiness> {
  const checks = [await checkStore(broker), checkClock(broker), checkPolicy(broker)]
  return { ready: checks.every(({ ok }) => ok), checks }
}

async function checkStore({ store }: Broker): Promise<Check> {
  try {
    const { size } = await store.health()
    return { name: 'store', ok: true, detail: `${size} log entries` }
  } catch (error) {
    return { name: 'store', ok: false, detail: codeOf(error) }
  }
}

function checkClock({ clock }: Broker): Check {
  try {
    clock.nowMs()
    return { name: 'clock', ok: true, detail: 'goes forward' }
  } catch (error) {
    return { name: 'clock', ok: false, detail: codeOf(error) }
  }
}

function checkPolicy({ policy, clock }: Broker): Check {
  const installed = policy.current()
  if (installed === null) return { name: 'policy', ok: false, detail: 'POLICY_MISSING' }
  const { version, verified } = installed
  const why = whyNotInForce(verified, new Date(clock.wallMs()))
  if (why !== null) return { name: 'policy', ok: false, detail: why }
  const until = new Date(verified.inForceMs.until).toISOString()
  return { name: 'policy', ok: true, detail: `version ${version}, in force until ${until}` }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'failed'
}
