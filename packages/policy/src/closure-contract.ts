// Checks that what states how the unit is started is part of the bag: the unit file of a systemd service, the
// configuration of a container. PID 1 (the runtime) must have read that very file and nothing beside it, and
// what runs must be confined as it says. Demanded by a role with `contract`.
//
// Not the settings are compared with a policy, but the file with the closure: what a unit file may say was
// looked at by whoever approved the closure.
import { capabilityNames } from './capabilities.ts'
import type { AttestedClosure } from './closures.ts'
import type { Denials } from './denial.ts'
import { show } from './error.ts'
import type { ContainerFacts, Facts, ProcessFacts, ServiceFacts, UnitFile } from './facts.ts'
import type { IndexedRole } from './role-index.ts'

/** Adds a reason for everything by which the unit was started otherwise than the closure says. */
export function checkClosureContract(
  role: IndexedRole,
  closure: AttestedClosure,
  { unit, processes }: Facts,
  denials: Denials,
): void {
  if (role.contract === null) return
  const { container, service } = unit
  if (unit.launcher === 'oci' && container) checkConfiguration(role, closure, container, denials)
  else if (unit.launcher === 'systemd' && service) checkUnitFiles(role, closure, service, denials)
  else
    denials.add(
      'CONTRACT_NOT_FROM_CLOSURE',
      `nobody tells which file unit ${show(unit.name)} was started from`,
    )
  for (const process of processes) {
    if (service) checkService(process, service, denials)
    if (container) checkConfined(process, container, denials)
  }
}

function checkUnitFiles(
  role: IndexedRole,
  closure: AttestedClosure,
  { fragment, dropIns, source, transient, needDaemonReload, asStarted }: ServiceFacts,
  denials: Denials,
): void {
  const wanted = role.role.contract?.file ?? ''
  const { root } = closure.attestation
  if (transient !== false)
    denials.add(
      'CONTRACT_NOT_FROM_CLOSURE',
      'the unit is a transient one, made while it was started',
    )
  else if (source !== '')
    denials.add('CONTRACT_NOT_FROM_CLOSURE', `the unit was generated from ${show(source)}`)
  else if (!fragment) denials.add('CONTRACT_NOT_FROM_CLOSURE', 'the unit has no unit file')
  else if (!isListed(closure, fragment))
    denials.add(
      'CONTRACT_NOT_FROM_CLOSURE',
      `the unit file ${named(fragment)} is not in the closure of ${root}`,
    )
  else if (role.contract?.test(fragment.file) !== true)
    denials.add(
      'CONTRACT_NOT_FROM_CLOSURE',
      `the unit file is ${named(fragment)}; role ${role.name} wants ${wanted}`,
    )
  for (const dropIn of dropIns)
    if (!isListed(closure, dropIn))
      denials.add(
        'CONTRACT_OVERRIDDEN',
        `the drop-in ${named(dropIn)} alters the unit, and is not in the closure of ${root}`,
      )
  if (needDaemonReload !== false)
    denials.add(
      'CONTRACT_CHANGED',
      'the unit files were changed, and PID 1 has not read them again',
    )
  else if (asStarted !== true)
    denials.add(
      'CONTRACT_CHANGED',
      'PID 1 has read the unit files again since it started the process, or read them before they were changed',
    )
}

const isListed = ({ files }: AttestedClosure, { file, sha256, isStoreFile }: UnitFile): boolean =>
  isStoreFile === true && files.byPath.get(file)?.sha256 === sha256

const named = ({ path, file }: UnitFile): string =>
  path === file ? show(path) : `${show(path)} (${show(file)})`

/** A copy of the file will do: the runtime reads it once, and what it read is told by its digest. */
function checkConfiguration(
  { name, role, contract }: IndexedRole,
  { manifest, files, attestation }: AttestedClosure,
  { config }: ContainerFacts,
  denials: Denials,
): void {
  const wanted = role.contract?.file ?? ''
  const below = wanted.slice(wanted.indexOf('/'))
  const isAttested = manifest.entries
    .map(({ path }) => `${path}${below}`)
    .some(
      (path) => contract?.test(path) === true && files.byPath.get(path)?.sha256 === config.sha256,
    )
  if (!isAttested)
    denials.add(
      'CONTRACT_NOT_FROM_CLOSURE',
      `the configuration ${show(config.path)} (${config.sha256}) has not the bytes of ${wanted} in ` +
        `the closure of ${attestation.root}, which role ${name} wants`,
    )
  if (config.unchanged !== true)
    denials.add(
      'CONTRACT_CHANGED',
      `the configuration ${show(config.path)} was written to since the container was made`,
    )
}

/** What the kernel says of a process must be what PID 1 says that it set. */
function checkService(process: ProcessFacts, { settings }: ServiceFacts, denials: Denials): void {
  const { bounding, ambient } = process.capabilities
  const extra =
    (BigInt(`0x${bounding}`) & ~BigInt(`0x${settings.capabilityBoundingSet}`)) |
    (BigInt(`0x${ambient}`) & ~BigInt(`0x${settings.ambientCapabilities}`))
  if (extra !== 0n)
    mismatch(
      process,
      `may have ${capabilityNames(extra).join(', ')}, which its unit does not say`,
      denials,
    )
  if (settings.noNewPrivileges && process.noNewPrivs !== true)
    mismatch(process, 'runs without the NoNewPrivileges of its unit', denials)
  if (settings.systemCallFilter.calls > 0 && process.seccomp !== 2)
    mismatch(process, 'runs without the SystemCallFilter of its unit', denials)
}

function checkConfined(
  process: ProcessFacts,
  { capabilities, seccomp }: ContainerFacts,
  denials: Denials,
): void {
  const extra = capabilityNames(BigInt(`0x${process.capabilities.bounding}`)).filter(
    (name) => !capabilities.includes(name),
  )
  if (extra.length > 0)
    mismatch(process, `may have ${extra.join(', ')}, which its configuration does not say`, denials)
  if (seccomp && process.seccomp !== 2)
    mismatch(process, 'runs without the seccomp filter of its configuration', denials)
}

function mismatch(process: ProcessFacts, what: string, denials: Denials): void {
  denials.add('CONFINEMENT_MISMATCH', `process ${process.pid} ${what}`)
}
