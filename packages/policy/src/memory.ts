// Code in memory. Text that differs from its file is nobody's code. Executable memory without a file is what a JIT
// makes and what an intruder brings; it is allowed by the digest of the program that makes it, in number, in size
// and, where memory has a name, by name. Names are the process's own choice, so they only narrow. Memory that
// another process can write to while this one runs it is never allowed.
import type { Denials } from './denial.ts'
import { show } from './error.ts'
import type { ExecutableMemory, ProcessFacts } from './facts.ts'
import type { Role } from './policy.ts'
import type { IndexedRole } from './role-index.ts'

type Allowance = Role['allow']['jit'][number]

/** True if executable memory without a file was in use and an allowance covers some of it. */
export function checkMemory(role: IndexedRole, process: ProcessFacts, denials: Denials): boolean {
  const who = `process ${process.pid}`
  if (process.modifiedTextBytes !== 0)
    denials.add(
      'TEXT_MODIFIED',
      `${who} runs code that was changed in memory (${process.modifiedTextBytes} bytes of pages)`,
    )
  const allowance = role.jit.get(process.executable.sha256)
  const covered = process.executableMemory.filter((memory) =>
    isCovered(role, process, memory, allowance, denials),
  )
  if (!allowance || covered.length === 0) return false
  const sum = (of: (memory: ExecutableMemory) => number): number =>
    covered.reduce((total, memory) => total + of(memory), 0)
  const regions = sum((memory) => memory.regions)
  const bytes = sum((memory) => memory.bytes)
  if (!(regions <= allowance.maxRegions))
    denials.add(
      'JIT_REGIONS',
      `${who} has ${regions} regions of executable memory; ${allowance.maxRegions} are allowed`,
    )
  if (!(bytes <= allowance.maxBytes))
    denials.add(
      'JIT_BYTES',
      `${who} has ${bytes} bytes of executable memory; ${allowance.maxBytes} are allowed`,
    )
  return true
}

/** True if the allowance is about this memory; what none is about is denied. */
function isCovered(
  { name: role }: IndexedRole,
  { pid, executable: { path, sha256 } }: ProcessFacts,
  { kind, name, regions, bytes }: ExecutableMemory,
  allowance: Allowance | undefined,
  denials: Denials,
): boolean {
  const what = `process ${pid} has executable memory that no file backs (${regions} regions, ${bytes} bytes`
  const program = `${show(path)} (${sha256})`
  if (kind === 'memfd') {
    if (allowance?.allowMemfdNames.includes(name)) return true
    denials.add(
      'MEMFD_EXECUTABLE',
      `${what} of memfd ${show(name)}), and role ${role} allows no such memfd for ${program}`,
    )
  } else if (kind !== 'anonymous')
    denials.add('SHARED_MEMORY_EXECUTABLE', `${what}), and shares it as ${show(name)}`)
  else if (!allowance)
    denials.add('JIT_NOT_ALLOWED', `${what}), and role ${role} allows none for ${program}`)
  else if (name !== '' && !allowance.allowNames.includes(name))
    denials.add(
      'JIT_NAME_NOT_ALLOWED',
      `${what} named ${show(name)}), and role ${role} allows no such name for ${program}`,
    )
  else return true
  return false
}
