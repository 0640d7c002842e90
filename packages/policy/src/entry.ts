// Checks that the program the launcher started is the one the role names, script and arguments included.
// The contract is the launcher's word (PID 1 or `bagcheck exec`); the process's own argv may only contradict.
import { storePathOf } from '@bagcheck/nix'
import type { AttestedClosure } from './closures.ts'
import type { Denials } from './denial.ts'
import { quote } from './error.ts'
import type { Facts, LaunchContract, ProcessFacts } from './facts.ts'
import { isInterpreter } from './interpreters.ts'
import { matchesPattern } from './policy.ts'
import type { IndexedRole } from './role-index.ts'

/** Adds a reason for everything about the unit's entry that the role does not allow. */
export function checkEntry(
  role: IndexedRole,
  closure: AttestedClosure,
  facts: Facts,
  denials: Denials,
): void {
  const { contract, name } = facts.unit
  const { entry } = role.role
  if (!contract) {
    const code = entry.kind === 'interpreter' ? 'INTERPRETER_WITHOUT_CONTRACT' : 'CONTRACT_MISSING'
    denials.add(
      code,
      `nothing is recorded of how unit ${name} was started; start it with bagcheck exec or as a service`,
    )
    return
  }
  const main = facts.processes.find(
    ({ pid, startTicks }) => pid === contract.pid && startTicks === contract.startTicks,
  )
  if (!contract.intact || !main)
    denials.add(
      'CONTRACT_BROKEN',
      `the process that unit ${name} was started with is gone or has executed another program since`,
    )
  checkExecutable(role, closure, contract, main, denials)
  if (entry.kind === 'interpreter') checkScript(role, closure, contract, entry, denials)
  else if (entry.arguments !== null) compareArguments(entry.arguments, contract, denials)
  if (main && !sameArguments(main.argv.slice(1), contract.arguments))
    denials.add(
      'ARGUMENTS_MISMATCH',
      `process ${main.pid} shows other arguments than it was started with: ${quote(main.argv.slice(1))}`,
    )
  for (const process of facts.processes)
    if (process !== main && isInterpreter(process.executable.path))
      denials.add(
        'INTERPRETER_WITHOUT_CONTRACT',
        `process ${process.pid} runs the interpreter ${process.executable.path}, and nothing says what for`,
      )
}

function checkExecutable(
  { name, role }: IndexedRole,
  { files }: AttestedClosure,
  contract: LaunchContract,
  main: ProcessFacts | undefined,
  denials: Denials,
): void {
  const path = main?.executable.path ?? contract.executable
  if (contract.executable !== path)
    denials.add(
      'ENTRY_MISMATCH',
      `the unit was started with ${contract.executable}, and its process executes ${path}`,
    )
  if (!files.byPath.has(path) || !matchesPattern(role.entry.executable, path))
    denials.add(
      'ENTRY_MISMATCH',
      `the unit was started with ${path}; role ${name} wants ${role.entry.executable} of the closure`,
    )
  if (contract.uid !== role.uid)
    denials.add(
      'UID_NOT_ALLOWED',
      `the unit was started for uid ${contract.uid}; role ${name} is for uid ${role.uid}`,
    )
}

function checkScript(
  { name }: IndexedRole,
  { files, attestation }: AttestedClosure,
  contract: LaunchContract,
  entry: { readonly script: string; readonly arguments: readonly string[] },
  denials: Denials,
): void {
  const script = contract.arguments[entry.arguments.indexOf('{script}')]
  const known =
    script !== undefined && files.byPath.has(script) && storePathOf(script) !== undefined
  if (known && matchesPattern(entry.script, script)) {
    compareArguments(
      entry.arguments.map((argument) => (argument === '{script}' ? script : argument)),
      contract,
      denials,
    )
    return
  }
  if (known)
    denials.add(
      'ARGUMENTS_MISMATCH',
      `the unit runs the script ${script}; role ${name} wants ${entry.script}`,
    )
  else
    denials.add(
      'SCRIPT_NOT_IN_CLOSURE',
      `the unit runs ${script === undefined ? 'no script' : `the script ${quote(script)}`}, which is not in the closure of ${attestation.root}`,
    )
}

function compareArguments(
  wanted: readonly string[],
  contract: LaunchContract,
  denials: Denials,
): void {
  if (!sameArguments(wanted, contract.arguments))
    denials.add(
      'ARGUMENTS_MISMATCH',
      `expected the arguments ${quote(wanted)}, saw ${quote(contract.arguments)}`,
    )
}

const sameArguments = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((argument, index) => argument === b[index])
