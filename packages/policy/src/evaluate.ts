// Evaluation: facts and policy in, an approval or the reasons against it out. It is the only place that
// makes an Approval, and it makes one only at the end of all checks, with no reason against it.
//
//   in force   the policy's own time
//   role       unit + audience → exactly one role; profile, key, node class, tier
//   closure    exactly one verdict over the approved roots that fit: state, edge, attestation, build, content
//   processes  every process of the unit: identity, privileges, place, mapped files, memory
//   entry      what the launcher started is what the role names
//
// Attacker: whoever runs code on the host, short of root (tier 0). `argv`, paths and environment are a
// process's own words: they are read only to deny. Checks that do not depend on each other all run, so
// that a denial shows everything that is wrong. Whatever throws is a denial.
import { type Sha256, STRENGTHS } from '@bagcheck/nix'
import { Approval, type ApprovalContent } from './approval.ts'
import { type AttestedClosure, type ClosureIndex, nearestApproved } from './closures.ts'
import { Denials, type DenialReason } from './denial.ts'
import { checkEntry } from './entry.ts'
import { messageOf } from './error.ts'
import type { Facts, RootFacts } from './facts.ts'
import type { ApprovedRoot, Audience } from './policy.ts'
import type { VerifiedPolicy } from './policy-signature.ts'
import { checkProcesses } from './processes.ts'
import type { IndexedRole } from './role-index.ts'

/** What the broker knows beside the facts; none of it is the agent's word. */
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
  readonly closures: ClosureIndex
}

export type Decision =
  | { readonly allow: true; readonly approval: Approval }
  | {
      readonly allow: false
      readonly role: string | null
      readonly reasons: readonly DenialReason[]
    }

/** Clocks of two hosts may differ by this much. */
const CLOCK_SLACK_SECONDS = 5

/** Judges one request. Never throws. */
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
    if (content && denials.reasons.length === 0)
      return { allow: true, approval: new Approval(content) }
  } catch (error) {
    denials.add('EVALUATION_FAILED', `the evaluation failed: ${messageOf(error)}`)
  }
  // An outcome without a reason would be a mistake of ours; it is a denial all the same.
  if (denials.reasons.length === 0)
    denials.add('EVALUATION_FAILED', 'the evaluation came to no verdict')
  return { allow: false, role: role?.name ?? null, reasons: denials.reasons }
}

function checkInForce({ policy }: VerifiedPolicy, now: Date, denials: Denials): void {
  const { notBefore, expires, version } = policy
  if (notBefore !== null && now.getTime() < Date.parse(notBefore))
    denials.add('POLICY_NOT_IN_FORCE', `policy version ${version} is in force from ${notBefore}`)
  if (now.getTime() >= Date.parse(expires))
    denials.add('POLICY_NOT_IN_FORCE', `policy version ${version} expired at ${expires}`)
}

/** The one role that names this unit and audience. */
function findRole(
  { index }: VerifiedPolicy,
  { unit, audience }: Facts,
  denials: Denials,
): IndexedRole | undefined {
  if (unit.kind === 'none') {
    denials.add(
      'UNIT_NONE',
      `the caller is in no unit of its own (cgroup ${unit.cgroup || 'unknown'}); start it with bagcheck exec or as a service`,
    )
    return undefined
  }
  const ofUnit = index
    .rolesOf(unit)
    .filter(({ role }) => role.unit.launcher !== 'systemd' || role.unit.cgroup === unit.cgroup)
  const [found, ...others] = ofUnit.filter(({ role }) => role.audiences.has(audience))
  if (found && others.length === 0) return found
  const label = `${unit.kind} unit ${unit.name}`
  if (found) {
    const names = [found, ...others].map(({ name }) => name).toSorted()
    denials.add(
      'ROLE_AMBIGUOUS',
      `${label} has ${names.length} roles for ${audience}: ${names.join(', ')}`,
    )
  } else if (ofUnit.length > 0)
    denials.add('AUDIENCE_NOT_ALLOWED', `no role of ${label} may have tokens for ${audience}`)
  else denials.add('ROLE_UNKNOWN', `no role names ${label}`)
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
      `${facts.audience} has profile ${audience.profile}, and ${context.profile} was asked for`,
    )
  if (profile.binding === 'dpop' && context.workloadKey === null)
    denials.add(
      'KEY_REQUIRED',
      `tokens for ${facts.audience} are bound to a key, and the workload showed none`,
    )
  if (context.tier < audience.minTier)
    denials.add(
      'TIER_TOO_LOW',
      `${facts.audience} needs tier ${audience.minTier}, and the proof is of tier ${context.tier}`,
    )

  const chosen = chooseClosure(role, facts, audience, context, denials)
  if (!chosen) return undefined
  return {
    role: role.name,
    sub: `spiffe://${policy.policy.trustDomain}/role/${role.name}`,
    audience: facts.audience,
    profile: { name: audience.profile, type: profile.type, binding: profile.binding },
    root: chosen.facts.root,
    closureDigest: chosen.facts.closureDigest,
    successorOf: chosen.successorOf,
    tier: context.tier,
    strength: chosen.facts.strength,
    ttlSeconds: clamp(facts.ttlSeconds ?? audience.ttlSeconds.default, audience.ttlSeconds),
    policyVersion: policy.version,
    policySha256: policy.sha256,
    attestationDigest: chosen.closure.attestation.statementDigest,
    hostObjects: chosen.hostObjects,
    jit: chosen.jit,
  }
}

