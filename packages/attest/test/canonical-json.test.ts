import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AttestError, canonicalize, parseCanonical } from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

describe('RFC 8785', () => {
  test('the example of section 3.2.2', () => {
    const value = {
      numbers: JSON.parse('[333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001]'),
      string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    }
    expect(canonicalize(value)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],' +
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    )
  })

  test('the example of section 3.2.3: names in order of UTF-16 code units', () => {
    const value = {
      '\u20ac': 'Euro Sign',
      '\r': 'Carriage Return',
      '\ufb33': 'Hebrew Letter Dalet With Dagesh',
      '1': 'One',
      '\ud83d\ude00': 'Emoji: Grinning Face',
      '\u0080': 'Control',
      '\u00f6': 'Latin Small Letter O With Diaeresis',
    }
    const names = [...canonicalize(value).matchAll(/"([^"]*)":/g)].map((match) => match[1])
    expect(names).toEqual(['\\r', '1', '\u0080', 'ö', '€', '😀', '\ufb33'])
  })

  // Appendix B: IEEE 754 bits and the text of the number.
  test.each([
    ['0000000000000000', '0'],
    ['8000000000000000', '0'],
    ['0000000000000001', '5e-324'],
    ['8000000000000001', '-5e-324'],
    ['7fefffffffffffff', '1.7976931348623157e+308'],
    ['ffefffffffffffff', '-1.7976931348623157e+308'],
    ['4340000000000000', '9007199254740992'],
    ['c340000000000000', '-9007199254740992'],
    ['4430000000000000', '295147905179352830000'],
    ['44b52d02c7e14af5', '9.999999999999997e+22'],
    ['44b52d02c7e14af6', '1e+23'],
    ['44b52d02c7e14af7', '1.0000000000000001e+23'],
    ['444b1ae4d6e2ef4e', '999999999999999700000'],
    ['444b1ae4d6e2ef4f', '999999999999999900000'],
    ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
    ['3eb0c6f7a0b5ed8d', '0.000001'],
    ['41b3de4355555553', '333333333.3333332'],
    ['41b3de4355555554', '333333333.33333325'],
    ['41b3de4355555555', '333333333.3333333'],
    ['41b3de4355555556', '333333333.3333334'],
    ['41b3de4355555557', '333333333.33333343'],
    ['becbf647612f3696', '-0.0000033333333333333333'],
    ['43143ff3c1cb0959', '1424953923781206.2'],
  ])('the double %s is written %s', (bits, text) => {
    expect(canonicalize(Buffer.from(bits, 'hex').readDoubleBE())).toBe(text)
  })

  test.each([
    ['NaN', Number.NaN],
    ['an infinity', Number.NEGATIVE_INFINITY],
    ['undefined', undefined],
    ['a member that is undefined', { a: undefined }],
    ['a hole', [1, , 2]], // eslint-disable-line no-sparse-arrays
    ['a bigint', 1n],
    ['a function', { toJSON: () => 1 }],
    ['a symbol', Symbol('a')],
    ['a symbol as a name', { [Symbol('a')]: 1 }],
    ['a lone surrogate', '\ud800'],
    ['a lone surrogate in a name', { '\udc00': 1 }],
    ['a date', new Date(0)],
    ['a map', new Map()],
    ['bytes', new Uint8Array(1)],
  ])('%s is not JSON', (_claim, value) => {
    expect(codeOf(() => canonicalize(value))).toBe('JSON_VALUE')
  })

  test('a cycle ends with a code', () => {
    const value: unknown[] = []
    value.push(value)
    expect(codeOf(() => canonicalize(value))).toBe('JSON_LIMIT')
  })
})

