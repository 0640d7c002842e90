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
      ...{ storeDir: '/nix/store', version, registrationTime: null },
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

  // Field by field the manual's schema (doc/manual/source/protocols/json/schema of NixOS/nix at 2.36: store-object-info-v3,
  // signature-v2, store-path-v1, hash-v1, content-address-v1) and its reader (src/libstore/path-info.cc; 2.34.8 for version 2).
  const key = storePathBase(hello.path)
  const changed = (version: 2 | 3, change: object): unknown => {
    const document = structuredClone(version === 2 ? version2 : version3)
    const info = document['info'] as Record<string, object>
    info[key] = { ...info[key], ...change }
    return document
  }
  test.each<[string, object]>([
    ['no version', { version: undefined }],
    ['another version', { version: 1 }],
    ['a version that is text', { version: '2' }],
    ['no store directory', { storeDir: undefined }],
    ['another store directory', { storeDir: '/gnu/store' }],
    ['no content address, not even null', { ca: undefined }],
    ['a content address that is text', { ca: hello.ca }],
    ['a content address with something else', { ca: { ...ca, references: [] } }],
    ['a hash of a content address in base16', { ca: { ...ca, hash: `sha256:${'0'.repeat(64)}` } }],
    ['a NAR hash in base16', { narHash: `sha256:${'0'.repeat(64)}` }],
    ['a bare NAR hash', { narHash: '0'.repeat(64) }],
    ['a NAR hash of its parts', { narHash: { algorithm: 'sha256', format: 'base64', hash: '' } }],
    ['full references', { references: [glibc.path] }],
    ['a full deriver', { deriver: hello.path }],
    ['another path', { path: storePathBase(glibc.path) }],
    ['its path in full', { path: hello.path }],
    ['no references', { references: undefined }],
    ['a NAR size that is no integer', { narSize: 1.5 }],
    ['a NAR size below 0', { narSize: -1 }],
  ])('refuses %s in versions 2 and 3', (_, change) => {
    expect(parse(changed(2, { path: key, closureSize: 1 }))).toHaveLength(2)
    for (const document of [changed(2, { version: 2, ...change }), changed(3, change)])
      expect(() => parse(document)).toThrow(expect.objectContaining({ code: 'PATH_INFO_ENTRY' }))
  })

  test.each<[string, unknown]>([
    ['text', hello.signatures],
    ['no key name', [{ sig: 'A' }]],
    ['no bytes', [{ keyName: 'a' }]],
    ['a colon in the key name', [{ keyName: 'a:b', sig: 'A' }]],
  ])('refuses signatures of version 3 with %s', (_, signatures) => {
    expect(() => parse(changed(3, { signatures }))).toThrow(
      expect.objectContaining({ code: 'PATH_INFO_ENTRY' }),
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
    ['another path in an entry', one({ path: glibc.path })],
    ['a path in an entry that is none', one({ path: 1 })],
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
    const whole = { ...entry, storeDir: '/nix/store', version: 2 }
    const document = { version: 2, info: { [storePathBase(hello.path)]: whole } }
    expect(() => parse(document)).toThrow(expect.objectContaining({ code: 'PATH_INFO_ENTRY' }))
  })

  test('refuses a path that is a key twice', () => {
    const text = `{${JSON.stringify(gone)}:null,${JSON.stringify(gone)}:null}`
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'JSON_DUPLICATE_KEY' }))
  })
})
