// Programs that run what they are given. A name is no proof of what a file is, so this list may only add
// demands (a launch contract), never grant anything.
const NAMES =
  /^(node|nodejs|deno|bun|perl|python|pypy|ruby|php|lua|luajit|tclsh|wish|guile|java|dotnet|mono|erl|elixir|R|Rscript|sh|ash|bash|dash|zsh|ksh|fish|busybox|toybox|awk|gawk|mawk|make|env|ld-linux-[^/]*)[\d.-]*$/

/** True for the path of a program that is known to run scripts. */
export function isInterpreter(path: string): boolean {
  return NAMES.test(path.slice(path.lastIndexOf('/') + 1))
}
