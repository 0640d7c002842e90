// "Same intent, new hash": why are these two builds not one? Decided from four comparisons, in this order:
//
//   content    derivation   intent      verdict
//   altered    any          any         altered             one path, two contents or sets of references
//   same       same         any         identical
//   same       different    same        impure-evaluation
//   same       different    other       cut-off             how it is made changed, what is made did not
//   any        different    same        impure-evaluation
//   moved      any          other       rebuild             only where dependencies lie
//   different  any          other       change              with root causes where both graphs are known
//
// "other" is different or unknown: unless the intent is known to be the same, nothing is called impure.
import type { DerivationGraph } from '../derivation/graph.ts'
import { findRootCauses } from '../derivation/root-causes.ts'
import type { RootCauses } from '../derivation/root-causes.ts'
import type { ClosureManifest } from '../manifest.ts'
import type { StorePath } from '../store-path.ts'
import { compareContents } from './content.ts'
import type { ContentComparison, NarOpener } from './content.ts'
import { compareIntents } from './intent.ts'
import type { BuildIntent, IntentComparison } from './intent.ts'

/** Why two builds are not one, and what to do about it. */
export const BUILD_VERDICTS = {
  identical:
    'The builds are the same, path by path and byte for byte. There is nothing to approve.',
  altered:
    'One store path has two contents, or one content with two sets of references: its build is not deterministic, ' +
    'or one of the two was altered. Trust neither until a second builder agrees with one of them; compare the ' +
    'two contents to see what differs.',
  'impure-evaluation':
    'The same inputs gave other derivations, so evaluation read something that no lock pins: a tree with ' +
    'uncommitted changes, the clock, the environment, a path outside the flake, other settings or another Nix, ' +
    'or the result of a build. The root causes show where it went in.',
  'cut-off':
    'How it is made changed, and what is made did not: a source is fetched from elsewhere, or a changed input ' +
    'had no effect. The content is what was approved before.',
  rebuild:
    'Every path that changed differs only by where its dependencies lie. Nothing of it changed by itself.',
  change:
    'The content changed. The root causes say what changed by itself; all else follows from them.',
} as const

/** One of {@link BUILD_VERDICTS}. */
export type BuildVerdict = keyof typeof BUILD_VERDICTS

/** One of the builds that are compared. */
export interface Build {
  /** The closure of what was built, with the NAR hashes that this builder recorded. */
  readonly closure: ClosureManifest
  /** What it was built from; its only root built the root of the closure. */
  readonly derivations?: DerivationGraph
  readonly intent?: BuildIntent
}

/** A verdict with its evidence. */
export interface BuildComparison {
  readonly schema: 'bagcheck.build-comparison/v1'
  readonly verdict: BuildVerdict
  /** What the verdict means, from {@link BUILD_VERDICTS}. */
  readonly meaning: string
  /** What is not known and could have led to another verdict. */
  readonly caveats: readonly string[]
  readonly root: { readonly from: StorePath; readonly to: StorePath; readonly result: SameOrNot }
  readonly intent: IntentComparison
  readonly derivation: {
    readonly from: StorePath | null
    readonly to: StorePath | null
    readonly result: SameOrNot | 'unknown'
  }
  readonly content: ContentComparison & {
    readonly result: 'same' | 'altered' | 'moved' | 'different'
  }
  /** Where both graphs are known and differ. */
  readonly rootCauses: RootCauses | null
}

/** How two things compare. */
export type SameOrNot = 'same' | 'different'

/** What {@link classifyBuilds} may read. */
export interface ClassifyOptions {
  /** Opens archives of `from`, where paths moved; without it these count as different. */
  readonly openNar?: NarOpener
  readonly signal?: AbortSignal
}

/**
 * Says why two builds are not one, with the evidence.
 *
 * The NAR hashes are what each builder recorded: claims until the stores were verified.
 *
 * @throws {NixError} whatever reading an archive throws; FLAKE_LOCK_NODE, FLAKE_LOCK_LIMIT, as `compareIntents`;
 * DRV_LIMIT, as `findRootCauses`.
 */
export async function classifyBuilds(
  from: Build,
  to: Build,
  { openNar, signal }: ClassifyOptions = {},
): Promise<BuildComparison> {
  const graphs =
    from.derivations && to.derivations ? { from: from.derivations, to: to.derivations } : undefined
  const contents = await compareContents(from.closure, to.closure, {
    ...(graphs && { derivations: graphs }),
    ...(openNar && { openNar }),
    ...(signal && { signal }),
  })
  const content = { ...contents, result: resultOf(contents) }
  const intent = compareIntents(from.intent, to.intent)
  const derivation = compareRoots(from.derivations, to.derivations)
  const verdict = decide(content.result, derivation.result, intent.result)
  const rootFrom = from.closure.root
  const rootTo = to.closure.root
  return {
    schema: 'bagcheck.build-comparison/v1',
    verdict,
    meaning: BUILD_VERDICTS[verdict],
    caveats: findCaveats(verdict, content, derivation.result, intent),
    root: { from: rootFrom, to: rootTo, result: rootFrom === rootTo ? 'same' : 'different' },
    intent,
    derivation,
    content,
    rootCauses:
      graphs && derivation.result === 'different' ? findRootCauses(graphs.from, graphs.to) : null,
  }
}

function decide(
  content: BuildComparison['content']['result'],
  derivation: SameOrNot | 'unknown',
  intent: IntentComparison['result'],
): BuildVerdict {
  if (content === 'altered') return 'altered'
  if (derivation === 'different' && intent === 'same') return 'impure-evaluation'
  if (content === 'same') return derivation === 'different' ? 'cut-off' : 'identical'
  return content === 'moved' ? 'rebuild' : 'change'
}

function resultOf(content: ContentComparison): BuildComparison['content']['result'] {
  if (content.altered.length > 0) return 'altered'
  const { changed, unread, added, removed, moved } = content
  if (changed.length + unread.length + added.length + removed.length > 0) return 'different'
  return moved.length > 0 ? 'moved' : 'same'
}

function compareRoots(
  from: DerivationGraph | undefined,
  to: DerivationGraph | undefined,
): BuildComparison['derivation'] {
  const [old = null] = from?.roots ?? []
  const [young = null] = to?.roots ?? []
  const result = old === null || young === null ? 'unknown' : old === young ? 'same' : 'different'
  return { from: old, to: young, result }
}

function findCaveats(
  verdict: BuildVerdict,
  content: BuildComparison['content'],
  derivation: SameOrNot | 'unknown',
  intent: IntentComparison,
): string[] {
  const caveats: string[] = []
  if (derivation === 'unknown' && verdict !== 'altered')
    caveats.push(
      'The derivations of both builds are not known: an impure evaluation would not show.',
    )
  if (intent.result === 'unknown' && derivation === 'different' && verdict !== 'altered')
    caveats.push(
      `The intent is not known in full (${intent.missing.join(', ')}): if it is the same, this is an impure evaluation.`,
    )
  if (content.unread.length > 0)
    caveats.push(
      `Not every path could be read (${content.unread.length} not): these may differ only by where their dependencies lie.`,
    )
  if (derivation === 'same' && content.result !== 'same' && verdict !== 'altered')
    caveats.push(
      'One derivation gave other paths: its outputs are content-addressed or impure, or the closures are not its.',
    )
  return caveats
}
