import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AttestError, parseStrictJson } from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

describe('JSON of others', () => {
  test.each<[claim: string, text: string, code: string]>([
    ['a name twice', '{"a":1,"b":2,"a":1}', 'JSON_DUPLICATE_KEY'],
    ['a name twice, once escaped', '{"a":1,"\\u0061":2}', 'JSON_DUPLICATE_KEY'],
    ['__proto__ twice', '{"__proto__":1,"__proto__":2}', 'JSON_DUPLICATE_KEY'],
    ['a byte order mark', '\ufeff{}', 'JSON_SYNTAX'],
    ['nothing', '', 'JSON_SYNTAX'],
    ['white space only', ' \n', 'JSON_SYNTAX'],
    ['two values', '{}{}', 'JSON_SYNTAX'],
    ['a comma at the end', '[1,]', 'JSON_SYNTAX'],
    ['a comma at the start', '[,1]', 'JSON_SYNTAX'],
    ['a member without a value', '{"a"}', 'JSON_SYNTAX'],
    ['a name without quotes', '{a:1}', 'JSON_SYNTAX'],
    ['a comment', '{}//', 'JSON_SYNTAX'],
    ['another space', '{\u00a0}', 'JSON_SYNTAX'],
    ['a plus sign', '+1', 'JSON_SYNTAX'],
    ['a leading zero', '01', 'JSON_SYNTAX'],
    ['a bare point', '.5', 'JSON_SYNTAX'],
    ['a bare exponent', '1e', 'JSON_SYNTAX'],
    ['hexadecimal', '0x1', 'JSON_SYNTAX'],
    ['NaN', 'NaN', 'JSON_SYNTAX'],
    ['a word cut off', 'tru', 'JSON_SYNTAX'],
    ['a word run on', 'nullx', 'JSON_SYNTAX'],
    ['a line end in a string', '"a\nb"', 'JSON_SYNTAX'],
    ['a line end beside an escape', '"\\t\n"', 'JSON_SYNTAX'],
    ['an escape that is none', '"\\x41"', 'JSON_SYNTAX'],
    ['half an escape', '"\\u00g0"', 'JSON_SYNTAX'],
    ['a lone surrogate', '"\\ud800x"', 'JSON_VALUE'],
    ['a lone surrogate in a name', '{"\\udfff":1}', 'JSON_VALUE'],
    ['a number beyond doubles', '1e400', 'JSON_VALUE'],
    ['an integer that would be rounded', '9007199254740993', 'JSON_VALUE'],
    ['65 levels', '['.repeat(65) + ']'.repeat(65), 'JSON_LIMIT'],
    ['brackets without end', '[{"a":'.repeat(100_000), 'JSON_LIMIT'],
    ['a long string without end', `"${'a'.repeat(3_000_000)}`, 'JSON_SYNTAX'],
    ['a long string of broken escapes', `"${'\\x'.repeat(1_000_000)}"`, 'JSON_SYNTAX'],
  ])('%s is refused', (_claim, text, code) => {
    expect(codeOf(() => parseStrictJson(bytes(text)))).toBe(code)
  })

  test.each([
    ['white space', ' {\t"b" :\r1 , "a":[ ]\n} ', { a: [], b: 1 }],
    ['escapes', '"\\u0041\\/\\n\\ud83d\\ude00"', 'A/\n😀'],
    ['numbers in any form', '[1.0,-0,1E2,9007199254740991]', [1, -0, 100, 9007199254740991]],
    ['64 levels', '['.repeat(64) + ']'.repeat(64), expect.any(Array)],
    ['a long string of escapes', `"${'\\n'.repeat(1_000_000)}"`, '\n'.repeat(1_000_000)],
  ])('%s is read', (_claim, text, value) => {
    expect(parseStrictJson(bytes(text))).toEqual(value)
  })

  test('a member called __proto__ is a member and no prototype', () => {
    const value = parseStrictJson(bytes('{"__proto__":{"admin":true}}')) as { admin?: boolean }
    expect(value.admin).toBeUndefined()
    expect(Object.keys(value)).toEqual(['__proto__'])
  })

  test('bytes that are not UTF-8 are refused', () => {
    expect(codeOf(() => parseStrictJson(new Uint8Array([0x22, 0xff, 0x22])))).toBe('JSON_SYNTAX')
  })

  test('limits are the caller’s, in bytes and levels', () => {
    expect(codeOf(() => parseStrictJson(bytes('"€"'), { maxBytes: 4 }))).toBe('JSON_LIMIT')
    expect(parseStrictJson(bytes('"€"'), { maxBytes: 5 })).toBe('€')
    expect(codeOf(() => parseStrictJson(bytes('[[]]'), { maxDepth: 1 }))).toBe('JSON_LIMIT')
  })

  test('every prefix is refused with a code', () => {
    const text = bytes('{"a":[1,-2.5e3,"ö\\u0041",{"b":null}],"c":true,"d":false}')
    for (let length = 0; length < text.length; length += 1)
      expect(() => parseStrictJson(text.subarray(0, length))).toThrow(AttestError)
  })
})

test('what JSON.parse reads without losing anything is read the same', () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: 'binary' }), fc.nat(3), (value, indent) => {
      const text = JSON.stringify(value, null, indent)
      const numbers = [...text.matchAll(/\b[0-9]{16,}\b/g)].length
      fc.pre(numbers === 0)
      expect(parseStrictJson(bytes(text))).toEqual(JSON.parse(text))
    }),
  )
})

test('what is read, JSON.parse reads the same: this parser only refuses more', () => {
  const mutated = fc.tuple(fc.jsonValue(), fc.nat(), fc.nat(255)).map(([value, at, byte]) => {
    const data = bytes(JSON.stringify(value))
    data[at % data.length] = byte
    return data
  })
  fc.assert(
    fc.property(mutated, (data) => {
      let value: unknown
      try {
        value = parseStrictJson(data)
      } catch (error) {
        expect(error).toBeInstanceOf(AttestError)
        return
      }
      expect(value).toEqual(JSON.parse(Buffer.from(data).toString()))
    }),
    { numRuns: 1000 },
  )
})
