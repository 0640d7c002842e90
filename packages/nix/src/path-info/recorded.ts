import type { ClosureSource } from '../closure.ts'
import type { PathInfo } from '../manifest.ts'
import type { StorePath } from '../store-path.ts'

/** A {@link ClosureSource} of facts that were read before. */
export type RecordedKind = 'manifest' | 'path-info' | 'registration'

/**
 * A source of the facts `infos`, for `readClosure`: the entries of a manifest whose signature was
 * verified (so that a closure is known with no Nix present), the output of `nix path-info --json`, or
 * registrations. The facts are worth what their text is worth.
 *
 * @throws {TypeError} a path is given twice
 */
export function recordedSource(kind: RecordedKind, infos: readonly PathInfo[]): ClosureSource {
  const byPath = new Map<StorePath, PathInfo>(infos.map((info) => [info.path, info]))
  if (byPath.size !== infos.length) throw new TypeError('facts about a path are given twice')
  return {
    kind,
    queryPathInfo: async (path) => byPath.get(path),
    close: async () => undefined,
  }
}
