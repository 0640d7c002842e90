// Judges a unit against the approved closures that fit it. The agent names every root whose closure holds
// all that the unit executes; which of them are approved, attested, in force and checked well enough is
// decided here. All that are approved must agree: where one passes and another does not, nobody can say
// which bag it is, and that is a denial. Where several pass, the first in order of digest is named.
import { STRENGTHS, type Sha256 } from '@bagcheck/nix'
import { nearestApproved, type AttestedClosure } from './closures.ts'
import { Denials } from './denial.ts'
import { checkClosureContract } from './closure-contract.ts'
import { checkEntry } from './entry.ts'
import { show } from './error.ts'
import type { EvaluationContext } from './evaluate.ts'
import type { Facts, RootFacts } from './facts.ts'
import type { ApprovedRoot, Audience } from './policy.ts'
import { checkProcesses, copiesOf, type UsedAllowances } from './processes.ts'
import { predecessors, type IndexedRole } from './role-index.ts'

/** Clocks of two hosts may differ by this much. */
const CLOCK_SLACK_SECONDS = 5

/** The closure that a unit was found to run. */
export interface Chosen {
  readonly facts: RootFacts
  readonly closure: AttestedClosure
  readonly successorOf: Sha256 | null
  readonly hostObjects: UsedAllowances['hostObjects']
  readonly systems: UsedAllowances['systems']
  readonly jit: boolean
}

/** The one verdict over all approved roots that fit; undefined where a reason against it was added. */
export function chooseClosure(
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
  const passed = verdicts.filter(({ own, chosen }) => chosen !== undefined && own.none)
  const failed = verdicts.find((verdict) => !passed.includes(verdict))
  if (!failed) return passed[0]?.chosen
  if (passed.length > 0)
    denials.add(
      'CLOSURE_AMBIGUOUS',
      `${fitting.length} approved closures fit what runs, and they do not agree: ` +
        fitting.map(({ root }) => root).join(', '),
    )
  denials.take(failed.own)
  return undefined
}

function denyUnapproved(
  role: IndexedRole,
  facts: Facts,
  { closures }: EvaluationContext,
  denials: Denials,
): void {
  const nearest = nearestApproved(role, facts, closures)
  const [seen] = facts.roots
  const what = seen ? `${show(seen.root)} (closure ${seen.closureDigest})` : 'what runs'
  const hint = nearest
    ? `; the nearest approved closure is ${nearest.root}: ${nearest.firstDifference}`
    : ''
  denials.add(
    'CLOSURE_NOT_APPROVED',
    `${what} is not approved for role ${role.name}${hint}`,
    nearest,
  )
  // Without a closure the mapped files cannot be judged one by one; but what is no store file at all is
  // worth naming, and so is an approved file that was copied.
  const foreign = facts.processes
    .flatMap(({ executable, files }) => [executable, ...files])
    .filter(({ isStoreFile }) => !isStoreFile)
  if (foreign.length === 0) return
  const list = nearest && closures.get(nearest.closureDigest)?.files
  const copied = list && copiesOf(list, new Set(foreign.map(({ sha256 }) => sha256)))
  for (const { path, sha256 } of foreign)
    if (copied?.has(sha256))
      denials.add(
        'FILE_NOT_STORE_FILE',
        `${show(path)} has the bytes of an approved file, and is not that file`,
      )
    else denials.add('FILE_NOT_IN_CLOSURE', `${show(path)} is in no approved closure`)
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
  if (!approved) throw new TypeError('a root was judged that is not approved')
  if (root.root !== approved.root)
    denials.add(
      'ROOT_MISMATCH',
      `closure ${approved.closure} is approved as ${approved.root}, and runs as ${show(root.root)}`,
    )
  const successorOf = checkState(role, approved, facts.audience, context.now, denials)
  checkStore(root, facts, denials)
  checkContent(root, audience, context.now, denials)
  const closure = context.closures.get(approved.closure, (keyId) => role.signers.has(keyId))
  if (!closure || !isAbout(closure, approved.closure)) {
    denials.add(
      'ATTESTATION_MISSING',
      `no attestation of closure ${approved.closure} was submitted`,
    )
    return undefined
  }
  if (closure.attestation.root !== approved.root)
    denials.add(
      'ROOT_MISMATCH',
      `closure ${approved.closure} is approved as ${approved.root}, and attested as ${closure.attestation.root}`,
    )
  checkBuild(role, closure, denials)
  const used = checkProcesses(role, closure, facts, context, denials)
  checkEntry(role, closure, facts, denials)
  checkClosureContract(role, closure, facts, denials)
  return { facts: root, closure, successorOf, ...used }
}

