// Decisions in process, by policies of 10 to 100,000 approved roots, and how long such a policy takes to
// load: parse, check and verify its signatures. Requests are of several units, in turn.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { evaluate, verifyPolicyDocument, type EvaluationContext } from '@bagcheck/policy'
import { runningHost } from '../packages/testkit/src/index.ts'
import { effort, format, printBudget } from './budget.ts'
import { services, type Service } from './closures.ts'
import { factsOf } from './facts.ts'
import { createInstallation, type Installation } from './installation.ts'
import { makeScratch } from './scratch.ts'
import { median, printTable, quantile } from './statistics.ts'

/** As a fleet has them, up to 100 versions of a service; and all in one role, the worst for one index. */
const SIZES = [
  { roots: 10, roles: 1 },
  { roots: 1_000, roles: 10 },
  { roots: 100_000, roles: 1_000 },
  { roots: 100_000, roles: 1 },
]
const SERVICES = 16
const WARM_UP = 20_000

/** Prints the table. */
export async function run(): Promise<void> {
  const directory = makeScratch()
  try {
    const installation = createInstallation(join(directory, 'installation'), services(SERVICES))
    const rows = SIZES.map((size) => ({ ...size, ...measure(installation, size) }))
    printTable(
      ['approved roots', 'roles', 'policy MB', 'load s', 'decision p50 µs', 'p99 µs'],
      rows.map(({ roots, roles, bytes, loadSeconds, p50, p99 }) => [
        `${roots}`,
        `${roles}`,
        format(bytes / 1e6),
        format(loadSeconds),
        format(p50),
        format(p99),
      ]),
    )
    const largest = rows.filter(({ roots }) => roots === 100_000)
    const worst = (values: readonly number[]): number => Math.max(...values)
    printBudget(
      { what: 'decision with 100,000 roots, p50', limit: 5, unit: 'µs' },
      worst(largest.map(({ p50 }) => p50)),
    )
    printBudget(
      { what: 'loading that policy', limit: 0.7, unit: 's' },
      worst(largest.map(({ loadSeconds }) => loadSeconds)),
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function measure(
  installation: Installation<Service>,
  size: { roots: number; roles: number },
): { bytes: number; loadSeconds: number; p50: number; p99: number } {
  const document = installation.policy(size)
  const loads = Array.from({ length: effort(5, 1) }, () => {
    const start = performance.now()
    verifyPolicyDocument(document, installation.root)
    return (performance.now() - start) / 1000
  })
  const policy = verifyPolicyDocument(document, installation.root)
  const now = new Date()
  const attested = installation.services.map(({ closure }) => closure)
  const closures = new Map(attested.map((closure) => [closure.manifest.digest, closure]))
  const requests = installation.services
    .slice(0, size.roles)
    .map((service) => factsOf(service, now.getTime() / 1000))
  const context: EvaluationContext = {
    nodeClass: 'bench',
    tier: 0,
    now,
    workloadKey: 'A'.repeat(43),
    profile: null,
    type: 'access_token',
    host: runningHost(),
    closures: { get: (digest) => closures.get(digest as never) },
  }
  const decide = (index: number): void => {
    const facts = requests[index % requests.length]
    if (facts === undefined) throw new TypeError('expected a request')
    const decision = evaluate(policy, facts, context)
    if (!decision.allow) throw new Error(`denied: ${decision.reasons[0]?.message}`)
  }
  for (let index = 0; index < effort(WARM_UP, 100); index += 1) decide(index)
  const micros = Array.from({ length: effort(200_000, 1_000) }, (_, index) => {
    const start = performance.now()
    decide(index)
    return (performance.now() - start) * 1000
  })
  return {
    bytes: Buffer.byteLength(document.json),
    loadSeconds: median(loads),
    p50: median(micros),
    p99: quantile(micros, 0.99),
  }
}