const clamp = (value: number, { min, max }: { min: number; max: number }): number =>
  Math.min(Math.max(value, min), max)

interface Chosen {
  readonly facts: RootFacts
  readonly closure: AttestedClosure
  readonly successorOf: Sha256 | null
  readonly hostObjects: readonly Sha256[]
  readonly jit: boolean
}

/**
 * Judges the unit against every approved root that fits. All must agree: where one passes and another
 * does not, nobody can say which bag it is. Where several pass, the first in order of digest is named.
 */
function chooseClosure(
  role: IndexedRole,
  facts: Facts,
  audience: Audience,
  context: EvaluationContext,
  denials: Denials,
): Chosen | undefined {
  const fitting = facts.roots
    .filter(({ closureDigest }) => role.roots.has(closureDigest))
    .toSorted((a, b) => (a.closureDigest < b.closureDigest ? -1 : 1))
  if (fitting.length === 0) {
    denyUnapproved(role, facts, context, denials)
    return undefined
  }
  const verdicts = fitting.map((root) => {
    const own = new Denials()
    return { own, chosen: judgeClosure(role, root, facts, audience, context, own) }
  })
  const passed = verdicts.filter(({ own, chosen }) => chosen && own.reasons.length === 0)
  const failed = verdicts.filter((verdict) => !passed.includes(verdict))
  if (failed.length === 0) return passed[0]?.chosen
  if (passed.length > 0)
    denials.add(
      'CLOSURE_AMBIGUOUS',
      `${fitting.length} approved closures fit what runs, and they do not agree: ${fitting.map(({ root }) => root).join(', ')}`,
    )
  denials.reasons.push(...(failed[0]?.own.reasons ?? []))
  return undefined
}

function denyUnapproved(
  role: IndexedRole,
  facts: Facts,
  { closures }: EvaluationContext,
  denials: Denials,
): void {
  const nearest = nearestApproved(role, facts, closures)
  const seen = facts.roots[0]
  const what = seen ? `${seen.root} (closure ${seen.closureDigest})` : 'what runs'
  const hint = nearest
    ? `; the nearest approved closure is ${nearest.root}: ${nearest.firstDifference}`
    : ''
  denials.add(
    'CLOSURE_NOT_APPROVED',
    `${what} is not approved for role ${role.name}${hint}`,
    nearest,
  )
  // Without a closure the mapped files cannot be judged one by one; but what is foreign to every approved
  // closure is worth naming.
  const candidates = [...role.roots.keys()]
    .slice(0, 32)
    .flatMap((digest) => closures.get(digest) ?? [])
  for (const { executable, files } of facts.processes)
    for (const file of [executable, ...files])
      if (!file.isStoreFile && !role.hostObjects.has(file.sha256)) {
        const copied = candidates.some((closure) =>
          closure.files.files.some(({ sha256 }) => sha256 === file.sha256),
        )
        if (copied)
          denials.add(
            'FILE_NOT_STORE_FILE',
            `${file.path} has the bytes of an approved file, and is not that file`,
          )
        else denials.add('FILE_NOT_IN_CLOSURE', `${file.path} is in no approved closure`)
      }
}

function judgeClosure(
  role: IndexedRole,
  root: RootFacts,
  facts: Facts,
  audience: Audience,
  context: EvaluationContext,
  denials: Denials,
): Chosen | undefined {
  const approved = role.roots.get(root.closureDigest)
  const closure = context.closures.get(root.closureDigest)
  if (!approved) throw new TypeError('a root was judged that is not approved')
  if (root.root !== approved.root)
    denials.add(
      'ROOT_MISMATCH',
      `closure ${root.closureDigest} is approved as ${approved.root}, and runs as ${root.root}`,
    )
  const successorOf = checkState(role, approved, facts.audience, context.now, denials)
  checkContent(root, audience, context.now, denials)
  if (!closure) {
    denials.add(
      'ATTESTATION_MISSING',
      `no attestation of closure ${root.closureDigest} was submitted`,
    )
    return undefined
  }
  if (closure.attestation.root !== root.root)
    denials.add(
      'ROOT_MISMATCH',
      `closure ${root.closureDigest} is attested as ${closure.attestation.root}, and runs as ${root.root}`,
    )
  checkBuild(role, closure, denials)
  const used = checkProcesses(role, closure, facts, denials)
  checkEntry(role, closure, facts, denials)
  return { facts: root, closure, successorOf, ...used }
}

