// What evidence is judged in. The broker that decides and the auditor who decides again both build it here:
// built twice, the two could drift, and an audit would no longer repeat the decision.
import type { ClosureIndex } from './closures.ts'
import type { EvaluationContext } from './evaluate.ts'
import type { HostFacts } from './facts.ts'
import type { TokenType } from './policy.ts'

/** What a decision is made from, beside policy and facts. */
export interface DecisionBasis {
  /** What the evidence says beside its facts. */
  readonly evidence: {
    readonly workloadKey: string | null
    readonly profile: string | null
    readonly host: HostFacts
  }
  /** From the enrolment of the node. */
  readonly nodeClass: string
  /** When it is decided, in seconds since the epoch: what the decision says as `issuedAt`. */
  readonly decidedAt: number
  /** What was asked for. */
  readonly type: TokenType
  readonly closures: ClosureIndex
}

/** The context of a decision about evidence that an agent signed by a key on disk: tier 0, its word. */
export function decisionContext(input: DecisionBasis): EvaluationContext {
  const { evidence, nodeClass, decidedAt, type, closures } = input
  const { workloadKey, profile, host } = evidence
  const now = new Date(decidedAt * 1000)
  return { nodeClass, tier: 0, now, workloadKey, profile, type, host, closures }
}
