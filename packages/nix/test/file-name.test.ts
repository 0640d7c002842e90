import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeFileName, encodeFileName } from '@bagcheck/nix'

test('a name in UTF-8 is the string that node:fs gives', () => {
  for (const name of ['plain', 'café', '💀', '\ufeffbom', '/nix/store/ä/ö'])
    expect(decodeFileName(Buffer.from(name))).toBe(name)
})

test('a name that is not UTF-8 keeps its bytes, and its neighbours stay as they are', () => {
  const raw = Buffer.concat([Buffer.from('é/'), Buffer.of(0x61, 0xff, 0xc3)])
  expect(decodeFileName(raw)).toBe('é/a\udcff\udcc3')
  expect(encodeFileName('é/a\udcff\udcc3')).toEqual(raw)
})

test('names and strings are one to one', () => {
  const bytes = fc.array(
    fc.constantFrom(0x2f, 0x41, 0xc3, 0xa9, 0xed, 0xb2, 0x80, 0xf0, 0x9f, 0xff),
  )
  fc.assert(
    fc.property(bytes, bytes, (a, b) => {
      const [one, other] = [Buffer.from(a), Buffer.from(b)]
      expect(encodeFileName(decodeFileName(one))).toEqual(one)
      expect(decodeFileName(one) === decodeFileName(other)).toBe(one.equals(other))
    }),
    { numRuns: 2000 },
  )
})
