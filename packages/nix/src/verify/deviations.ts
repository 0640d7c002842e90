// Metadata that a NAR does not show and that Nix would not have left.
import type { BigIntStats } from 'node:fs'
import { kindOf } from '../nar/file-tree.ts'

/** One way in which an entry is not as Nix leaves it. */
export interface Deviation {
  readonly file: string
  readonly kind: 'mode' | 'owner' | 'attribute'
  readonly expected: string
  readonly seen: string
}

const PERMISSIONS = 0o7777

/** 0444 or 0555 for files, 0555 for directories, the store's owner, no setuid. */
export function isAsNixLeavesIt(stat: BigIntStats, owner: number): boolean {
  return hasUsualMode(stat) && Number(stat.uid) === owner
}

function hasUsualMode(stat: BigIntStats): boolean {
  const permissions = Number(stat.mode) & PERMISSIONS
  if (permissions === 0o555) return true
  const kind = kindOf(stat)
  return kind === 'symlink' || (kind === 'regular' && permissions === 0o444)
}

/** What is wrong with an entry that is not {@link isAsNixLeavesIt}. */
export function findDeviations(file: string, stat: BigIntStats, owner: number): Deviation[] {
  const found: Deviation[] = []
  if (!hasUsualMode(stat)) {
    const expected = kindOf(stat) === 'regular' ? '0444 or 0555' : '0555'
    found.push({
      file,
      kind: 'mode',
      expected,
      seen: describeMode(Number(stat.mode) & PERMISSIONS),
    })
  }
  if (Number(stat.uid) !== owner)
    found.push({ file, kind: 'owner', expected: `uid ${owner}`, seen: `uid ${stat.uid}` })
  return found
}

/** Octal, with what it grants in words. */
function describeMode(mode: number): string {
  const grants = [
    (mode & 0o4000) !== 0 && 'setuid',
    (mode & 0o2000) !== 0 && 'setgid',
    (mode & 0o222) !== 0 && 'writable',
  ].filter((grant) => grant !== false)
  const octal = mode.toString(8).padStart(4, '0')
  return grants.length === 0 ? octal : `${octal} (${grants.join(', ')})`
}