/** The index is the caller's; a list of another closure would be a licence to map its files. */
function isAbout({ attestation, manifest, files }: AttestedClosure, digest: Sha256): boolean {
  return (
    attestation.closureDigest === digest &&
    manifest.digest === digest &&
    files.digest === attestation.filesDigest
  )
}

/**
 * State and time of the approval itself, and of the edges that lead from and to it. Audiences and time are
 * inherited along the edges, so that a successor is never allowed more than what it came from. The state is
 * not: a successor is approved by itself, and revoking a bag must not take down the one that repairs it.
 */
export function checkState(
  role: IndexedRole,
  approved: ApprovedRoot,
  audience: string,
  now: Date,
  denials: Denials,
): Sha256 | null {
  const { closure, root } = approved
  const what = `${root} (closure ${closure})`
  const inherited = (from: ApprovedRoot): string =>
    from === approved ? what : `${what} succeeds ${from.root} (closure ${from.closure}), which`
  if (approved.state !== 'active') denials.add('CLOSURE_REVOKED', `${what} is revoked`)
  const before = predecessors(role, approved)
  for (const one of [approved, ...before]) {
    const { notAfter, audiences } = one
    if (notAfter !== null && !(now.getTime() < Date.parse(notAfter)))
      denials.add('CLOSURE_EXPIRED', `${inherited(one)} was approved until ${notAfter}`)
    if (audiences && !audiences.includes(audience))
      denials.add('AUDIENCE_NOT_ALLOWED', `${inherited(one)} may not have tokens for ${audience}`)
  }
  for (const { expires, to } of role.successorsFrom.get(closure) ?? [])
    if (!(now.getTime() < Date.parse(expires)))
      denials.add(
        'SUCCESSOR_EXPIRED',
        `${what} was to be replaced by closure ${to} until ${expires}`,
      )
  return role.successorsTo.get(closure)?.[0]?.from ?? null
}

/** What was checked is what the unit sees. */
function checkStore({ store, root }: RootFacts, { unit }: Facts, denials: Denials): void {
  const seen = unit.container?.store === 'container' ? 'container' : 'host'
  if (store !== seen)
    denials.add(
      'CONTAINER_STORE',
      `the content of ${root} was checked in the store of the ${store}, and the unit sees that of the ${seen}`,
    )
}

const rank = (strength: string): number => (STRENGTHS as readonly string[]).indexOf(strength)

/** What the agent found in the store, how it looked, and when. Numbers that are missing deny. */
function checkContent(root: RootFacts, audience: Audience, now: Date, denials: Denials): void {
  if (root.mismatch !== null) {
    const { file, path, kind, expected, seen } = root.mismatch
    denials.add(
      'CONTENT_MISMATCH',
      `${show(file ?? path)} is not what was attested (${show(kind)}: expected ${show(expected)}, saw ${show(seen)})`,
    )
  }
  if (!(rank(root.strength) >= rank(audience.minStrength)))
    denials.add(
      'STRENGTH_TOO_LOW',
      `the content was checked as ${root.strength}, and ${audience.minStrength} is needed`,
    )
  const nowSeconds = now.getTime() / 1000
  const age = nowSeconds - root.lastFullAt
  if (!(age <= audience.maxAgeFullSeconds))
    denials.add(
      'FULL_CHECK_TOO_OLD',
      `the last full check was ${Math.floor(age)} s ago, and ${audience.maxAgeFullSeconds} s are allowed`,
    )
  const latest = nowSeconds + CLOCK_SLACK_SECONDS
  if (!(root.lastFullAt <= latest && root.checkedAt <= latest))
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
    const { value, source } = attestation.predicate.build[name]
    const wanted = role.role.build[name]
    if (value === null)
      denials.add(
        'BUILD_FACT_UNKNOWN',
        `the attestation does not say whether the build had ${name}; role ${role.name} wants ${wanted}`,
      )
    else if (value !== wanted)
      denials.add(
        'BUILD_FACT',
        `the build had ${name} = ${value}, by ${JSON.stringify(source)}; role ${role.name} wants ${wanted}`,
      )
  }
}
