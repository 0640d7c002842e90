// Evaluation: facts and policy in, an approval or the reasons against it out. It is the only place that
// makes an Approval, and it makes one only at the end of all checks, with no reason against it.
//
//   in force   the policy's own time, and that of the trust root that it hangs on
//   role       unit + audience → exactly one role; profile, key, node class, tier
//   closure    exactly one verdict over the approved roots that fit: state, edge, attestation, build, content
//   host       what the policy demands of hosts of the node's class
//   processes  every process of the unit: identity, privileges, place, mapped files, memory
//   entry      what the launcher started is what the role names
//
// Attacker: whoever runs code on the host, short of root (tier 0). `argv`, paths and environment are a
// process's own words: they are read only to deny. Checks that do not depend on each other all run, so
// that a denial shows everything that is wrong. Whatever throws is a denial.
import type { Sha256, StorePath } from '@bagcheck/nix'
import { approve, type Approval, type ApprovalContent, type AttestedBy } from './approval.ts'
import { chooseClosure } from './choose-closure.ts'
import type { ClosureIndex } from './closures.ts'
import { Denials, type DenialReason } from './denial.ts'
import { messageOf, show } from './error.ts'
import type { Facts, HostFacts } from './facts.ts'
import { checkHost } from './host-demands.ts'
import type { VerifiedPolicy } from './policy-signature.ts'
import { trustDomainId } from './policy.ts'
import type { Audience, TokenType } from './policy.ts'
import type { IndexedRole } from './role-index.ts'

/** What is known beside the facts of the unit. Only `host` is the agent's word. */
export interface EvaluationContext {
  /** Class under which the node was enrolled. */
  readonly nodeClass: string
  /** What the proof rests on. */
  readonly tier: number
  readonly now: Date
  /** Thumbprint of the workload's key; null if it showed none. */
  readonly workloadKey: string | null
  /** Profile that the workload expects; null if any will do. */
  readonly profile: string | null
  /** What is to be minted: an audience of another type is refused. */
  readonly type: TokenType
  readonly host: HostFacts
  readonly closures: ClosureIndex
}

export type Decision =
  | { readonly allow: true; readonly approval: Approval }
  | {
      readonly allow: false
      readonly role: string | null
      readonly reasons: readonly DenialReason[]
    }

/** Judges one request. Never throws; a denial has at least one reason. */
export function evaluate(
  policy: VerifiedPolicy,
  facts: Facts,
  context: EvaluationContext,
): Decision {
  const denials = new Denials()
  let role: IndexedRole | undefined
  try {
    checkInForce(policy, context.now, denials)
    role = findRole(policy, facts, denials)
    const content = role && judge(policy, role, facts, context, denials)
    if (content && denials.none) return { allow: true, approval: approve(content) }
  } catch (error) {
    denials.add('EVALUATION_FAILED', `the evaluation failed: ${messageOf(error)}`)
  }
  // An outcome without a reason would be a mistake of ours; it is a denial all the same.
  if (denials.none) denials.add('EVALUATION_FAILED', 'the evaluation came to no verdict')
  return { allow: false, role: role?.name ?? null, reasons: denials.reasons() }
}

/** What an observation came to: a value that nothing can be minted from. */
export type ObservedVerdict =
  | {
      readonly wouldAllow: true
      readonly role: string
      readonly root: StorePath
      readonly closureDigest: Sha256
    }
  | { readonly wouldAllow: false; readonly role: string; readonly reasons: readonly DenialReason[] }

/**
 * Judges what runs as if it had asked, with whatever key and profile its audience demands. Makes no Approval.
 * Undefined where no role wants the unit observed for the audience. Never throws.
 */
export function observe(
  policy: VerifiedPolicy,
  observed: Omit<Facts, 'purpose'>,
  context: Omit<EvaluationContext, 'workloadKey' | 'profile' | 'type'>,
): ObservedVerdict | undefined {
  const facts: Facts = { ...observed, purpose: 'issue' }
  const denials = new Denials()
  const role = findRole(policy, facts, new Denials())
  if (role?.role.observe !== true) return undefined
  try {
    checkInForce(policy, context.now, denials)
    const named = role.role.audiences.get(facts.audience)?.profile
    const type = policy.policy.profiles.get(named ?? '')?.type
    if (type === undefined) throw new TypeError('a role was found without a profile')
    const asking = { ...context, workloadKey: 'observed', profile: null, type }
    const content = judge(policy, role, facts, asking, denials)
    if (content && denials.none) {
      const { root, closureDigest } = content
      return { wouldAllow: true, role: role.name, root, closureDigest }
    }
  } catch (error) {
    denials.add('EVALUATION_FAILED', `the evaluation failed: ${messageOf(error)}`)
  }
  if (denials.none) denials.add('EVALUATION_FAILED', 'the evaluation came to no verdict')
  return { wouldAllow: false, role: role.name, reasons: denials.reasons() }
}

