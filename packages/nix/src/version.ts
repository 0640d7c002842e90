// Names and versions as Nix itself takes them apart and orders them: exact, oddities included, since
// "newer" must mean here what it means to `nix-env -u` and `builtins.compareVersions`.
// https://github.com/NixOS/nix/blob/master/src/libstore/names.cc

/** A derivation name, taken apart. */
export interface DrvName {
  readonly name: string
  /** Empty when the name has none. */
  readonly version: string
}

/**
 * As `builtins.parseDrvName`: the version starts after the first dash that is followed by anything but a
 * letter, so `nixos-23.11` has one, and `foo-v1.2` has none.
 */
export function parseDrvName(fullName: string): DrvName {
  const dash = /-(?=[^A-Za-z])/s.exec(fullName)
  if (dash === null) return { name: fullName, version: '' }
  return { name: fullName.slice(0, dash.index), version: fullName.slice(dash.index + 1) }
}

/**
 * As `builtins.compareVersions`. A version is a row of components, each all digits or without digits;
 * dots and dashes separate. Numbers are compared as such, `pre` is older than everything, a missing
 * component is older than a number, and text (`2.3a`) is older than a number (`2.3.1`).
 */
export function compareVersions(a: string, b: string): -1 | 0 | 1 {
  const left = components(a)
  const right = components(b)
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const x = left[index] ?? ''
    const y = right[index] ?? ''
    if (isOlder(x, y)) return -1
    if (isOlder(y, x)) return 1
  }
  return 0
}

/** The components of a version, as `builtins.splitVersion` gives them. */
function components(version: string): string[] {
  return version.match(/[0-9]+|[^0-9.-]+/g) ?? []
}

const INT_MAX = 2 ** 31 - 1

function isOlder(a: string, b: string): boolean {
  const x = toInt(a)
  const y = toInt(b)
  if (x !== undefined && y !== undefined) return x < y
  if (a === '' && y !== undefined) return true
  if (a === 'pre' && b !== 'pre') return true
  if (b === 'pre') return false
  if (y !== undefined) return true
  if (x !== undefined) return false
  return Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0
}

/** Nix reads a C int; digits beyond that, such as the date 20260131120000, are text to it. */
function toInt(component: string): number | undefined {
  if (!/^[0-9]+$/.test(component)) return undefined
  const value = Number(component)
  return value <= INT_MAX ? value : undefined
}
