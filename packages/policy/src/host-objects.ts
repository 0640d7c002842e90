// Files that a host puts into ordinary processes: NSS modules, a preloaded allocator, a driver's library. Two
// must agree before one counts: the role names its bytes, and it is that very file of a system closure which
// the policy approves for the node's class and CI has attested. A digest alone would let anybody bring the
// file from anywhere; a system alone would let every program of the host into every service.
import type { Sha256, StorePath } from '@bagcheck/nix'
import type { ApprovalContent } from './approval.ts'
import type { AttestedClosure } from './closures.ts'
import type { EvaluationContext } from './evaluate.ts'
import type { Facts, MappedFile } from './facts.ts'
import type { VerifiedPolicy } from './policy-signature.ts'
import type { IndexedRole } from './role-index.ts'

/** A host object that was in use. */
export type UsedHostObject = ApprovalContent['hostObjects'][number]

/** The systems of a node's class that count now: active, in time, attested as what the policy approves. */
export function approvedSystems(
  { hosts }: IndexedRole,
  { nodeClass, now, closures }: Pick<EvaluationContext, 'nodeClass' | 'now' | 'closures'>,
): readonly AttestedClosure[] {
  const known = hosts.get(nodeClass)
  if (!known) return []
  return known.systems.flatMap(({ root, closure, state, notAfter }) => {
    if (state !== 'active') return []
    if (notAfter !== null && !(now.getTime() < Date.parse(notAfter))) return []
    const attested = closures.get(closure, (keyId) => known.signers.has(keyId))
    return attested && isThatSystem(attested, root, closure, known.signers) ? [attested] : []
  })
}

/** The index is the caller's: nothing is taken from it that is about another closure, or by another signer. */
function isThatSystem(
  { attestation, manifest, files }: AttestedClosure,
  root: StorePath,
  closure: Sha256,
  signers: ReadonlySet<string>,
): boolean {
  return (
    attestation.root === root &&
    attestation.closureDigest === closure &&
    manifest.digest === closure &&
    files.digest === attestation.filesDigest &&
    signers.has(attestation.signer.keyId)
  )
}

/**
 * Digests of the closures that evaluation may ask for: the roots that fit, and the systems of the node's class
 * where a role of the unit allows host objects, or hosts must run one of them.
 */
export function closuresNeeded(
  { index }: VerifiedPolicy,
  { unit, roots }: Pick<Facts, 'unit' | 'roots'>,
  nodeClass: string,
): readonly Sha256[] {
  const roles = index.rolesOf(unit)
  const approved = roots
    .map(({ closureDigest }) => closureDigest)
    .filter((digest) => roles.some((role) => role.roots.has(digest)))
  const systems = roles
    .filter(
      ({ hostObjects, hosts }) =>
        hostObjects.size > 0 || hosts.get(nodeClass)?.require?.approvedSystem === true,
    )
    .flatMap(({ hosts }) => hosts.get(nodeClass)?.systems ?? [])
  return [...new Set([...approved, ...systems.map(({ closure }) => closure)])]
}

/** The file as an object of one of `systems`; undefined where none holds that very file. */
export function findHostObject(
  file: MappedFile,
  systems: readonly AttestedClosure[],
): UsedHostObject | undefined {
  if (file.isStoreFile !== true || file.unlinked !== false) return undefined
  const system = systems.find(({ files }) => files.byPath.get(file.path)?.sha256 === file.sha256)
  if (!system) return undefined
  return { path: file.path, sha256: file.sha256, system: system.attestation.closureDigest }
}
