// Which package a store path belongs to, guessed from its name alone. The .drv knows it, the name only hints:
//
//   name = pname [ "-" version ] [ "-" output ]
//
// `nix store diff-closures` takes any trailing "-[a-z]+" for an output, which makes of `bash-interactive`
// the output "interactive" of `bash`, and of `foo-1.0-unstable` the output "unstable". Here a suffix
// counts as an output only behind a version, and only when nixpkgs uses it as one. What a name cannot tell
// stays wrong: `dbus-1`, a configuration, reads as version 1 of dbus.
import { storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { parseDrvName } from '../version.ts'

/** The package that a store path is an output of. */
export interface PackageName {
  readonly pname: string
  /** Empty when there is none. */
  readonly version: string
  /** `out` when nothing says otherwise. */
  readonly output: string
}

// Outputs in nixpkgs that reach runtime closures.
const OUTPUTS = new Set(
  (
    'bin cc checkpoint daemon data debug dev devdoc devman dist doc examples hostname info installedTests ' +
    'js lib lib32 lib64 libexec libgcc libs locale login man modules mount nixos plugins py python ' +
    'scripts server share static swap terminfo test tests tools udev utils vdpau'
  ).split(' '),
)

const FILE_ENDING = /\.(?:drv|patch|diff|zip|gem|crate|whl|jar|tgz|tar(?:\.[a-z0-9]+)?)$/

/** Takes the name of `path` apart; a guess. */
export function guessPackageName(path: StorePath): PackageName {
  const bare = storePathName(path).replace(FILE_ENDING, '')
  const { name, version } = takeApart(bare)
  const dash = version.lastIndexOf('-')
  const output = version.slice(dash + 1)
  return dash > 0 && OUTPUTS.has(output)
    ? { pname: name, version: version.slice(0, dash), output }
    : { pname: name, version, output: 'out' }
}

/** As Nix, and then a version that starts with "v" and a digit. */
function takeApart(fullName: string): { name: string; version: string } {
  const parsed = parseDrvName(fullName)
  if (parsed.name === '') return { name: fullName, version: '' } // "-1.0": nothing is left to group by
  if (parsed.version !== '') return parsed
  const at = fullName.search(/-v[0-9]/)
  if (at <= 0) return parsed
  return { name: fullName.slice(0, at), version: fullName.slice(at + 1) }
}
