// Variables that make a loader or an interpreter do more than its arguments say: the names of all, and of those that
// are search paths where in the store they lead. A process can wipe its environment, so one that is missing proves
// nothing; one that is there can deny. None that was found is left out: what does not fit into evidence is an error,
// or a crowd of harmless names would hide the one that counts.
import { storePathOf, type StorePath } from '@bagcheck/nix'
import { AgentError } from '../error.ts'

/** Most names that evidence carries for one process. */
export const MAX_HINTS = 64
/** Most store paths that the search paths of one process lead to. */
export const MAX_SEARCHED_PATHS = 1024
const MAX_SEARCH_PATHS = 32
const MAX_NAME_CHARACTERS = 256

const HINTS =
  /^(LD_[A-Z_]+|GCONV_PATH|GLIBC_TUNABLES|NODE_OPTIONS|NODE_PATH|(NIX_)?PYTHON[A-Z]+|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|BASH_FUNC_.+|PERL5(OPT|LIB|DB)|PERLLIB|RUBY(OPT|LIB)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|LUA_(PATH|CPATH|INIT)[A-Z0-9_]*|PHPRC|PHP_INI_SCAN_DIR|ERL_([AZ]|OTP\d+_)?FLAGS|ELIXIR_ERL_OPTIONS|R_PROFILE(_USER)?|R_ENVIRON(_USER)?|R_LIBS(_USER|_SITE)?|CLASSPATH|ERL_LIBS|DOTNET_STARTUP_HOOKS|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES)$/s

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

/** Lists of directories, or of patterns, from which an interpreter takes code. Libraries that one maps are judged as such. */
const SEARCH_PATHS =
  /^(NODE_PATH|(NIX_)?PYTHONPATH|PYTHONHOME|PYTHONUSERBASE|PERL5LIB|PERLLIB|RUBYLIB|LUA_C?PATH[A-Z0-9_]*|R_LIBS(_USER|_SITE)?|CLASSPATH|ERL_LIBS)$/
const LUA = /^LUA_/

/** Where a search path leads. What lies outside of the store is counted and not told: it may be anything. */
export interface SearchPath {
  readonly variable: string
  /** Each once. */
  readonly storePaths: StorePath[]
  readonly elsewhere: number
}

/**
 * The search paths in the text of `/proc/PID/environ`. Lexical: a directory is in the store if its name says so without
 * `..`; an empty one is the working directory. A variable that is there twice is told twice: programs differ in which they take.
 * @throws {AgentError} MEASUREMENT_LIMIT if there are more than evidence can carry
 */
export function parseSearchPaths(text: string): SearchPath[] {
  const found: SearchPath[] = []
  let paths = 0
  for (const variable of text.split('\0')) {
    const name = variable.slice(0, Math.max(variable.indexOf('='), 0))
    const value = variable.slice(name.length + 1)
    if (value === '' || !SEARCH_PATHS.test(name)) continue
    // An empty part of Lua's stands for its own default.
    const parts = LUA.test(name) ? value.split(';').filter((part) => part !== '') : value.split(':')
    const inStore = parts.map((part) => storePathOf(part.replace(/\/+$/, '')))
    const storePaths = [...new Set(inStore.filter((path) => path !== undefined))]
    found.push({
      variable: name.slice(0, MAX_NAME_CHARACTERS),
      storePaths,
      elsewhere: inStore.filter((path) => path === undefined).length,
    })
    paths += storePaths.length
    if (found.length > MAX_SEARCH_PATHS || paths > MAX_SEARCHED_PATHS)
      throw new AgentError(
        'MEASUREMENT_LIMIT',
        `expected at most ${MAX_SEARCH_PATHS} search paths to ${MAX_SEARCHED_PATHS} store paths in one process`,
      )
  }
  return found
}
