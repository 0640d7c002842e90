// Checks that the program the launcher started is the one the role names, script and arguments included.
// The contract is the launcher's word (PID 1 or `bagcheck exec`). What the process says of itself, its argv
// and its environment, can be wiped: it may only contradict the contract, never stand in for it.
import { storePathOf } from '@bagcheck/nix'
import type { AttestedClosure } from './closures.ts'
import type { Denials } from './denial.ts'
import { quote, show } from './error.ts'
import type { Facts, LaunchContract, ProcessFacts } from './facts.ts'
import { isInterpreter } from './interpreters.ts'
import { SCRIPT } from './policy.ts'
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
      `nothing is recorded of how unit ${show(name)} was started; start it with bagcheck exec or as a service`,
    )
    return
  }
  const main = facts.processes.find(
    ({ pid, startTicks }) => pid === contract.pid && startTicks === contract.startTicks,
  )
  if (contract.intact !== true || !main)
    denials.add(
      'CONTRACT_BROKEN',
      `the process that unit ${show(name)} was started with is gone or has executed another program since`,
    )
  checkExecutable(role, closure, contract, main, denials)
  if (entry.kind === 'interpreter') {
    checkScript(role, closure, contract, entry, denials)
    if (main) checkEnvironment(main, closure, denials)
  } else if (entry.arguments !== null) compareArguments(entry.arguments, contract, denials)
  if (main && !sameArguments(main.argv.slice(1), contract.arguments))
    denials.add(
      'ARGUMENTS_MISMATCH',
      `process ${main.pid} shows other arguments than it was started with: ${difference(contract.arguments, main.argv.slice(1))}`,
    )
  checkOthers(role, closure, facts, main, denials)
}

function checkExecutable(
  { name, role, executable }: IndexedRole,
  { files }: AttestedClosure,
  contract: LaunchContract,
  main: ProcessFacts | undefined,
  denials: Denials,
): void {
  const path = main?.executable.path ?? contract.executable
  if (contract.executable !== path)
    denials.add(
      'ENTRY_MISMATCH',
      `the unit was started with ${show(contract.executable)}, and its process executes ${show(path)}`,
    )
  if (!files.byPath.has(path) || !executable.test(path))
    denials.add(
      'ENTRY_MISMATCH',
      `the unit was started with ${show(path)}; role ${name} wants ${role.entry.executable} of the closure`,
    )
  if (contract.uid !== role.uid)
    denials.add(
      'UID_NOT_ALLOWED',
      `the unit was started for uid ${contract.uid}; role ${name} is for uid ${role.uid}`,
    )
}

/** The script stands where the template says, is in the closure, and everything around it is as written. */
function checkScript(
  { name, script: wanted }: IndexedRole,
  { files, attestation }: AttestedClosure,
  contract: LaunchContract,
  entry: { readonly script: string; readonly arguments: readonly string[] },
  denials: Denials,
): void {
  const at = entry.arguments.indexOf(SCRIPT)
  const script = contract.arguments[at]
  if (script === undefined)
    denials.add('SCRIPT_NOT_IN_CLOSURE', `the unit was started without the script ${entry.script}`)
  // Only regular files are listed, so the path is the script itself and not a link to another.
  else if (!files.byPath.has(script) || storePathOf(script) === undefined)
    denials.add(
      'SCRIPT_NOT_IN_CLOSURE',
      `the unit runs the script ${show(script)}, which is not in the closure of ${attestation.root}`,
    )
  else if (wanted?.test(script) !== true)
    denials.add(
      'ARGUMENTS_MISMATCH',
      `the unit runs the script ${show(script)}; role ${name} wants ${entry.script}`,
    )
  compareArguments(
    entry.arguments.map((argument, index) => (index === at && script ? script : argument)),
    contract,
    denials,
  )
}

/** Variables that interpreters read as further arguments. */
const FURTHER_ARGUMENTS =
  /^(NODE_OPTIONS|PERL5OPT|PERL5DB|RUBYOPT|PYTHONSTARTUP|PYTHONINSPECT|BASH_ENV|ENV|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|LUA_INIT\w*|SHELLOPTS|BASHOPTS|BASH_FUNC_.+|PHPRC|PHP_INI_SCAN_DIR|ERL_([AZ]|OTP\d+_)?FLAGS|ELIXIR_ERL_OPTIONS|R_PROFILE(_USER)?|R_ENVIRON(_USER)?|DOTNET_STARTUP_HOOKS|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES)$/s

function checkEnvironment(
  main: ProcessFacts,
  { attestation, manifest }: AttestedClosure,
  denials: Denials,
): void {
  for (const name of main.environmentHints)
    if (FURTHER_ARGUMENTS.test(name))
      denials.add(
        'ARGUMENTS_MISMATCH',
        `process ${main.pid} has ${name} in its environment, which adds arguments that nobody approved`,
      )
  if (main.searchPaths.length === 0) return
  const approved = new Set(manifest.entries.map(({ path }) => path))
  for (const { variable, storePaths, elsewhere } of main.searchPaths) {
    const foreign = storePaths.find((path) => !approved.has(path))
    if (foreign === undefined && elsewhere === 0) continue
    const where = foreign === undefined ? 'outside of the store' : show(foreign)
    denials.add(
      'SEARCH_PATH_FOREIGN',
      `process ${main.pid} may take code from ${where}, which ${variable} names and the closure of ${attestation.root} does not hold`,
    )
  }
}

/** The contract says what one process and its forks run; of any other interpreter nobody knows. */
function checkOthers(
  { role }: IndexedRole,
  closure: AttestedClosure,
  facts: Facts,
  main: ProcessFacts | undefined,
  denials: Denials,
): void {
  const entry = role.entry.kind === 'interpreter' ? main?.executable.sha256 : undefined
  for (const process of facts.processes) {
    if (process === main) continue
    const { path, sha256 } = process.executable
    if (!isInterpreter(path) && sha256 !== entry) continue
    if (process.isMainImage !== true)
      denials.add(
        'INTERPRETER_WITHOUT_CONTRACT',
        `process ${process.pid} runs the interpreter ${show(path)}, and nothing says what for`,
      )
    // A process can put its addresses where it likes; one that does not think of its arguments is found out.
    else if (main && !sameArguments(process.argv, main.argv))
      denials.add(
        'ARGUMENTS_MISMATCH',
        `process ${process.pid}, a fork of process ${main.pid}, shows other arguments: ${difference(main.argv.slice(1), process.argv.slice(1))}`,
      )
    if (entry !== undefined) checkEnvironment(process, closure, denials)
  }
}

function compareArguments(
  wanted: readonly string[],
  contract: LaunchContract,
  denials: Denials,
): void {
  if (!sameArguments(wanted, contract.arguments))
    denials.add(
      'ARGUMENTS_MISMATCH',
      `expected the arguments ${quote(wanted)}: ${difference(wanted, contract.arguments)}`,
    )
}

/**
 * Where arguments part, without what was seen: services are given secrets as arguments, and decisions are in a log
 * that anybody may read.
 */
function difference(wanted: readonly string[], seen: readonly string[]): string {
  const at = wanted.findIndex((argument, index) => argument !== seen[index])
  if (at === -1) return `saw ${seen.length - wanted.length} more`
  return at < seen.length ? `argument ${at + 1} is another` : `saw ${seen.length} of them`
}

const sameArguments = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((argument, index) => argument === b[index])
