import { hash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  makeStorePath,
  parseStorePath,
  parseStorePathBase,
  storePathBase,
  storePathName,
  storePathOf,
} from '@bagcheck/nix'

const digest = 'q0jz3rdqz1wxbgh4zz3b4xr6q4zhyfvk'
const base = `${digest}-glibc-2.36`
const path = `/nix/store/${base}`

describe('a store path', () => {
  test.each([
    ['an ordinary name', 'glibc-2.36'],
    ['every character that a name may have', 'A-z.0+_?='],
    ['one character', 'x'],
    ['211 characters', 'x'.repeat(211)],
    ['a hidden name', '.gitignore'],
    ['three dots', '...'],
  ])('may have %s', (_, name) => {
    const parsed = parseStorePath(`/nix/store/${digest}-${name}`)
    expect(storePathName(parsed)).toBe(name)
    expect(parseStorePathBase(storePathBase(parsed))).toBe(parsed)
  })

  test.each([
    ['no name', `/nix/store/${digest}-`],
    ['no dash', `/nix/store/${digest}`],
    ['a name of 212 characters', `/nix/store/${digest}-${'x'.repeat(212)}`],
    ['the name "."', `/nix/store/${digest}-.`],
    ['the name ".."', `/nix/store/${digest}-..`],
    ['a name that starts with ".-"', `/nix/store/${digest}-.-x`],
    ['a name that starts with "..-", which Nix 2.8 takes', `/nix/store/${digest}-..-x`],
    ['a space', `/nix/store/${digest}-a b`],
    ['a slash at the end', `${path}/`],
    ['something inside', `${path}/bin`],
    ['two slashes', `/nix/store//${base}`],
    ['another store', `/gnu/store/${base}`],
    ['a relative path', `nix/store/${base}`],
    ['a hash with "e"', `/nix/store/e${base.slice(1)}`],
    ['a hash of 31 characters', `/nix/store/${base.slice(1)}`],
    ['an upper-case hash', `/nix/store/${digest.toUpperCase()}-x`],
    ['a line feed', `${path}\n`],
    ['NUL', `${path}\0`],
    ['nothing', ''],
  ])('is refused with %s', (_, text) => {
    expect(() => parseStorePath(text)).toThrow(expect.objectContaining({ code: 'STORE_PATH' }))
  })

  test('is refused with an error that quotes and clips what was seen', () => {
    expect(() => parseStorePath(`"${'x'.repeat(1000)}`)).toThrow(/got "\\"x{119}…"$/)
  })
})

describe('the store path of a file', () => {
  test.each([path, `${path}/bin`, `${path}/bin/ls`, `${path}/a b/\u00e9`])(
    'is found for %s',
    (f) => {
      expect(storePathOf(f)).toBe(path)
    },
  )

  test.each([
    '/nix/store',
    '/nix/store/.links/x',
    `${path}/`,
    `${path}//bin`,
    `${path}/../x`,
    `${path}/./x`,
    `${path}/bin\0`,
    `/nix/../nix/store/${base}`,
    `//nix/store/${base}`,
    `nix/store/${base}`,
    `/proc/1/root${path}`,
    `x${path}`,
    `/gnu/store/${base}`,
    `/nix/other/${base}`,
    '/usr/bin/ls',
    '',
  ])('is not found for %j', (file) => {
    expect(storePathOf(file)).toBeUndefined()
  })
})

describe('makeStorePath', () => {
  // Nix 2.8: builtins.toFile "hello" "hello\n"; nix-store --add-fixed sha256 [--recursive] of such a file.
  const flat = hash('sha256', 'hello\n')
  const archived = '1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13'
  test.each([
    ['builtins.toFile', 'text', flat, 'nmrmdcw1bfnl35a893n7nyhw4xa5vy08'],
    ['a recursive fixed output', 'source', archived, 'gwina1sjk7g95wq6fxc6b7s1hza53h74'],
    [
      'a flat fixed output',
      'output:out',
      hash('sha256', `fixed:out:sha256:${flat}:`),
      '8zv8i345w2xn27jrxj4cyjc6x3b4am1q',
    ],
  ])('computes the path that Nix gives to %s', (_, type, inner, digest) => {
    const path = makeStorePath(type, Buffer.from(inner, 'hex'), 'hello')
    expect(path).toBe(`/nix/store/${digest}-hello`)
  })

  test('refuses a name that no store path has', () => {
    const inner = new Uint8Array(32)
    expect(() => makeStorePath('text', inner, 'a/b')).toThrow(
      expect.objectContaining({ code: 'STORE_PATH' }),
    )
    expect(() => makeStorePath('text', inner.subarray(1), 'a')).toThrow(TypeError)
  })
})