/** State and time of the approval itself, and of the edges that lead from and to it. */
function checkState(
  role: IndexedRole,
  approved: ApprovedRoot,
  audience: string,
  now: Date,
  denials: Denials,
): Sha256 | null {
  const { closure, root } = approved
  const limits = inherited(role, approved)
  if (limits.some(({ state }) => state === 'revoked'))
    denials.add(
      'CLOSURE_REVOKED',
      `${root} (closure ${closure}) is revoked, or what it succeeds is`,
    )
  for (const { notAfter } of limits)
    if (notAfter !== null && now.getTime() >= Date.parse(notAfter))
      denials.add('CLOSURE_EXPIRED', `${root} (closure ${closure}) was approved until ${notAfter}`)
  if (limits.some(({ audiences }) => audiences !== null && !audiences.includes(audience)))
    denials.add(
      'AUDIENCE_NOT_ALLOWED',
      `${root} (closure ${closure}) may not have tokens for ${audience}`,
    )
  for (const { expires, to } of role.successorsFrom.get(closure) ?? [])
    if (now.getTime() >= Date.parse(expires))
      denials.add(
        'SUCCESSOR_EXPIRED',
        `${root} was to be replaced by closure ${to} until ${expires}`,
      )
  return (role.successorsTo.get(closure)?.[0]?.from ?? null) as Sha256 | null
}

/** A root and all that it succeeds: a successor is never allowed more than what it came from. */
function inherited(role: IndexedRole, approved: ApprovedRoot): readonly ApprovedRoot[] {
  const before = (role.successorsTo.get(approved.closure) ?? []).flatMap(
    ({ from }) => role.roots.get(from) ?? [],
  )
  return [approved, ...before.flatMap((root) => inherited(role, root))]
}

function checkContent(root: RootFacts, audience: Audience, now: Date, denials: Denials): void {
  if (root.mismatch) {
    const { file, path, kind, expected, seen } = root.mismatch
    denials.add(
      'CONTENT_MISMATCH',
      `${file ?? path} is not what was attested (${kind}: expected ${expected}, saw ${seen})`,
    )
  }
  const rank = (strength: string): number => (STRENGTHS as readonly string[]).indexOf(strength)
  if (rank(root.strength) < rank(audience.minStrength))
    denials.add(
      'STRENGTH_TOO_LOW',
      `the content was checked as ${root.strength}, and ${audience.minStrength} is needed`,
    )
  const nowSeconds = now.getTime() / 1000
  const age = nowSeconds - root.lastFullAt
  if (age > audience.maxAgeFullSeconds)
    denials.add(
      'FULL_CHECK_TOO_OLD',
      `the last full check was ${Math.floor(age)} s ago, and ${audience.maxAgeFullSeconds} s are allowed`,
    )
  if (
    root.lastFullAt > nowSeconds + CLOCK_SLACK_SECONDS ||
    root.checkedAt > nowSeconds + CLOCK_SLACK_SECONDS
  )
    denials.add(
      'FULL_CHECK_TOO_OLD',
      'the content check is dated in the future, so its age is not known',
    )
}

/** Who signed, and how it was built; a fact that CI left unknown is not the one demanded. */
function checkBuild(role: IndexedRole, { attestation }: AttestedClosure, denials: Denials): void {
  if (!role.signers.has(attestation.signer.keyId))
    denials.add(
      'SIGNER_NOT_ALLOWED',
      `the attestation is signed by ${attestation.signer.keyId}, who may not attest for role ${role.name}`,
    )
  for (const name of ['sandbox', 'sandboxFallback', 'impure'] as const) {
    const { value } = attestation.predicate.build[name]
    const wanted = role.role.build[name]
    if (value === null)
      denials.add(
        'BUILD_FACT_UNKNOWN',
        `the attestation does not say whether the build had ${name}; role ${role.name} wants ${wanted}`,
      )
    else if (value !== wanted)
      denials.add(
        'BUILD_FACT',
        `the build had ${name} = ${value}; role ${role.name} wants ${wanted}`,
      )
  }
}
