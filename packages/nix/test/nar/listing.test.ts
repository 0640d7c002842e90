import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeNar, formatNarListing, listNar, NAR_MAX_DEPTH, parseNarListing } from '@bagcheck/nix'
import type { NarListing } from '@bagcheck/nix'
import { directory, nar, regular, symlink } from './archive.ts'
import { eventsOf, trees } from './tree.ts'

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

const parse = (text: string): NarListing => parseNarListing(Buffer.from(text))

// As Nix 2.8 writes it.
const text =
  '{"version":1,"root":{"type":"directory","entries":{' +
  '"bin":{"type":"directory","entries":{"tool":{"type":"regular","size":10,"executable":true,"narOffset":400}}},' +
  '"empty":{"type":"directory","entries":{}},' +
  '"link":{"type":"symlink","target":"bin/tool"},' +
  '"nothing":{"type":"regular","size":0,"narOffset":992}}}}'
const archive = nar(
  ...directory(
    ['bin', directory(['tool', regular('#!/bin/sh\n', true)])],
    ['empty', directory()],
    ['link', symlink('bin/tool')],
    ['nothing', regular('')],
  ),
)

describe('a listing', () => {
  test('of an archive is what Nix writes', async () => {
    expect(formatNarListing(await listNar(whole(archive)))).toBe(text)
  })

  test('is read, and prints as it was', () => {
    expect(formatNarListing(parse(text))).toBe(text)
  })

  test('has names such as "10" in byte order, and any name that a file can have', () => {
    const file = '{"type":"regular","size":0}'
    const names = ['+', '10', '9', '__proto__', 'a']
    const entries = names.map((name) => `"${name}":${file}`).join()
    const whole = `{"version":1,"root":{"type":"directory","entries":{${entries}}}}`
    expect(formatNarListing(parse(whole))).toBe(whole)
  })

  test('without narOffset, as harmonia writes, is read', () => {
    expect(parse('{"version":1,"root":{"type":"regular","size":3,"executable":false}}')).toEqual({
      type: 'regular',
      size: 3,
      executable: false,
    })
  })

  test('of any archive is read as what the archive holds, or says that a name is not UTF-8', async () => {
    await fc.assert(
      fc.asyncProperty(trees, async (tree) => {
        const listing = await listNar(encodeNar(eventsOf(tree)))
        let printed: string
        try {
          printed = formatNarListing(listing)
        } catch (error) {
          expect(error).toMatchObject({ code: 'LISTING_ENTRY' })
          return
        }
        expect(parse(printed)).toEqual(listing)
      }),
    )
  })

  const file = '{"type":"regular","size":0}'
  const root = (node: string): string => `{"version":1,"root":${node}}`
  const entry = (name: string, node = file): string =>
    root(`{"type":"directory","entries":{${JSON.stringify(name)}:${node}}}`)
  test.each([
    ['another version', `{"version":2,"root":${file}}`],
    ['no version', `{"root":${file}}`],
    ['no root', '{"version":1}'],
    ['something beside the root', `{"version":1,"root":${file},"more":1}`],
    ['an array', '[]'],
    ['an unknown type', root('{"type":"fifo"}')],
    ['a file without a size', root('{"type":"regular"}')],
    ['a negative size', root('{"type":"regular","size":-1}')],
    ['a size that is no integer', root('{"type":"regular","size":1.5}')],
    ['a size that is text', root('{"type":"regular","size":"1"}')],
    ['a negative offset', root('{"type":"regular","size":1,"narOffset":-8}')],
    ['executable that is no flag', root('{"type":"regular","size":1,"executable":1}')],
    ['a file with entries', root('{"type":"regular","size":1,"entries":{}}')],
    ['a directory without entries', root('{"type":"directory"}')],
    ['entries that are a list', root('{"type":"directory","entries":[]}')],
    ['the name ".."', entry('..')],
    ['a name with a slash', entry('a/b')],
    ['an empty name', entry('')],
    ['a name with NUL', entry('a\0')],
    ['an empty target', root('{"type":"symlink","target":""}')],
    ['no target', root('{"type":"symlink"}')],
    ['an entry that is null', entry('a', 'null')],
  ])('refuses %s', (_, value) => {
    expect(() => parse(value)).toThrow(expect.objectContaining({ code: 'LISTING_ENTRY' }))
  })

  test('refuses a name twice', () => {
    const value = root(`{"type":"directory","entries":{"a":${file},"a":${file}}}`)
    expect(() => parse(value)).toThrow(expect.objectContaining({ code: 'JSON_DUPLICATE_KEY' }))
  })

  test('holds as many levels as an archive, and no more', () => {
    const nested = (levels: number): string =>
      `${'{"type":"directory","entries":{"d":'.repeat(levels)}${file}${'}}'.repeat(levels)}`
    expect(parse(root(nested(NAR_MAX_DEPTH - 1)))).toMatchObject({ type: 'directory' })
    expect(() => parse(root(nested(NAR_MAX_DEPTH)))).toThrow(
      expect.objectContaining({ code: 'LISTING_ENTRY' }),
    )
    expect(() => parse(root(nested(10_000)))).toThrow(
      expect.objectContaining({ code: 'JSON_LIMIT' }),
    )
  })
})