describe('reading canonical JSON', () => {
  test.each<[claim: string, text: string, code: string]>([
    ['space', '{"a": 1}', 'CANONICAL_JSON'],
    ['a line end', '{"a":1}\n', 'CANONICAL_JSON'],
    ['a byte order mark', '\ufeff{}', 'JSON_SYNTAX'],
    ['a name twice', '{"a":1,"a":1}', 'CANONICAL_JSON'],
    ['names out of order', '{"b":1,"a":1}', 'CANONICAL_JSON'],
    ['names out of order inside', '[{"c":{"b":1,"a":1}}]', 'CANONICAL_JSON'],
    ['integer-like names in order of number', '{"9":1,"10":1}', 'CANONICAL_JSON'],
    ['a capital exponent', '1E+21', 'CANONICAL_JSON'],
    ['another form of a number', '1.0', 'CANONICAL_JSON'],
    ['minus zero', '-0', 'CANONICAL_JSON'],
    ['an integer that is rounded', '9007199254740993', 'CANONICAL_JSON'],
    ['a number beyond doubles', '1e999', 'CANONICAL_JSON'],
    ['an escape that is not needed', '"\\u0041"', 'CANONICAL_JSON'],
    ['a capital in an escape', '"\\u000F"', 'CANONICAL_JSON'],
    ['an escaped slash', '"\\/"', 'CANONICAL_JSON'],
    ['a lone surrogate, escaped', '"\\ud800"', 'CANONICAL_JSON'],
    ['a lone surrogate in a name', '{"\\udc00":1}', 'CANONICAL_JSON'],
    ['a surrogate pair, escaped', '"\\ud83d\\ude00"', 'CANONICAL_JSON'],
    ['nothing', '', 'JSON_SYNTAX'],
    ['two values', '1 2', 'JSON_SYNTAX'],
    ['65 levels', '['.repeat(65) + ']'.repeat(65), 'JSON_LIMIT'],
    ['brackets without end', '['.repeat(1e6), 'JSON_LIMIT'],
  ])('%s is refused', (_claim, text, code) => {
    expect(codeOf(() => parseCanonical(bytes(text)))).toBe(code)
    expect(codeOf(() => parseCanonical(text))).toBe(code)
  })

  test.each([
    ['integer-like names in order of text', '{"10":1,"9":2}', { 9: 2, 10: 1 }],
    ['names around them', '{"!":0,"10":1,"9":2,"a":3}', { '!': 0, 9: 2, 10: 1, a: 3 }],
    ['a backslash before "ud800"', '"\\\\ud800"', '\\ud800'],
    ['brackets and quotes inside strings', '["[[[\\"[[","{"]', ['[[["[[', '{']],
    ['64 levels', '['.repeat(64) + ']'.repeat(64), expect.any(Array)],
    ['an empty name', '{"":[]}', { '': [] }],
  ])('%s is read', (_claim, text, value) => {
    expect(parseCanonical(text)).toEqual(value)
  })

  test('a member called __proto__ is a member', () => {
    const value = parseCanonical('{"__proto__":{"a":1}}') as object
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
    expect(canonicalize(value)).toBe('{"__proto__":{"a":1}}')
  })

  test('bytes that are not UTF-8 are refused', () => {
    for (const data of [
      [0x22, 0xff, 0x22],
      [0x22, 0xc0, 0x80, 0x22],
      [0x22, 0xed, 0xa0, 0x80, 0x22],
    ])
      expect(codeOf(() => parseCanonical(new Uint8Array(data)))).toBe('JSON_SYNTAX')
    expect(codeOf(() => parseCanonical('"\ud800"'))).toBe('JSON_VALUE')
  })

  test('text above its limit is refused before it is decoded', () => {
    expect(codeOf(() => parseCanonical('"€€"', { maxBytes: 7 }))).toBe('JSON_LIMIT')
    expect(parseCanonical('"€€"', { maxBytes: 8 })).toBe('€€')
  })

  test('every prefix of a text is refused', () => {
    const text = canonicalize({ a: [1, 'ö', { b: null }], c: 'x"\\\n', d: true })
    const data = bytes(text)
    for (let length = 0; length < data.length; length += 1)
      expect(() => parseCanonical(data.subarray(0, length))).toThrow(AttestError)
  })
})

test('what is written reads back as the same text, whatever the order of its members', () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: 'binary' }), (value) => {
      const text = canonicalize(value)
      expect(canonicalize(parseCanonical(text))).toBe(text)
      expect(canonicalize(reversed(value))).toBe(text)
    }),
  )
})

test('text is read if and only if it is what would be written for its value', () => {
  const names = fc.constantFrom('', 'a', 'b', '\ud7ff', '\ue000', '😀', '"', '\n', '10', '9', 'aa')
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      fc.jsonValue({ stringUnit: 'binary' }),
      fc.dictionary(names, tie('tree'), { maxKeys: 5 }),
      fc.array(tie('tree'), { maxLength: 4 }),
    ),
  }))
  // JSON.stringify keeps the order of insertion, so that some texts are canonical and most are not.
  fc.assert(
    fc.property(tree, fc.nat(), fc.nat(255), fc.boolean(), (value, at, byte, change) => {
      const data = bytes(JSON.stringify(value))
      if (change) data[at % data.length] = byte
      expect(readsAs(data)).toBe(expectedOf(data))
    }),
    { numRuns: 2000 },
  )
})

function readsAs(data: Uint8Array): string | undefined {
  try {
    return canonicalize(parseCanonical(data))
  } catch (error) {
    expect(error).toBeInstanceOf(AttestError)
    return undefined
  }
}

// The slow definition: decode, parse, write again, compare.
function expectedOf(data: Uint8Array): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data)
    return canonicalize(JSON.parse(text)) === text ? text : undefined
  } catch {
    // Not UTF-8, not JSON, or not writable: not canonical.
    return undefined
  }
}

function reversed(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(reversed)
  const members = Object.entries(value).map(([name, member]) => [name, reversed(member)] as const)
  return Object.fromEntries(members.toReversed())
}
