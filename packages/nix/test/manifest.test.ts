import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  buildManifest,
  parseManifest,
  parseNarHash,
  parseStorePath,
  sha256Hex,
} from '@bagcheck/nix'
import type { PathInfo, StorePath } from '@bagcheck/nix'

const path = (letter: string): StorePath =>
  parseStorePath(`/nix/store/${letter.repeat(32)}-${letter}`)
const narHash = parseNarHash(`sha256:${hash('sha256', '')}`)
const info = (letter: string, ...references: string[]): PathInfo => ({
  path: path(letter),
  narHash,
  narSize: 120,
  references: references.map(path),
})
const parse = (text: string): unknown => parseManifest(Buffer.from(text))
const line = (letter: string, ...references: string[]): string =>
  `${[path(letter), narHash, 120, ...references.map((r) => path(r).slice(11))].join(' ')}\n`

describe('a closure manifest', () => {
  test('is sorted text, whatever order the facts came in', () => {
    const manifest = buildManifest(path('c'), [
      info('c', 'b', 'a', 'c'),
      { ...info('a'), deriver: path('d'), ultimate: true, signatures: ['k:x'] },
      info('b', 'a'),
    ])
    expect(manifest.text).toBe(line('a') + line('b', 'a') + line('c', 'a', 'b', 'c'))
    expect(manifest.digest).toBe(sha256Hex(manifest.text))
    const parsed = parseManifest(Buffer.from(manifest.text))
    expect(parsed).toMatchObject({ root: path('c'), digest: manifest.digest, text: manifest.text })
    expect(parsed.entries[2]).toEqual(info('c', 'a', 'b', 'c'))
  })

  test('of one path that refers to itself has it as root', () => {
    expect(parse(line('a', 'a'))).toMatchObject({ root: path('a') })
  })

  test.each([
    ['nothing', '', 'MANIFEST_ROOT'],
    ['no line feed at the end', line('a').slice(0, -1), 'MANIFEST_LINE'],
    ['an empty line', `\n${line('a')}`, 'MANIFEST_LINE'],
    ['CR LF', line('a').replace('\n', '\r\n'), 'MANIFEST_LINE'],
    ['two spaces', line('a').replace(' ', '  '), 'MANIFEST_LINE'],
    ['a space at the end', line('a').replace('\n', ' \n'), 'MANIFEST_LINE'],
    ['a tab', line('a').replace(' ', '\t'), 'MANIFEST_LINE'],
    ['a size with a leading zero', line('a').replace(' 120', ' 0120'), 'MANIFEST_LINE'],
    ['a size with a sign', line('a').replace(' 120', ' +120'), 'MANIFEST_LINE'],
    ['a size of 2^53', line('a').replace(' 120', ' 9007199254740992'), 'MANIFEST_LINE'],
    ['a size in hexadecimal', line('a').replace(' 120', ' 0x78'), 'MANIFEST_LINE'],
    ['no size', line('a').replace(' 120', ''), 'MANIFEST_LINE'],
    ['a hash that is not SRI', line('a').replace(narHash, hash('sha256', '')), 'MANIFEST_LINE'],
    ['a base name as path', line('a').replace('/nix/store/', ''), 'MANIFEST_LINE'],
    [
      'a full path as reference',
      line('a', 'a').replace('120 ', '120 /nix/store/'),
      'MANIFEST_LINE',
    ],
    ['not ASCII', line('a').replace('-a', '-é'), 'MANIFEST_LINE'],
    ['lines out of order', line('b', 'a') + line('a'), 'MANIFEST_ORDER'],
    ['a line twice', line('a') + line('a'), 'MANIFEST_ORDER'],
    ['references out of order', line('a') + line('b') + line('c', 'b', 'a'), 'MANIFEST_ORDER'],
    ['a reference twice', line('a') + line('b', 'a', 'a'), 'MANIFEST_ORDER'],
    ['a reference to nothing', line('a', 'b'), 'MANIFEST_REFERENCE'],
    ['two roots', line('a') + line('b'), 'MANIFEST_ROOT'],
    ['no root', line('a', 'b') + line('b', 'a'), 'MANIFEST_ROOT'],
    ['a circle beside the root', line('a', 'b') + line('b', 'a') + line('c'), 'MANIFEST_ROOT'],
  ])('is refused with %s', (_, text, code) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code }))
  })

  test('parses back to itself for any acyclic closure', () => {
    const letters = '0123456789abcdfg'.split('')
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(), { maxLength: 4 }), { maxLength: 15 }), (edges) => {
        const used = letters.slice(0, edges.length + 1)
        const root = used.at(-1) as string
        const infos = used.map((letter, index) => {
          const lower = (edges[index] ?? []).map((n) => used[n % (index + 1)] as string)
          return info(letter, ...new Set(letter === root ? used : lower))
        })
        const built = buildManifest(path(root), infos.toReversed())
        expect(parseManifest(Buffer.from(built.text))).toEqual(built)
      }),
    )
  })
})

describe('buildManifest', () => {
  test('refuses a root that others refer to, and a path given twice', () => {
    const root = expect.objectContaining({ code: 'MANIFEST_ROOT' })
    expect(() => buildManifest(path('a'), [info('a'), info('b', 'a')])).toThrow(root)
    const order = expect.objectContaining({ code: 'MANIFEST_ORDER' })
    expect(() => buildManifest(path('a'), [info('a'), info('a')])).toThrow(order)
  })
})
