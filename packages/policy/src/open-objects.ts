// What processes hold open. A descriptor can be a way to change code, memory or the store unseen; a file that an
// interpreter reads can be its program. Descriptors are judged in every process. Files are judged for interpreters
// only: a program in machine code runs what it maps executable, and reads data.
//
// Ordinary services read data as well: a locale, a file that they serve, one that they map. Nobody can tell that
// from code, so a role says whether its service reads anything foreign at all, and what.
//
// The rule for interpreters is about what stays visible: a script that a shell reads as it goes, the archives and
// assemblies of a virtual machine, a module that is mapped. A script that was read and closed again, one that is
// open for writing too, one that came through a pipe: none of these can be seen here.
import type { AttestedClosure } from './closures.ts'
import type { DenialCode, Denials } from './denial.ts'
import { show } from './error.ts'
import type { Descriptor, ProcessFacts } from './facts.ts'
import { isInterpreter } from './interpreters.ts'
import type { IndexedRole } from './role-index.ts'

/** No role can allow these. */
const NEVER: Readonly<
  Partial<Record<Descriptor['kind'], readonly [code: DenialCode, what: string]>>
> = {
  'store-writable': ['STORE_WRITABLE', 'can write to the store'],
  'process-memory': ['PROCESS_MEMORY', 'has the memory of a process open'],
  'kernel-memory': ['KERNEL_MEMORY', "has the kernel's memory open"],
}

/** Adds a reason for every kind of descriptor that the role does not allow. */
export function checkDescriptors(role: IndexedRole, process: ProcessFacts, denials: Denials): void {
  const allowed: readonly string[] = role.role.allow.descriptors
  for (const { kind, name } of process.descriptors) {
    const never = NEVER[kind]
    if (never) denials.add(never[0], `process ${process.pid} ${never[1]}: ${show(name)}`)
    else if (!allowed.includes(kind))
      denials.add(
        'DESCRIPTOR_NOT_ALLOWED',
        `process ${process.pid} holds ${show(name)} (${kind}), which role ${role.name} does not allow`,
      )
  }
}

/** Adds a reason for every file outside the closure that an interpreter has open or mapped. */
export function checkDataFiles(
  role: IndexedRole,
  { files, attestation }: AttestedClosure,
  process: ProcessFacts,
  denials: Denials,
): void {
  const allowed = role.role.foreignFiles
  if (allowed === null) return
  const isEntry =
    role.role.entry.kind === 'interpreter' && role.executable.test(process.executable.path)
  if (!isEntry && !isInterpreter(process.executable.path)) return
  const { count, files: told } = process.dataFiles
  if (!(count <= told.length))
    denials.add(
      'FOREIGN_FILE',
      `process ${process.pid} has ${count} files open or mapped, more than evidence can tell`,
    )
  for (const { path, isStoreFile } of told) {
    // Its content was verified with the store, because it is the very file at this path.
    if (isStoreFile === true && files.byPath.has(path)) continue
    if (allowed.some((one) => isWithin(path, one))) continue
    if (isStoreFile === true && role.foreignStoreFiles.some((one) => one.test(path))) continue
    denials.add(
      'FOREIGN_FILE',
      `process ${process.pid}, an interpreter, reads ${show(path)}, which is not in the closure of ` +
        `${attestation.root} and not among the foreign files of role ${role.name}`,
    )
  }
}

const isWithin = (path: string, allowed: string): boolean =>
  allowed.endsWith('/') ? path.startsWith(allowed) : path === allowed
