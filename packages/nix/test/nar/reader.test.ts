import { describe, expect, test } from 'vitest'
import { readNar } from '@bagcheck/nix'
import type { NarEvent, NarLimits } from '@bagcheck/nix'
import { directory, nar, regular, str, symlink } from './archive.ts'

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** All events, with the chunks of a file joined into its `regular`. */
async function read(bytes: Uint8Array, size = 7, limits?: NarLimits): Promise<unknown[]> {
  const events: (NarEvent & { contents?: string })[] = []
  for await (const event of readNar(pieces(bytes, size), limits)) {
    const last = events.at(-1)
    if (event.type === 'chunk')
      Object.assign(last ?? {}, {
        contents: (last?.contents ?? '') + Buffer.from(event.bytes).toString('latin1'),
      })
    else events.push({ ...event })
  }
  return events
}

const sample = nar(
  ...directory(
    ['bin', directory(['tool', regular('#!/bin/sh\n', true)])],
    ['empty', directory()],
    ['link', symlink('bin/tool')],
    ['nothing', regular('')],
  ),
)

describe('readNar', () => {
  test('tells a tree in order', async () => {
    const events = [
      { type: 'directory' },
      { type: 'entry', name: 'bin' },
      { type: 'directory' },
      { type: 'entry', name: 'tool' },
      { type: 'regular', executable: true, size: 10, offset: 400, contents: '#!/bin/sh\n' },
      { type: 'end' },
      { type: 'entry', name: 'empty' },
      { type: 'directory' },
      { type: 'end' },
      { type: 'entry', name: 'link' },
      { type: 'symlink', target: 'bin/tool' },
      { type: 'entry', name: 'nothing' },
      { type: 'regular', executable: false, size: 0, offset: 992 },
      { type: 'end' },
    ]
    for (const size of [1, 7, 8, 4096]) expect(await read(sample, size)).toEqual(events)
    expect(await read(sample, 7, { narSize: sample.length })).toEqual(events)
  })

  test.each([
    [
      'a file',
      regular('x'),
      [{ type: 'regular', executable: false, size: 1, offset: 96, contents: 'x' }],
    ],
    ['a symlink', symlink('x'), [{ type: 'symlink', target: 'x' }]],
    ['an empty directory', directory(), [{ type: 'directory' }, { type: 'end' }]],
  ])('reads an archive that is only %s', async (_, tokens, events) => {
    expect(await read(nar(...tokens))).toEqual(events)
  })

  const entry = (name: string): readonly [string, string[]] => [name, regular('')]
  test.each([
    ['names out of order, which Nix 2.8 accepts', directory(entry('b'), entry('a')), 'NAR_ORDER'],
    ['a name twice', directory(entry('a'), entry('a')), 'NAR_ORDER'],
    ['order by anything but bytes', directory(entry('a'), entry('B')), 'NAR_ORDER'],
    ['an empty name', directory(entry('')), 'NAR_NAME'],
    ['the name "."', directory(entry('.')), 'NAR_NAME'],
    ['the name ".."', directory(entry('..')), 'NAR_NAME'],
    ['a slash in a name', directory(entry('a/b')), 'NAR_NAME'],
    ['NUL in a name', directory(entry('a\0')), 'NAR_NAME'],
    ['a name of 256 bytes', directory(entry('x'.repeat(256))), 'NAR_NAME'],
    ['an empty target', symlink(''), 'NAR_TARGET'],
    ['NUL in a target', symlink('a\0b'), 'NAR_TARGET'],
    ['a target of 4096 bytes', symlink('x'.repeat(4096)), 'NAR_TARGET'],
    ['an unknown type', ['(', 'type', 'fifo', ')'], 'NAR_TOKEN'],
    ['no type', ['(', ')'], 'NAR_TOKEN'],
    ['a long token', ['('.repeat(33)], 'NAR_TOKEN'],
    ['no contents', ['(', 'type', 'regular', ')'], 'NAR_TOKEN'],
    ['contents twice', ['(', 'type', 'regular', 'contents', '', 'contents', '', ')'], 'NAR_TOKEN'],
    [
      'executable after contents',
      ['(', 'type', 'regular', 'contents', '', 'executable', '', ')'],
      'NAR_TOKEN',
    ],
    [
      'a value of executable',
      ['(', 'type', 'regular', 'executable', 'x', 'contents', '', ')'],
      'NAR_TOKEN',
    ],
    [
      'executable twice',
      ['(', 'type', 'regular', 'executable', '', 'executable', '', 'contents', '', ')'],
      'NAR_TOKEN',
    ],
    [
      'the node before the name',
      ['(', 'type', 'directory', 'entry', '(', 'node', ...regular(''), 'name', 'a', ')', ')'],
      'NAR_TOKEN',
    ],
    [
      'a symlink that is executable',
      ['(', 'type', 'symlink', 'executable', '', 'target', 'x', ')'],
      'NAR_TOKEN',
    ],
  ])('refuses %s', async (_, tokens, code) => {
    await expect(read(nar(...tokens))).rejects.toMatchObject({ code })
  })

  test.each([
    ['another magic', str('nix-archive-2'), 'NAR_TOKEN'],
    [
      'bytes after the archive, which every Nix ignores',
      Buffer.concat([sample, Buffer.of(0)]),
      'NAR_TRAILING',
    ],
    ['a second archive', Buffer.concat([sample, sample]), 'NAR_TRAILING'],
  ])('refuses %s', async (_, bytes, code) => {
    await expect(read(bytes)).rejects.toMatchObject({ code })
  })

  test.each([
    ['token', [], 33, 'NAR_TOKEN'],
    ['name', ['(', 'type', 'directory', 'entry', '(', 'name'], 256, 'NAR_NAME'],
    ['target', ['(', 'type', 'symlink', 'target'], 4096, 'NAR_TARGET'],
    ['token', [], 2 ** 39, 'NAR_TOKEN'],
  ])(
    'refuses the length of a %s before it reads what it announces',
    async (_, tokens, length, code) => {
      const announced = Buffer.alloc(8)
      announced.writeBigUInt64LE(BigInt(length))
      const bytes = Buffer.concat([nar(...tokens), announced])
      await expect(read(bytes)).rejects.toMatchObject({ code })
    },
  )

  test('the offset of a file is where its contents lie', async () => {
    for await (const event of readNar(pieces(sample, 64)))
      if (event.type === 'regular' && event.size > 0)
        expect(sample.toString('latin1', event.offset, (event.offset ?? 0) + event.size)).toBe(
          '#!/bin/sh\n',
        )
  })

  test('refuses padding that is not zero', async () => {
    const bytes = nar(...regular('x'))
    bytes[bytes.indexOf('contents') + 8 + 8 + 1] = 1
    await expect(read(bytes)).rejects.toMatchObject({ code: 'NAR_PADDING' })
  })

  test('a declared length beyond the limit is refused before anything is read for it', async () => {
    const huge = Buffer.alloc(8, 0xff)
    const head = nar('(', 'type', 'regular', 'contents')
    await expect(read(Buffer.concat([head, huge]))).rejects.toMatchObject({ code: 'NAR_LIMIT' })
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(1000n)
    await expect(
      read(Buffer.concat([head, size]), 64, { narSize: sample.length }),
    ).rejects.toMatchObject({ code: 'NAR_LIMIT' })
    await expect(read(sample, 64, { maxBytes: sample.length - 1 })).rejects.toMatchObject({
      code: 'NAR_LIMIT',
    })
    await expect(read(sample, 64, { narSize: sample.length + 8 })).rejects.toMatchObject({
      code: 'NAR_SIZE',
    })
  })

  test('a reader that stops early lets its source go', async () => {
    let closed = false
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield sample
        yield sample
      } finally {
        closed = true
      }
    }
    for await (const _ of readNar(source())) break
    expect(closed).toBe(true)
  })
})
