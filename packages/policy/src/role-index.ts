// A policy arranged for decisions: looking a role and a root up costs the same for ten roots and for a
// hundred thousand.
import type { Sha256 } from '@bagcheck/nix'
import { compileContainer } from './container.ts'
import type { UnitFacts } from './facts.ts'
import { compilePattern, type ApprovedRoot, type Hosts, type Policy, type Role } from './policy.ts'

/** A role with its name and its roots by closure digest. */
export interface IndexedRole {
  readonly name: string
  readonly role: Role
  readonly roots: ReadonlyMap<Sha256, ApprovedRoot>
  /** Key ids of the role's signers. */
  readonly signers: ReadonlySet<string>
  /** Edges by the end they lead from, and to. */
  readonly successorsFrom: ReadonlyMap<Sha256, Role['successors']>
  readonly successorsTo: ReadonlyMap<Sha256, Role['successors']>
  readonly jit: ReadonlyMap<Sha256, Role['allow']['jit'][number]>
  readonly hostObjects: ReadonlySet<Sha256>
  /** What the policy says of the hosts of each node class. */
  readonly hosts: ReadonlyMap<string, IndexedHosts>
  /** Store files that interpreters may read though they are not in the closure. */
  readonly foreignStoreFiles: readonly RegExp[]
  /** Which store files the entry's patterns mean; no script for a native entry. */
  readonly executable: RegExp
  readonly script: RegExp | null
  /** Which file states the launch contract, where the role demands one. */
  readonly contract: RegExp | null
}

/** Hosts of one class, with the key ids of those who may attest their systems. */
export interface IndexedHosts {
  readonly systems: Hosts['systems']
  readonly signers: ReadonlySet<string>
  readonly require: Hosts['require']
}

export class RoleIndex {
  readonly #byUnit: ReadonlyMap<string, readonly IndexedRole[]>
  readonly #ofContainers: readonly {
    readonly role: IndexedRole
    readonly means: (unit: UnitFacts) => boolean
  }[]

  constructor(policy: Policy) {
    const hosts = new Map(
      [...policy.hosts].map(([name, found]) => [name, indexHosts(policy, found)]),
    )
    const roles = [...policy.roles].map(([name, role]) => indexRole(policy, name, role, hosts))
    this.#byUnit = Map.groupBy(roles, ({ role: { unit } }) =>
      unitKey(unit.launcher, unit.launcher === 'oci' ? '' : unit.name),
    )
    this.#ofContainers = roles.flatMap((role) => {
      const { unit } = role.role
      return unit.launcher === 'oci' ? [{ role, means: compileContainer(unit) }] : []
    })
  }

  /** The roles that name this unit. */
  rolesOf(unit: UnitFacts): readonly IndexedRole[] {
    if (unit.launcher === 'oci')
      return this.#ofContainers.filter(({ means }) => means(unit)).map(({ role }) => role)
    return this.rolesNamed(unit.launcher, unit.name).filter(
      ({ role }) => role.unit.launcher !== 'systemd' || role.unit.cgroup === unit.cgroup,
    )
  }

  /** The roles of units of this name, wherever they are. */
  rolesNamed(launcher: string, name: string): readonly IndexedRole[] {
    return this.#byUnit.get(unitKey(launcher, name)) ?? []
  }
}

const unitKey = (launcher: string, name: string): string => `${launcher}\0${name}`

const keyIdsOf = (policy: Policy, signers: readonly string[]): ReadonlySet<string> =>
  new Set(signers.flatMap((signer) => policy.signers.get(signer)?.keyId ?? []))

function indexHosts(policy: Policy, { systems, signers, require }: Hosts): IndexedHosts {
  return { systems, signers: keyIdsOf(policy, signers), require }
}

function indexRole(
  policy: Policy,
  name: string,
  role: Role,
  hosts: IndexedRole['hosts'],
): IndexedRole {
  return {
    name,
    role,
    roots: new Map(role.roots.map((root) => [root.closure, root])),
    signers: keyIdsOf(policy, role.signers),
    successorsFrom: Map.groupBy(role.successors, ({ from }) => from),
    successorsTo: Map.groupBy(role.successors, ({ to }) => to),
    jit: new Map(role.allow.jit.map((allowance) => [allowance.runtime, allowance])),
    hostObjects: new Set(role.allow.hostObjects.map(({ sha256 }) => sha256)),
    hosts,
    foreignStoreFiles: (role.foreignFiles ?? [])
      .filter((one) => !one.startsWith('/'))
      .map(compilePattern),
    executable: compilePattern(role.entry.executable),
    contract: role.contract === null ? null : compilePattern(role.contract.file),
    script: role.entry.kind === 'interpreter' ? compilePattern(role.entry.script) : null,
  }
}

/** All roots that `approved` succeeds, directly or not, each once. */
export function predecessors(role: IndexedRole, approved: ApprovedRoot): ReadonlySet<ApprovedRoot> {
  const found = new Set<ApprovedRoot>()
  const add = (closure: Sha256): void => {
    for (const { from } of role.successorsTo.get(closure) ?? []) {
      const root = role.roots.get(from)
      if (root) found.add(root)
    }
  }
  add(approved.closure)
  // A set that grows is iterated to its end.
  for (const { closure } of found) add(closure)
  return found
}
