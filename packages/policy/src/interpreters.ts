// Programs that run what they are given. A name is no proof of what a file is, so this list may only add
// demands (a launch contract), never grant anything. Nixpkgs renames what it wraps (`.perl-wrapped`).
const NAMES: ReadonlySet<string> = new Set(
  (
    'node nodejs deno bun qjs perl python pypy ruby jruby truffleruby php php-fpm php-cgi lua luajit ' +
    'tclsh wish expect guile racket sbcl clisp ocaml swipl ghci runghc runhaskell java jshell groovy ' +
    'scala dotnet mono pwsh nu erl beam.smp escript elixir iex R Rscript julia octave sh ash bash dash ' +
    'zsh ksh mksh fish csh tcsh busybox toybox awk gawk mawk sed make env xargs gdb lldb wasmtime wasmer ' +
    'nix ld.so'
  ).split(' '),
)
const LOADER = /^ld-(linux|musl|\d)/
const EMULATOR = /^qemu-/

/** True for the path of a program that is known by name to run scripts or other programs. */
export function isInterpreter(path: string): boolean {
  const name = path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/^\./, '')
    .replace(/(-unwrapped|-wrapped_*|\.static|\.real)$/, '')
  const plain = name.replace(/[-_]?\d[\w.+-]*$/, '')
  return NAMES.has(name) || NAMES.has(plain) || LOADER.test(name) || EMULATOR.test(name)
}