/** Why a policy may not be decided by at `now`, or null if it may. @throws {TypeError} no valid time */
export function whyNotInForce(policy: VerifiedPolicy, now: Date): string | null {
  const { notBefore, expires, version } = policy.policy
  const { from, until } = policy.inForceMs
  const at = now.getTime()
  if (Number.isNaN(at)) throw new TypeError('expected a time to decide at')
  if (at >= from && at < until) return null
  if (at < from) return `policy version ${version} is in force from ${notBefore}`
  if (at >= Date.parse(expires)) return `policy version ${version} expired at ${expires}`
  // A broker may run for longer than the trust root that it was started with is valid.
  return `the trust root of policy version ${version} expired at ${policy.trustRootExpires}`
}

function checkInForce(policy: VerifiedPolicy, now: Date, denials: Denials): void {
  const why = whyNotInForce(policy, now)
  if (why !== null) denials.add('POLICY_NOT_IN_FORCE', why)
}

/** The one role that names this unit and audience. */
function findRole(
  { index }: VerifiedPolicy,
  { unit, audience }: Facts,
  denials: Denials,
): IndexedRole | undefined {
  if (unit.launcher === 'none') {
    denials.add(
      'UNIT_NONE',
      `the caller is in no unit of its own (cgroup ${show(unit.cgroup || 'unknown')}); ` +
        'start it with bagcheck exec, as a service or in a container',
    )
    return undefined
  }
  const ofUnit = index.rolesOf(unit)
  const [found, ...others] = ofUnit.filter(({ role }) => role.audiences.has(audience))
  if (found && others.length === 0) return found
  const label = `${unit.launcher} unit ${show(unit.name)}`
  if (found) {
    const names = [found, ...others].map(({ name }) => name).toSorted()
    denials.add(
      'ROLE_AMBIGUOUS',
      `${label} has ${names.length} roles for ${audience}: ${names.join(', ')}`,
    )
  } else if (ofUnit.length > 0)
    denials.add('AUDIENCE_NOT_ALLOWED', `no role of ${label} may have tokens for ${show(audience)}`)
  else denials.add('ROLE_UNKNOWN', `no role names ${label} (cgroup ${show(unit.cgroup)})`)
  return undefined
}

function judge(
  policy: VerifiedPolicy,
  role: IndexedRole,
  facts: Facts,
  context: EvaluationContext,
  denials: Denials,
): ApprovalContent | undefined {
  const audience = role.role.audiences.get(facts.audience)
  const profile = audience && policy.policy.profiles.get(audience.profile)
  if (!audience || !profile)
    throw new TypeError('a role was found for an audience that it does not have')
  if (!role.role.nodeClasses.includes(context.nodeClass))
    denials.add(
      'NODE_CLASS_NOT_ALLOWED',
      `role ${role.name} is not for nodes of class ${context.nodeClass}`,
    )
  if (context.profile !== null && context.profile !== audience.profile)
    denials.add(
      'PROFILE_MISMATCH',
      `${facts.audience} has profile ${audience.profile}, and ${show(context.profile)} was asked for`,
    )
  if (context.type !== profile.type)
    denials.add(
      'TOKEN_TYPE_MISMATCH',
      `${facts.audience} gets ${profile.type}, and ${context.type} was asked for`,
    )
  if (profile.binding !== 'none' && !context.workloadKey)
    denials.add(
      'KEY_REQUIRED',
      `tokens for ${facts.audience} are bound to a key, and the workload showed none`,
    )
  if (!(context.tier >= audience.minTier))
    denials.add(
      'TIER_TOO_LOW',
      `${facts.audience} needs tier ${audience.minTier}, and the proof is of tier ${context.tier}`,
    )
  const running = checkHost(role, context, denials)

  const chosen = chooseClosure(role, facts, audience, context, denials)
  if (!chosen) return undefined
  return {
    role: role.name,
    sub: `${trustDomainId(policy.policy.trustDomain)}/role/${role.name}`,
    audience: facts.audience,
    profile: { name: audience.profile, ...profile },
    root: chosen.facts.root,
    closureDigest: chosen.facts.closureDigest,
    successorOf: chosen.successorOf,
    tier: context.tier,
    strength: chosen.facts.strength,
    ttlSeconds: lifetime(facts.ttlSeconds, audience.ttlSeconds),
    policyVersion: policy.version,
    policySha256: policy.sha256,
    attested: chosen.closure.attestation,
    hostObjects: chosen.hostObjects,
    systems: withoutRepeats([...running, ...chosen.systems]),
    jit: chosen.jit,
  }
}

function withoutRepeats(systems: readonly AttestedBy[]): readonly AttestedBy[] {
  const byDigest = new Map(systems.map((system) => [system.closureDigest, system]))
  return [...byDigest.values()].toSorted((a, b) => (a.closureDigest < b.closureDigest ? -1 : 1))
}

/** What was asked for, within the bounds of the audience. */
function lifetime(wanted: number | null, bounds: Audience['ttlSeconds']): number {
  if (wanted === null) return bounds.default
  if (!Number.isSafeInteger(wanted)) throw new TypeError(`expected whole seconds, saw ${wanted}`)
  return Math.min(Math.max(wanted, bounds.min), bounds.max)
}
