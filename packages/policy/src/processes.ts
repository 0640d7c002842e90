// Checks of every process of a unit against one attested closure. A unit is as trustworthy as its least
// trustworthy process: siblings share the cgroup, the uid and, often, memory.
//
// Numbers are compared so that one that is missing denies: `!(seen <= limit)`, never `seen > limit`.
import type { FileList, Sha256 } from '@bagcheck/nix'
import type { AttestedBy } from './approval.ts'
import { capabilityNames } from './capabilities.ts'
import type { AttestedClosure } from './closures.ts'
import { checkContainer, checkInContainer } from './container.ts'
import type { Denials } from './denial.ts'
import { show } from './error.ts'
import type { EvaluationContext } from './evaluate.ts'
import { checkDataFiles, checkDescriptors } from './open-objects.ts'
import { checkMemory } from './memory.ts'
import type { Facts, HostFacts, MappedFile, ProcessFacts } from './facts.ts'
import { approvedSystems, findHostObject, type UsedHostObject } from './host-objects.ts'
import type { IndexedRole } from './role-index.ts'

/** Allowances that were made use of. */
export interface UsedAllowances {
  readonly hostObjects: readonly UsedHostObject[]
  /** Attestations of the systems that these belong to. */
  readonly systems: readonly AttestedBy[]
  readonly jit: boolean
}

/** Adds a reason for everything about the unit's processes that the role does not allow. */
export function checkProcesses(
  role: IndexedRole,
  closure: AttestedClosure,
  facts: Facts,
  context: EvaluationContext,
  denials: Denials,
): UsedAllowances {
  const hostObjects = new Map<string, UsedHostObject>()
  let systems: readonly AttestedClosure[] | undefined
  const foreign: ForeignFile[] = []
  const main = mainProcess(facts)
  let jit = false
  if (!facts.processes.some(({ pid }) => pid === facts.callerPid))
    denials.add(
      'CALLER_NOT_IN_UNIT',
      `process ${facts.callerPid}, which asks, is not among the unit's processes`,
    )
  const { unit } = role.role
  const { container } = facts.unit
  const contained = unit.launcher === 'oci'
  if (contained) {
    if (!container) throw new TypeError('a role of containers was found for a unit that is none')
    checkContainer(role.name, unit, container, denials)
  }
  for (const process of facts.processes) {
    checkIdentity(role, process, denials)
    checkPlace(process, denials)
    if (contained) checkInContainer(role, process, main, denials)
    else checkOnHost(role, process, context.host, main, denials)
    checkDescriptors(role, process, denials)
    checkDataFiles(role, closure, process, denials)
    // Host objects are what a host injects into a process; what the process is must be in the closure.
    if (!isInClosure(closure, process.executable))
      foreign.push({ file: process.executable, pid: process.pid })
    for (const file of process.files) {
      if (isInClosure(closure, file)) continue
      if (!role.hostObjects.has(file.sha256)) {
        foreign.push({ file, pid: process.pid })
        continue
      }
      systems ??= approvedSystems(role, context)
      const object = findHostObject(file, systems)
      if (object) hostObjects.set(object.path, object)
      else
        denials.add(
          'HOST_OBJECT_NOT_IN_SYSTEM',
          `${show(file.path)}, mapped by process ${process.pid}, is allowed by digest, and is no file of a ` +
            `system that is approved and attested for nodes of class ${context.nodeClass}`,
        )
    }
    if (checkMemory(role, process, denials)) jit = true
  }
  denyForeign(closure, foreign, denials)
  const used = [...hostObjects.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1))
  const owners = new Set(used.map(({ system }) => system))
  return {
    hostObjects: used,
    systems: (systems ?? [])
      .map(({ attestation }) => attestation)
      .filter(({ closureDigest }) => owners.has(closureDigest)),
    jit,
  }
}

function checkIdentity({ name, role }: IndexedRole, process: ProcessFacts, denials: Denials): void {
  const who = `process ${process.pid}`
  if (process.uids.length !== 4 || process.uids.some((uid) => uid !== role.uid))
    denials.add(
      'UID_NOT_ALLOWED',
      `${who} runs as uid ${[...new Set(process.uids)].join('/')}; role ${name} is for uid ${role.uid}`,
    )
  if (process.noNewPrivs !== true)
    denials.add('NEW_PRIVILEGES_POSSIBLE', `${who} may gain privileges: no-new-privs is not set`)
  const { inheritable, permitted, effective, ambient } = process.capabilities
  const held =
    BigInt(`0x${inheritable}`) |
    BigInt(`0x${permitted}`) |
    BigInt(`0x${effective}`) |
    BigInt(`0x${ambient}`)
  const foreign = capabilityNames(held).filter(
    (capability) => !role.capabilities.includes(capability),
  )
  if (foreign.length > 0)
    denials.add(
      'CAPABILITY_NOT_ALLOWED',
      `${who} holds ${foreign.join(', ')}, which role ${name} does not allow`,
    )
  const bounds = role.boundingSet ?? role.capabilities
  const beyond = capabilityNames(BigInt(`0x${process.capabilities.bounding}`)).filter(
    (capability) => !bounds.includes(capability),
  )
  if (beyond.length > 0)
    denials.add(
      'BOUNDING_SET',
      `${who} could come to hold ${beyond.slice(0, 3).join(', ')}${beyond.length > 3 ? ` and ${beyond.length - 3} more` : ''}, ` +
        `which the bounding set of role ${name} does not allow`,
    )
  if (role.seccomp && process.seccomp !== 1 && process.seccomp !== 2)
    denials.add('SECCOMP_MISSING', `${who} has no seccomp filter, which role ${name} demands`)
  if (process.tracerPid !== 0)
    denials.add('TRACED', `${who} is traced by process ${process.tracerPid}`)
}

