// The parsers of archives, which read a stream.
import { encodeNar, listNar, NAR_MAX_DEPTH, readNar } from '@bagcheck/nix'
import type { NarEvent } from '@bagcheck/nix'
import { directory, nar, regular, str, symlink } from '../nar/archive.ts'
import { eventsOf, trees } from '../nar/tree.ts'
import { counted, parser, text } from './parser.ts'
import type { Parser } from './parser.ts'

/** In pieces that end nowhere in particular. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 61) yield bytes.subarray(at, at + 61)
}

/** The events with the contents of each file in one piece, and without where it lies. */
function joined(events: Iterable<NarEvent>): NarEvent[] {
  const all: NarEvent[] = []
  for (const event of events) {
    const last = all.at(-1)
    if (event.type === 'regular') {
      const { type, executable, size } = event
      all.push({ type, executable, size })
    } else if (event.type === 'chunk' && last?.type === 'chunk')
      all[all.length - 1] = { type: 'chunk', bytes: Buffer.concat([last.bytes, event.bytes]) }
    else if (event.type === 'chunk') all.push({ type: 'chunk', bytes: Buffer.from(event.bytes) })
    else all.push(event)
  }
  return all
}

const sample = nar(
  ...directory(
    ['bin', directory(['tool', regular('#!/bin/sh\n', true)])],
    ['empty', directory()],
    ['link', symlink('\xff')],
    ['nothing', regular('')],
  ),
)
const words = '( ) type regular directory symlink target contents entry name node a'.split(' ')
const nested = (levels: number): string[] =>
  levels === 0 ? regular('') : directory(['d', nested(levels - 1)])
const codes = /^NAR_(TRUNCATED|TOKEN|PADDING|NAME|ORDER|TARGET|LIMIT|TRAILING)$/
const both = {
  samples: [sample, nar(...regular('x')), nar(...symlink('x'))],
  codes,
  cutCode: 'NAR_TRUNCATED',
  words: [...words.map((one) => text(str(one))), text(sample), '\0', '\0'.repeat(8), '\xff'],
}

export const ARCHIVES: readonly Parser[] = [
  parser({
    ...both,
    name: 'readNar',
    parse: async (raw) => joined(await Array.fromAsync(readNar(pieces(raw)))),
    print: async (events) => [Buffer.concat(await Array.fromAsync(encodeNar(events)))],
    values: trees.map((tree) => joined(eventsOf(tree))),
    limits: [
      counted('bytes of name', 255, 'NAR_NAME', (n) =>
        nar(...directory(['x'.repeat(n), regular('')])),
      ),
      counted('bytes of target', 4095, 'NAR_TARGET', (n) => nar(...symlink('x'.repeat(n)))),
      counted('levels', NAR_MAX_DEPTH - 1, 'NAR_LIMIT', (n) => nar(...nested(n))),
    ],
  }),
  parser({
    ...both,
    name: 'listNar',
    parse: (raw) => listNar(pieces(raw)),
    mayNotNotice: true, // what is in the files
  }),
]
