import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeNar, NAR_MAX_DEPTH, readNar } from '@bagcheck/nix'
import type { NarEvent } from '@bagcheck/nix'
import { directory, nar, regular, symlink } from './archive.ts'
import { eventsOf, trees } from './tree.ts'

async function encode(events: Iterable<NarEvent> | AsyncIterable<NarEvent>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(encodeNar(events)))
}

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

const file = (text: string, executable = false): NarEvent[] => [
  { type: 'regular', executable, size: text.length },
  ...(text === '' ? [] : [{ type: 'chunk', bytes: Buffer.from(text) } as const]),
]

describe('encodeNar', () => {
  test('writes what Nix writes', async () => {
    const events: NarEvent[] = [
      { type: 'directory' },
      { type: 'entry', name: 'bin' },
      { type: 'directory' },
      { type: 'entry', name: 'tool' },
      ...file('#!/bin/sh\n', true),
      { type: 'end' },
      { type: 'entry', name: 'empty' },
      ...file(''),
      { type: 'entry', name: 'link' },
      { type: 'symlink', target: 'bin/tool' },
      { type: 'end' },
    ]
    expect(await encode(events)).toEqual(
      nar(
        ...directory(
          ['bin', directory(['tool', regular('#!/bin/sh\n', true)])],
          ['empty', regular('')],
          ['link', symlink('bin/tool')],
        ),
      ),
    )
  })

  test('what it writes is read as the same events, and writing those gives the same bytes', async () => {
    await fc.assert(
      fc.asyncProperty(trees, async (tree) => {
        const bytes = await encode(eventsOf(tree))
        const events = await Array.fromAsync(readNar(whole(bytes), { narSize: bytes.length }))
        expect(shape(events)).toEqual(shape([...eventsOf(tree)]))
        expect(await encode(events)).toEqual(bytes)
      }),
    )
  })

  const entry = (name: string): NarEvent[] => [{ type: 'entry', name }, ...file('')]
  test.each([
    ['names out of order', [...entry('b'), ...entry('a')], 'NAR_ORDER'],
    ['a name twice', [...entry('a'), ...entry('a')], 'NAR_ORDER'],
    ['a name with a slash', entry('a/b'), 'NAR_NAME'],
    ['a name of 256 bytes', entry('x'.repeat(256)), 'NAR_NAME'],
    ['the name ".."', entry('..'), 'NAR_NAME'],
    [
      'an empty target',
      [
        { type: 'entry', name: 'a' },
        { type: 'symlink', target: '' },
      ],
      'NAR_TARGET',
    ],
  ] as const)('refuses to write %s', async (_, events, code) => {
    await expect(encode([{ type: 'directory' }, ...events, { type: 'end' }])).rejects.toMatchObject(
      {
        code,
      },
    )
  })

  test('refuses to write more levels than are read', async () => {
    const nested = (levels: number): NarEvent[] =>
      levels === 0
        ? file('')
        : [
            { type: 'directory' },
            { type: 'entry', name: 'd' },
            ...nested(levels - 1),
            { type: 'end' },
          ]
    await encode(nested(NAR_MAX_DEPTH - 1))
    await expect(encode(nested(NAR_MAX_DEPTH))).rejects.toMatchObject({ code: 'NAR_LIMIT' })
  })

  test.each([
    ['no event', []],
    ['two roots', [...file('x'), ...file('x')]],
    ['an entry without a directory', [{ type: 'entry', name: 'a' }]],
    [
      'an entry without an object',
      [{ type: 'directory' }, { type: 'entry', name: 'a' }, { type: 'end' }],
    ],
    [
      'two entries',
      [{ type: 'directory' }, { type: 'entry', name: 'a' }, { type: 'entry', name: 'b' }],
    ],
    ['an object without an entry', [{ type: 'directory' }, ...file('x')]],
    ['a directory that is not ended', [{ type: 'directory' }]],
    ['an end without a directory', [{ type: 'end' }]],
    ['a chunk without a file', [{ type: 'chunk', bytes: Buffer.from('x') }]],
    ['a chunk beyond the file', [...file('x'), { type: 'chunk', bytes: Buffer.from('x') }]],
    ['too little', [{ type: 'regular', executable: false, size: 1 }]],
    ['a negative size', [{ type: 'regular', executable: false, size: -1 }]],
  ] as readonly (readonly [string, readonly NarEvent[]])[])(
    '%s is a mistake of the caller',
    async (_, events) => {
      await expect(encode(events)).rejects.toThrow(TypeError)
    },
  )
})

/** Events without what depends on how the bytes came: chunks joined, offsets left out. */
function shape(events: readonly NarEvent[]): unknown[] {
  const shaped: unknown[] = []
  for (const event of events) {
    if (event.type === 'chunk') shaped.push(...event.bytes)
    else if (event.type === 'regular') shaped.push({ ...event, offset: undefined })
    else shaped.push(event)
  }
  return shaped
}