const NAMESPACES = ['mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'time'] as const

/** The process that the launcher started; without a contract the one that asks. */
function mainProcess({
  unit: { contract },
  processes,
  callerPid,
}: Facts): ProcessFacts | undefined {
  const wanted = contract?.pid ?? callerPid
  return processes.find(({ pid }) => pid === wanted)
}

/** A path means the agent's file only if the process sees the same root and the same store. */
function checkPlace(process: ProcessFacts, denials: Denials): void {
  const who = `process ${process.pid}`
  if (process.verifiedStoreMount !== true)
    denials.add('STORE_MOUNT', `${who} sees another /nix/store than the one that was verified`)
  const [mount] = process.mountsBelowStore
  if (mount !== undefined)
    denials.add(
      'MOUNT_BELOW_STORE',
      `${who} has something mounted over the store at ${show(mount)}`,
    )
}

/** Of what is in no container: it has the namespaces and the root directory of the host. */
function checkOnHost(
  role: IndexedRole,
  process: ProcessFacts,
  host: HostFacts,
  main: ProcessFacts | undefined,
  denials: Denials,
): void {
  const who = `process ${process.pid}`
  const allowed: readonly string[] = role.role.allow.namespaces
  if (process.hostUserNamespace !== true && !allowed.includes('user'))
    denials.add('USER_NAMESPACE', `${who} is in a user namespace of its own`)
  for (const kind of NAMESPACES) {
    const own = process.namespaces[kind]
    if (own !== host.namespaces[kind] && !allowed.includes(kind))
      denials.add(
        'NAMESPACE_NOT_ALLOWED',
        `${who} is in a ${kind} namespace other than the host's, which role ${role.name} does not allow`,
      )
    else if ((kind === 'mnt' || kind === 'pid') && own !== main?.namespaces[kind])
      denials.add(
        'NAMESPACE_DIFFERS',
        `${who} is in another ${kind} namespace than the unit's main process`,
      )
  }
  if (process.hostRoot !== true)
    denials.add('ROOT_DIRECTORY', `${who} has another root directory than the agent`)
}

/** Bytes, object and name: the very store file that was attested at this path. */
function isInClosure({ files }: AttestedClosure, file: MappedFile): boolean {
  return (
    files.byPath.get(file.path)?.sha256 === file.sha256 &&
    file.isStoreFile === true &&
    file.unlinked === false
  )
}

interface ForeignFile {
  readonly file: MappedFile
  readonly pid: number
}

/** Says of each file that is not in the closure what is wrong with it. */
function denyForeign(
  { files, attestation }: AttestedClosure,
  foreign: readonly ForeignFile[],
  denials: Denials,
): void {
  if (foreign.length === 0) return
  const copied = copiesOf(files, new Set(foreign.map(({ file }) => file.sha256)))
  for (const { file, pid } of foreign) {
    const where = `${show(file.path)}, mapped by process ${pid},`
    const listed = files.byPath.get(file.path)
    if (file.unlinked !== false)
      denials.add('FILE_UNLINKED', `${where} has no name on any file system`)
    else if (listed?.sha256 === file.sha256)
      denials.add(
        'FILE_NOT_STORE_FILE',
        `${where} has the bytes of the store file, and is not that file`,
      )
    else if (listed)
      denials.add(
        'CONTENT_MISMATCH',
        `${where} is not what was attested (expected ${listed.sha256}, saw ${file.sha256})`,
      )
    else if (copied.has(file.sha256))
      denials.add(
        'FILE_NOT_STORE_FILE',
        `${where} has the bytes of a file of the closure, and lies elsewhere`,
      )
    else denials.add('FILE_NOT_IN_CLOSURE', `${where} is not in the closure of ${attestation.root}`)
  }
}

/** Those of the digests that some file of the list has; one pass, however many are asked for. */
export function copiesOf({ files }: FileList, digests: ReadonlySet<Sha256>): ReadonlySet<Sha256> {
  const found = new Set<Sha256>()
  for (const { sha256 } of files) if (digests.has(sha256)) found.add(sha256)
  return found
}
