// The comparison of two builds as text: the verdict first, then what it rests on.
import type { BuildComparison, ComparedPath } from '@bagcheck/nix'
import { describeRootCauses } from './causes.ts'
import { printable } from './printable.ts'

const SHOWN = 10

/** The report for people. */
export function describeComparison(found: BuildComparison): string[] {
  const { verdict, meaning, caveats, intent, derivation, root, content, rootCauses } = found
  const { same, altered, moved, changed, unread, added, removed } = content
  const counts = [
    `${same} same`,
    ...Object.entries({ altered, moved, changed, unread, added, removed })
      .filter(([, paths]) => paths.length > 0)
      .map(([what, paths]) => `${paths.length} ${what}`),
  ]
  return [
    `${verdict}: ${meaning}`,
    ...caveats.map((caveat) => `but: ${caveat}`),
    '',
    `intent      ${intent.result}`,
    ...intent.differences.map(({ what, from, to }) =>
      printable(`            ${what}: ${from ?? 'none'} → ${to ?? 'none'}`),
    ),
    `derivation  ${derivation.result}`,
    `root        ${root.result}`,
    `content     ${content.result}: ${counts.join(', ')}`,
    ...describePaths('altered', altered),
    ...describePaths('changed', [...changed, ...unread]),
    ...(rootCauses === null ? [] : ['', ...describeRootCauses(rootCauses)]),
  ]
}

function describePaths(what: string, paths: readonly ComparedPath[]): string[] {
  return [
    ...paths
      .slice(0, SHOWN)
      .map(
        ({ to, fromHash, toHash }) =>
          `            ${what} ${to}: ${fromHash === toHash ? 'other references' : `${fromHash} → ${toHash}`}`,
      ),
    ...(paths.length > SHOWN ? [`            and ${paths.length - SHOWN} more`] : []),
  ]
}
