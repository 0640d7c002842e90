// OCI labels for an image that holds a closure. They are signposts for people and tools that look at
// an image; nothing is decided on them.
import type { StorePath } from '@bagcheck/nix'
import type { ClosurePredicate } from './closure-predicate.ts'

const PREFIX = 'dev.bagcheck'

/**
 * Returns the labels of a closure; facts that are unknown have none.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/annotations.md
 */
export function closureLabels(
  root: StorePath,
  predicate: ClosurePredicate,
): Readonly<Record<string, string>> {
  const known: readonly [label: string, value: string | null][] = [
    [`${PREFIX}.closure.digest`, `sha256:${predicate.closure.digest}`],
    [`${PREFIX}.closure.paths`, String(predicate.closure.paths)],
    [`${PREFIX}.files.digest`, `sha256:${predicate.files.digest}`],
    [`${PREFIX}.root`, root],
    [`${PREFIX}.drv`, predicate.drvPath.value],
    [`${PREFIX}.system`, predicate.system.value],
    ['org.opencontainers.image.source', predicate.flake.url.value],
    ['org.opencontainers.image.revision', predicate.flake.rev.value],
  ]
  return Object.fromEntries(known.filter(([, value]) => value !== null)) as Record<string, string>
}
