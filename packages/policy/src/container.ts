// Checks of a unit that is a container: which containers a role means, whose store they may bring, and that
// each of its processes is in it.
//
// Only what root chooses selects: a container's id and annotations are given by whoever may start containers,
// and come from the runtime's state and configuration. An orchestrator that lets its users set annotations
// says which of them are its own: those select, and no others.
import type { Denials } from './denial.ts'
import { quote, show } from './error.ts'
import type { ContainerFacts, ProcessFacts, UnitFacts } from './facts.ts'
import type { OciUnit } from './policy.ts'
import type { IndexedRole } from './role-index.ts'

/** A text in which `*` stands for anything. */
export function compileGlob(pattern: string): RegExp {
  const literally = (text: string): string => text.replace(/[.+?^$()[\]{}|\\*]/g, String.raw`\$&`)
  return new RegExp(`^${pattern.split('*').map(literally).join('.*')}$`, 's')
}

/** Whether `facts` is a container that these selectors mean. */
export function compileContainer(unit: OciUnit): (facts: UnitFacts) => boolean {
  const id = compileGlob(unit.container)
  const annotations = [...unit.annotations].map(
    ([key, value]) => [key, compileGlob(value)] as const,
  )
  return ({ container }) =>
    container !== null &&
    id.test(container.id) &&
    unit.runtimes.includes(container.runtime) &&
    annotations.every(([key, value]) => {
      const seen = Object.hasOwn(container.annotations, key)
        ? container.annotations[key]
        : undefined
      return seen !== undefined && value.test(seen)
    })
}

/** Adds a reason for everything about the container itself that the role does not allow. */
export function checkContainer(
  role: string,
  unit: OciUnit,
  container: ContainerFacts,
  denials: Denials,
): void {
  const who = `container ${show(container.id)}`
  if (!(unit.store as readonly string[]).includes(container.store))
    denials.add(
      'CONTAINER_STORE',
      container.store === 'other'
        ? `${who} has no store that could be verified`
        : `${who} brings a store of its own (${container.store}); role ${role} allows ${unit.store.join(', ')}`,
    )
  for (const kind of ['mnt', 'pid'] as const)
    if (!container.namespaces.includes(kind))
      denials.add('CONTAINER_NAMESPACES', `${who} has no ${kind} namespace of its own`)
  const maps = container.userMaps
  if (maps === null && unit.userNamespace === null) return
  if (maps === null)
    denials.add(
      'USER_NAMESPACE',
      `${who} has no user namespace of its own, and role ${role} wants one`,
    )
  else if (unit.userNamespace === null)
    denials.add('USER_NAMESPACE', `${who} is in a user namespace, and role ${role} names none`)
  else
    for (const ids of ['uids', 'gids'] as const)
      if (!sameMap(maps[ids], unit.userNamespace[ids]))
        denials.add(
          'USER_NAMESPACE',
          `${who} maps ${ids} as ${quote(maps[ids])}; role ${role} wants ${quote(unit.userNamespace[ids])}`,
        )
}

type IdMap = NonNullable<ContainerFacts['userMaps']>['uids']

/** Ranges have an order: the kernel keeps the one they were written in. */
function sameMap(a: IdMap, b: IdMap): boolean {
  return (
    a.length === b.length &&
    a.every((range, index) => {
      const other = b[index]
      return (
        range.inside === other?.inside &&
        range.outside === other.outside &&
        range.count === other.count
      )
    })
  )
}

/** Who is in a container is in its namespaces and has its root directory: then a path means there what it says. */
export function checkInContainer(
  { name, role }: IndexedRole,
  process: ProcessFacts,
  main: ProcessFacts | undefined,
  denials: Denials,
): void {
  const who = `process ${process.pid}`
  const allowed: readonly string[] = role.allow.namespaces
  const { inContainer } = process
  for (const kind of ['mnt', 'pid', 'user'] as const)
    if (inContainer?.sharedNamespaces.includes(kind) !== true)
      denials.add('CONTAINER_NAMESPACES', `${who} is not in the container's ${kind} namespace`)
  for (const kind of ['net', 'ipc', 'uts', 'cgroup', 'time'] as const)
    if (process.namespaces[kind] !== main?.namespaces[kind] && !allowed.includes(kind))
      denials.add(
        'CONTAINER_NAMESPACES',
        `${who} is in a ${kind} namespace other than the container's, which role ${name} does not allow`,
      )
  if (inContainer?.sharedRoot !== true)
    denials.add('ROOT_DIRECTORY', `${who} has another root directory than its container`)
}
