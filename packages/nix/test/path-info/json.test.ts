import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parsePathInfoJson, storePathBase } from '@bagcheck/nix'
import type { PathInfo } from '@bagcheck/nix'
import { factsLists, glibc, hello, storePath } from './facts.ts'

const parse = (value: unknown): PathInfo[] =>
  parsePathInfoJson(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)))
const gone = storePath(9, 'gone')
const { path: _glibc, ...glibcEntry } = glibc
const { path: _hello, ...helloEntry } = hello
const common = { registrationTime: 1_700_000_000, closureSize: 5 }

// Each shape says the same: two valid paths and one that is not.
const array = [
  { path: hello.path, ...common, ...helloEntry },
  { path: glibc.path, narHash: glibc.narHash, narSize: glibc.narSize, references: [] },
  { path: gone, valid: false },
]
const map = {
  [glibc.path]: { ...common, ...glibcEntry, ca: null, deriver: null, ultimate: false },
  [hello.path]: { ...common, ...helloEntry, provenance: null },
  [gone]: null,
}
const version1 = {
  [glibc.path]: { ...map[glibc.path], storeDir: '/nix/store', version: 1 },
  [hello.path]: { ...map[hello.path], storeDir: '/nix/store', version: 1, lastUsageTime: null },
  [gone]: null,
}
const ca = { method: 'nar', hash: `sha256-${Buffer.alloc(32, 4).toString('base64')}` }
const newer = (version: number, signatures: unknown): Record<string, unknown> => ({
  version,
  storeDir: '/nix/store',
  info: {
    [storePathBase(glibc.path)]: {
      ...{ ...glibcEntry, ca: null, deriver: null, ultimate: false },
      ...{ storeDir: '/nix/store', version },
    },
    [storePathBase(hello.path)]: {
      ...helloEntry,
      ca,
      deriver: storePathBase(storePath(3, 'hello-2.12.drv')),
      references: hello.references.map(storePathBase),
      signatures,
    },
    [storePathBase(gone)]: null,
  },
})
const version2 = newer(2, hello.signatures)
const version3 = newer(
  3,
  hello.signatures?.map((text) => ({ keyName: text[0], sig: text.slice(2) })),
)

describe('nix path-info --json', () => {
  test.each([
    ['an array, up to Nix 2.18 and in Lix', array],
    ['a map, from Nix 2.19 on', map],
    ['version 1', version1],
    ['version 2', version2],
    ['version 3', version3],
  ])('as %s says the same', (_, document) => {
    const [first, second, ...more] = parse(document)
    expect(first).toMatchObject(glibc)
    expect(second).toEqual(hello)
    expect(more).toEqual([])
  })

  test.each([
    ['text', 'text:'],
    ['flat', 'fixed:'],
    ['git', 'fixed:git:'],
  ])('a content address by %s is written as in a narinfo', (method, prefix) => {
    const document = structuredClone(version2) as { info: Record<string, { ca: unknown }> }
    const entry = document.info[storePathBase(hello.path)]
    if (entry) entry.ca = { ...ca, method }
    expect(parse(document)[1]?.ca).toBe(hello.ca?.replace('fixed:r:', prefix))
  })

  test('any facts come back, in byte order', () => {
    fc.assert(
      fc.property(factsLists, (infos) => {
        const sorted = [...infos].sort((a, b) => (a.path < b.path ? -1 : 1))
        const expected = sorted.map((info) => ({ ...info, signatures: [] }))
        expect(parse(infos)).toEqual(expected)
        expect(parse(Object.fromEntries(infos.map(({ path, ...rest }) => [path, rest])))).toEqual(
          expected,
        )
      }),
    )
  })

  const one = (change: object): unknown => ({ [hello.path]: { ...helloEntry, ...change } })
  test.each([
    ['a number', 1],
    ['an entry without a path', [{}]],
    ['an entry that is a path', [hello.path]],
    ['a path twice', [array[0], array[0]]],
    ['an entry that is a list', { [hello.path]: [] }],
    ['a path elsewhere', { '/tmp/x': helloEntry }],
    ['a base name where full paths are', { [storePathBase(hello.path)]: helloEntry }],
    ['a full path where base names are', { version: 2, info: { [hello.path]: helloEntry } }],
    ['version 4', { ...version3, version: 4 }],
    ['info without a version', { info: {} }],
    ['another store directory', { ...version2, storeDir: '/gnu/store' }],
    ['another store directory of an entry', one({ storeDir: '/gnu/store' })],
    ['another version of an entry', one({ version: 2 })],
    ['no NAR hash', one({ narHash: undefined })],
    ['a NAR hash by sha1', one({ narHash: `sha1:${'a'.repeat(32)}` })],
    ['no NAR size', one({ narSize: undefined })],
    ['a NAR size of 0', one({ narSize: 0 })],
    ['a NAR size that is text', one({ narSize: '1' })],
    ['no references', one({ references: undefined })],
    ['references that are text', one({ references: glibc.path })],
    ['a reference that is no path', one({ references: ['x'] })],
    ['a reference twice', one({ references: [glibc.path, glibc.path] })],
    ['a deriver that is no path', one({ deriver: 'x' })],
    ['a deriver that is a number', one({ deriver: 1 })],
    ['a flag that is text', one({ ultimate: 'true' })],
    ['signatures that are text', one({ signatures: 'a:b' })],
    ['signatures of version 3 in version 1', one({ signatures: [{ keyName: 'a', sig: 'b' }] })],
    ['signatures of version 2 in version 3', { ...version2, version: 3 }],
    ['a content address of version 2 in version 1', one({ ca })],
    ['a content address that is none', one({ ca: 'magic' })],
  ])('refuses %s', (_, document) => {
    expect(() => parse(document)).toThrow(expect.objectContaining({ code: 'PATH_INFO_ENTRY' }))
  })

  test.each([
    ['a text', hello.ca],
    ['an unknown method', { ...ca, method: 'magic' }],
    ['a member of Object', { ...ca, method: 'toString' }],
    ['another length', { ...ca, hash: 'sha256-AAAA' }],
    ['an unknown algorithm', { ...ca, hash: ca.hash.replace('sha256', 'sha3') }],
    ['no padding', { ...ca, hash: ca.hash.replace('=', '') }],
    ['a text by sha1', { method: 'text', hash: `sha1-${Buffer.alloc(20).toString('base64')}` }],
  ])('refuses %s as content address of version 2', (_, value) => {
    const entry = { ...helloEntry, references: [], deriver: null, ca: value }
    const document = { version: 2, info: { [storePathBase(hello.path)]: entry } }
    expect(() => parse(document)).toThrow(expect.objectContaining({ code: 'PATH_INFO_ENTRY' }))
  })

  test('refuses a path that is a key twice', () => {
    const text = `{${JSON.stringify(gone)}:null,${JSON.stringify(gone)}:null}`
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'JSON_DUPLICATE_KEY' }))
  })

  test.each([
    ['array', array],
    ['version 3', version3],
  ])('cut off anywhere %s is refused', (_, document) => {
    const text = JSON.stringify(document)
    for (let length = 0; length < text.length; length++)
      expect(() => parse(text.slice(0, length))).toThrow(
        expect.objectContaining({ code: 'JSON_SYNTAX' }),
      )
  })

  test('with one bit flipped it is refused, or is facts all the same', () => {
    const bytes = Buffer.from(JSON.stringify(version3))
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        expect(parsePathInfoJson(flipped).length).toBeLessThanOrEqual(2)
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^(PATH_INFO|JSON)_/) })
      }
    }
  })
})
