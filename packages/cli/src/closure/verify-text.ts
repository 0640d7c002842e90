// What `bagcheck closure verify` tells people.
import type { ClosureVerification, VerifyProgress } from '@bagcheck/nix'

/** One line of progress. */
export function describeProgress(progress: VerifyProgress): string {
  const { paths, totalPaths, bytes, totalBytes } = progress
  const percent = totalBytes === 0 ? 100 : Math.floor((bytes / totalBytes) * 100)
  return `verified ${paths} of ${totalPaths} paths, ${percent} % of ${describeBytes(totalBytes)}`
}

/** A verdict on `what`, `paths` store paths, and what the verification leaves open. */
export function describeVerification(
  what: string,
  paths: number,
  verification: ClosureVerification,
): string[] {
  const { ok, mismatches, mismatchCount, filesChecked, filesHashed } = verification
  const lines = mismatches.map(
    ({ kind, file, path, expected, seen }) =>
      `${file ?? path}: ${kind}: expected ${expected}, found ${seen}`,
  )
  const more = mismatchCount - mismatches.length
  if (more > 0) lines.push(`… and ${more} more`)
  const files = `${filesChecked} files looked at, ${filesHashed} read`
  lines.push(
    ok
      ? `${what}: ${paths} paths as they should be (${describeStrength(verification)}; ${files})`
      : `${what}: ${mismatchCount} ${mismatchCount === 1 ? 'difference' : 'differences'} (${describeStrength(verification)}; ${files})`,
  )
  return lines
}

/** What is no mismatch and still to be known, one line each. */
export function describeRemarks({ attributes, strayLinks }: ClosureVerification): string[] {
  const lines = strayLinks.map(
    ({ file, names, found }) =>
      `${file} has ${names} names; ${names - found} neither in this closure nor in .links`,
  )
  if (attributes === 'not checked') lines.push('extended attributes: not checked')
  return lines
}

function describeStrength({ strength, checkedAtMs, lastFullAtMs }: ClosureVerification): string {
  if (strength === 'full') return strength
  if (lastFullAtMs === 0) return `${strength}, never read in full`
  return `${strength}, read in full ${describeAge(checkedAtMs - lastFullAtMs)} ago`
}

function describeAge(ms: number): string {
  const seconds = Math.floor(ms / 1000)
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`
}

function describeBytes(bytes: number): string {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}
