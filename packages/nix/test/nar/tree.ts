// Trees for property tests: what an archive can hold, as events.
import fc from 'fast-check'
import { decodeFileName } from '@bagcheck/nix'
import type { NarEvent } from '@bagcheck/nix'

export type Tree = string | { readonly link: string } | ReadonlyMap<string, Tree>

const byte = fc.integer({ min: 1, max: 255 })
const name = fc
  .array(byte, { minLength: 1, maxLength: 6 })
  .map((bytes) => Buffer.from(bytes).toString('latin1').replaceAll('/', 'x'))
  .filter((text) => text !== '.' && text !== '..')

/** Any tree of a few levels: names and targets are any bytes, as latin1. */
export const trees: fc.Arbitrary<Tree> = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.string(),
    fc.array(byte, { minLength: 1, maxLength: 9 }).map((bytes) => ({
      link: Buffer.from(bytes).toString('latin1'),
    })),
    fc
      .dictionary(name, tie('tree'), { maxKeys: 4 })
      .map((entries) => new Map(Object.entries(entries))),
  ),
})).tree

/** The events of `tree`; contents come in pieces of three bytes. */
export function* eventsOf(tree: Tree): Generator<NarEvent> {
  if (typeof tree === 'string') {
    const bytes = Buffer.from(tree)
    yield { type: 'regular', executable: bytes.length % 2 === 1, size: bytes.length }
    for (let at = 0; at < bytes.length; at += 3)
      yield { type: 'chunk', bytes: bytes.subarray(at, at + 3) }
  } else if (tree instanceof Map) {
    yield { type: 'directory' }
    for (const [key, child] of [...tree].sort(([a], [b]) => (a < b ? -1 : 1))) {
      yield { type: 'entry', name: decodeFileName(Buffer.from(key, 'latin1')) }
      yield* eventsOf(child as Tree)
    }
    yield { type: 'end' }
  } else {
    const { link } = tree as { readonly link: string }
    yield { type: 'symlink', target: decodeFileName(Buffer.from(link, 'latin1')) }
  }
}
