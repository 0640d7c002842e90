// Names of variables that make a loader or an interpreter do more than its arguments say. A process can
// wipe its environment, so a name that is missing proves nothing; one that is there can deny. None that was
// found is left out: what does not fit into evidence is an error, or a crowd of harmless names would hide
// the one that counts.
import { AgentError } from '../error.ts'

/** Most names that evidence carries for one process. */
export const MAX_HINTS = 64
const MAX_NAME_CHARACTERS = 256

const HINTS =
  /^(LD_[A-Z_]+|GCONV_PATH|GLIBC_TUNABLES|NODE_OPTIONS|NODE_PATH|PYTHON[A-Z]+|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|BASH_FUNC_.+|PERL5(OPT|LIB|DB)|PERLLIB|RUBY(OPT|LIB)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|LUA_(PATH|CPATH|INIT)[A-Z0-9_]*|PHPRC|PHP_INI_SCAN_DIR|ERL_([AZ]|OTP\d+_)?FLAGS|ELIXIR_ERL_OPTIONS|R_PROFILE(_USER)?|R_ENVIRON(_USER)?|DOTNET_STARTUP_HOOKS|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES)$/s

/**
 * The names in the text of `/proc/PID/environ`, each once. Never a value.
 * @throws {AgentError} MEASUREMENT_LIMIT if there are more than evidence can carry
 */
export function parseEnvironmentHints(text: string): string[] {
  const names = new Set<string>()
  for (const variable of text.split('\0')) {
    const name = variable.slice(0, Math.max(variable.indexOf('='), 0))
    if (!HINTS.test(name)) continue
    names.add(name.slice(0, MAX_NAME_CHARACTERS))
    if (names.size > MAX_HINTS)
      throw new AgentError(
        'MEASUREMENT_LIMIT',
        `expected at most ${MAX_HINTS} loader and interpreter variables in one process`,
      )
  }
  return [...names]
}
