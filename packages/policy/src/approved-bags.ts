// Which closures a policy approves for a unit, or for the hosts of a class, when nothing has been measured: what
// may be put in force in place of something that was denied. Stricter than a decision, which knows the audience: every
// role that names the unit must have the closure, each for some audience.
import type { Sha256, StorePath } from '@bagcheck/nix'
import { checkState } from './choose-closure.ts'
import { Denials } from './denial.ts'
import { PolicyError } from './error.ts'
import { whyNotInForce } from './evaluate.ts'
import type { VerifiedPolicy } from './policy-signature.ts'
import type { IndexedRole } from './role-index.ts'

/** What is approved: never a path alone. */
export interface ApprovedBag {
  readonly root: StorePath
  readonly closure: Sha256
}

/**
 * Closures that the service `unit` of systemd may run now.
 * @throws {PolicyError} POLICY_EXPIRED, POLICY_NOT_YET_VALID
 */
export function approvedForService(
  policy: VerifiedPolicy,
  unit: string,
  now: Date,
): readonly ApprovedBag[] {
  assertInForce(policy, now)
  const [first, ...others] = policy.index.rolesNamed('systemd', unit)
  if (first === undefined) return []
  return [...first.roots.values()]
    .filter(({ root, closure }) =>
      [first, ...others].every(
        (role) => role.roots.get(closure)?.root === root && hasAudience(role, closure, now),
      ),
    )
    .map(({ root, closure }) => ({ root, closure }))
}

/**
 * System closures that hosts of the class `nodeClass` may run now.
 * @throws {PolicyError} POLICY_EXPIRED, POLICY_NOT_YET_VALID
 */
export function approvedForHosts(
  policy: VerifiedPolicy,
  nodeClass: string,
  now: Date,
): readonly ApprovedBag[] {
  assertInForce(policy, now)
  const systems = policy.policy.hosts.get(nodeClass)?.systems ?? []
  return systems
    .filter(
      ({ state, notAfter }) =>
        state === 'active' && (notAfter === null || now.getTime() < Date.parse(notAfter)),
    )
    .map(({ root, closure }) => ({ root, closure }))
}

/** State, time and successors leave some audience to it. */
function hasAudience(role: IndexedRole, closure: Sha256, now: Date): boolean {
  const approved = role.roots.get(closure)
  if (approved === undefined) return false
  return [...role.role.audiences.keys()].some((audience) => {
    const denials = new Denials()
    checkState(role, approved, audience, now, denials)
    return denials.none
  })
}

function assertInForce(policy: VerifiedPolicy, now: Date): void {
  const why = whyNotInForce(policy, now)
  if (why === null) return
  const early = now.getTime() < policy.inForceMs.from
  throw new PolicyError(early ? 'POLICY_NOT_YET_VALID' : 'POLICY_EXPIRED', why)
}
