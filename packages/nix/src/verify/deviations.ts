// Metadata that a NAR does not show and that Nix would not have left.
import type { BigIntStats } from 'node:fs'

/** One way in which an entry is not as Nix leaves it. */
export interface Deviation {
  readonly file: string
  readonly kind: 'mode' | 'owner' | 'attribute'
  readonly expected: string
  readonly seen: string
}

const PERMISSIONS = 0o7777n

/** 0444 or 0555 for files, 0555 for directories, the store's owner, no setuid. */
export function isAsNixLeavesIt(stat: BigIntStats, owner: number): boolean {
  return hasUsualMode(stat) && stat.uid === BigInt(owner)
}

function hasUsualMode(stat: BigIntStats): boolean {
  const mode = stat.mode & PERMISSIONS
  return mode === 0o555n || (mode === 0o444n && stat.isFile()) || stat.isSymbolicLink()
}

/** What is wrong with an entry that is not {@link isAsNixLeavesIt}. */
export function findDeviations(file: string, stat: BigIntStats, owner: number): Deviation[] {
  const found: Deviation[] = []
  if (!hasUsualMode(stat)) {
    const expected = stat.isFile() ? '0444 or 0555' : '0555'
    found.push({ file, kind: 'mode', expected, seen: describeMode(stat.mode & PERMISSIONS) })
  }
  if (stat.uid !== BigInt(owner))
    found.push({ file, kind: 'owner', expected: `uid ${owner}`, seen: `uid ${stat.uid}` })
  return found
}

/** Octal, with what it grants in words. */
function describeMode(mode: bigint): string {
  const grants = [
    (mode & 0o4000n) !== 0n && 'setuid',
    (mode & 0o2000n) !== 0n && 'setgid',
    (mode & 0o222n) !== 0n && 'writable',
  ].filter((grant) => grant !== false)
  const octal = mode.toString(8).padStart(4, '0')
  return grants.length === 0 ? octal : `${octal} (${grants.join(', ')})`
}
