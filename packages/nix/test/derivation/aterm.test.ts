import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  DERIVATION_MAX_BYTES,
  DERIVATION_MAX_ELEMENTS,
  formatDerivation,
  NixError,
  parseDerivation,
  parseStorePath,
} from '@bagcheck/nix'
import type { Derivation, DerivationOutput } from '@bagcheck/nix'

const a = parseStorePath(`/nix/store/${'a'.repeat(32)}-a.drv`)
const b = parseStorePath(`/nix/store/${'b'.repeat(32)}-b.drv`)
const out = parseStorePath(`/nix/store/${'c'.repeat(32)}-x`)
const dev = parseStorePath(`/nix/store/${'d'.repeat(32)}-x-dev`)
const hex = '0'.repeat(64)

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const parse = (text: string): Derivation => parseDerivation(bytes(text), 'x')
const coded = (code: string): unknown => expect.objectContaining({ code })

/** A derivation's text with some parts replaced. */
function text({
  outs = `("out","${out}","","")`,
  drvs = '',
  srcs = '',
  platform = '"p"',
  builder = '"b"',
  args = '',
  env = '',
}: Partial<Record<'outs' | 'drvs' | 'srcs' | 'platform' | 'builder' | 'args' | 'env', string>>) {
  return `Derive([${outs}],[${drvs}],[${srcs}],${platform},${builder},[${args}],[${env}])`
}

const full = text({
  outs: `("dev","${dev}","",""),("out","${out}","","")`,
  drvs: `("${a}",["dev","out"]),("${b}",["out"])`,
  srcs: `"${a}","${out}"`,
  args: `"-c","a\\"b\\\\c\\nd\\re\\tf","caf\xe9",""`,
  env: `("",""),("out","${out}"),("\xc3\xa9","\xff")`,
})

describe('the text of a derivation', () => {
  test('parses', () => {
    expect(parse(full)).toEqual({
      name: 'x',
      outputs: new Map([
        ['dev', { kind: 'input-addressed', path: dev }],
        ['out', { kind: 'input-addressed', path: out }],
      ]),
      inputDerivations: new Map([
        [a, ['dev', 'out']],
        [b, ['out']],
      ]),
      inputSources: [a, out],
      platform: 'p',
      builder: 'b',
      args: ['-c', 'a"b\\c\nd\re\tf', 'caf\xe9', ''],
      env: new Map([
        ['', ''],
        ['out', out],
        ['\xc3\xa9', '\xff'],
      ]),
    } satisfies Derivation)
  })

  test.each<[string, string, DerivationOutput]>([
    ['input-addressed', `"${out}","",""`, { kind: 'input-addressed', path: out }],
    ['floating', '"","r:sha256",""', { kind: 'floating', method: 'nar', algorithm: 'sha256' }],
    ['floating', '"","text:sha256",""', { kind: 'floating', method: 'text', algorithm: 'sha256' }],
    ['impure', '"","git:sha1","impure"', { kind: 'impure', method: 'git', algorithm: 'sha1' }],
    ['deferred', '"","",""', { kind: 'deferred' }],
    [
      'fixed',
      `"${out}","sha256","${hex}"`,
      {
        kind: 'fixed',
        path: out,
        address: { method: 'flat', hash: { algorithm: 'sha256', digest: new Uint8Array(32) } },
      },
    ],
  ])('has %s outputs: %s', (_, columns, output) => {
    const written = text({ outs: `("out",${columns})` })
    expect(parse(written).outputs).toEqual(new Map([['out', output]]))
    expect(Buffer.from(formatDerivation(parse(written))).toString('latin1')).toBe(written)
  })

  test.each<[string, string, string]>([
    ['nothing', '', 'DRV_TRUNCATED'],
    ['another term', 'Other()', 'DRV_SYNTAX'],
    ['the versioned form', `DrvWithVersion("xp-dyn-drv",[],[],[],"","",[],[])`, 'DRV_VERSION'],
    ['something after the end', `${full}\n`, 'DRV_SYNTAX'],
    ['white space', full.replace('Derive(', 'Derive( '), 'DRV_SYNTAX'],
    ['a comma before the end of a list', text({ args: '"a",' }), 'DRV_SYNTAX'],
    ['no comma in a list', text({ args: '"a""b"' }), 'DRV_SYNTAX'],
    ['an escape that Nix does not write', text({ args: '"\\x"' }), 'DRV_SYNTAX'],
    ['an escape without need', text({ args: '"\\a"' }), 'DRV_SYNTAX'],
    ['a raw line feed', text({ args: '"\n"' }), 'DRV_SYNTAX'],
    ['a raw carriage return', text({ args: '"\r"' }), 'DRV_SYNTAX'],
    ['a raw tab after an escape', text({ args: '"\\n\t"' }), 'DRV_SYNTAX'],
    ['NUL', text({ env: '("a","\0")' }), 'DRV_SYNTAX'],
    ['no outputs', text({ outs: '' }), 'DRV_OUTPUT'],
    [
      'outputs out of order',
      text({ outs: `("out","${out}","",""),("dev","${dev}","","")` }),
      'DRV_ORDER',
    ],
    ['an output twice', text({ outs: `("out","","",""),("out","","","")` }), 'DRV_ORDER'],
    [
      'outputs of two kinds',
      text({ outs: `("dev","","",""),("out","${out}","","")` }),
      'DRV_OUTPUT',
    ],
    [
      'two fixed outputs',
      text({ outs: `("dev","${dev}","sha256","${hex}"),("out","${out}","sha256","${hex}")` }),
      'DRV_OUTPUT',
    ],
    [
      'a fixed output of another name',
      text({ outs: `("dev","${dev}","sha256","${hex}")` }),
      'DRV_OUTPUT',
    ],
    ['an output name with a slash', text({ outs: `("a/b","${out}","","")` }), 'DRV_OUTPUT'],
    ['an output name with a quote', text({ outs: `("a\\"","${out}","","")` }), 'DRV_OUTPUT'],
    ['a path and an algorithm', text({ outs: `("out","${out}","sha256","")` }), 'DRV_OUTPUT'],
    ['an impure path', text({ outs: `("out","${out}","sha256","impure")` }), 'DRV_OUTPUT'],
    ['a hash without path', text({ outs: `("out","","sha256","${hex}")` }), 'DRV_OUTPUT'],
    ['a hash without algorithm', text({ outs: `("out","${out}","","${hex}")` }), 'DRV_OUTPUT'],
    ['a hash in upper case', text({ outs: `("out","${out}","md5","${'A'.repeat(32)}")` }), 'HASH'],
    ['a hash in base64', text({ outs: `("out","${out}","md5","${'A'.repeat(22)}==")` }), 'HASH'],
    ['blake3', text({ outs: `("out","${out}","blake3","${hex}")` }), 'HASH'],
    ['text by another algorithm', text({ outs: `("out","","text:md5","")` }), 'CONTENT_ADDRESS'],
    ['inputs out of order', text({ drvs: `("${b}",["out"]),("${a}",["out"])` }), 'DRV_ORDER'],
    ['an input that is no path', text({ drvs: '("/bin/sh",["out"])' }), 'STORE_PATH'],
    ['an input without outputs', text({ drvs: `("${a}",[])` }), 'DRV_SYNTAX'],
    ['an input with outputs out of order', text({ drvs: `("${a}",["out","dev"])` }), 'DRV_ORDER'],
    ['sources out of order', text({ srcs: `"${out}","${a}"` }), 'DRV_ORDER'],
    ['a source twice', text({ srcs: `"${a}","${a}"` }), 'DRV_ORDER'],
    ['a source with a trailing slash', text({ srcs: `"${a}/"` }), 'STORE_PATH'],
    ['variables out of order', text({ env: '("b",""),("a","")' }), 'DRV_ORDER'],
    ['a variable twice', text({ env: '("a",""),("a","")' }), 'DRV_ORDER'],
  ])('with %s is refused', (_, written, code) => {
    expect(() => parse(written)).toThrow(coded(code))
  })

  test('is refused at every prefix as truncated', () => {
    for (let end = 0; end < full.length; end++)
      expect(() => parse(full.slice(0, end))).toThrow(coded('DRV_TRUNCATED'))
  })

  test('with a flipped bit is refused, or is the text of another derivation', () => {
    for (let bit = 0; bit < full.length * 8; bit++) {
      const flipped = Buffer.from(full, 'latin1')
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      let parsed
      try {
        parsed = parseDerivation(flipped, 'x')
      } catch (error) {
        expect(error).toBeInstanceOf(NixError)
        continue
      }
      expect(Buffer.from(formatDerivation(parsed)).equals(flipped)).toBe(true)
    }
  })

  test('is read to a limit of bytes and of elements', () => {
    expect(() => parseDerivation(Buffer.alloc(DERIVATION_MAX_BYTES + 1), 'x')).toThrow(
      coded('DRV_LIMIT'),
    )
    const many = '"",'.repeat(DERIVATION_MAX_ELEMENTS)
    expect(parse(text({ args: many.slice(0, -1) })).args).toHaveLength(DERIVATION_MAX_ELEMENTS)
    expect(() => parse(text({ args: `${many}""` }))).toThrow(coded('DRV_LIMIT'))
  })

  test('takes time in proportion to its length, whatever its quotes and backslashes', () => {
    // Each of these is quadratic for a parser that looks for the next backslash from every string.
    const strings = `"",`.repeat(100_000)
    for (const args of [
      `${strings}"\\\\"`,
      `"${'\\\\'.repeat(2_000_000)}"`,
      `"${'\\"'.repeat(2_000_000)}"`,
    ])
      expect(parse(text({ args })).args.length).toBeGreaterThan(0)
    expect(() => parse(text({ args: `"${'\\'.repeat(4_000_001)}"` }))).toThrow(NixError)
  })

  test('of any derivation parses to that derivation', () => {
    fc.assert(
      fc.property(derivations, (derivation) => {
        const written = formatDerivation(derivation)
        expect(parseDerivation(written, 'x')).toEqual(derivation)
      }),
    )
  })

  test('no bytes hang the parser or fail without a code', () => {
    const pieces = fc.constantFrom(
      ...['Derive(', '[', ']', '(', ')', ',', '"', '\\', '""', '"a"', `"${out}"`, `"${a}"`, '\n'],
    )
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 60 }), (parts) => {
        const written = bytes(`Derive(${parts.join('')}`)
        expect(() => parseDerivation(written, 'x')).toThrow(NixError)
      }),
    )
  })
})

const byteString = fc
  .uint8Array({ maxLength: 12 })
  .map((array) => Buffer.from(array.filter((byte) => byte !== 0)).toString('latin1'))
const storePath = fc
  .tuple(fc.integer({ min: 0, max: 0xffff }), fc.constantFrom('x', 'y.drv', 'z-1.0'))
  .map(([n, name]) => {
    const part = n.toString(16).padStart(32, '0').replaceAll('e', 'g')
    return parseStorePath(`/nix/store/${part}-${name}`)
  })
const outputName = fc.constantFrom('out', 'dev', 'bin', 'a+b', '_?=')
const rising = <T extends string>(one: fc.Arbitrary<T>, minLength = 0): fc.Arbitrary<T[]> =>
  fc.uniqueArray(one, { minLength, maxLength: 4 }).map((all) => all.toSorted())
const rising2 = <K extends string, V>(key: fc.Arbitrary<K>, value: fc.Arbitrary<V>, least = 0) =>
  fc
    .tuple(rising(key, least), fc.array(value, { minLength: 4, maxLength: 4 }))
    .map(([keys, values]) => new Map(keys.map((one, index) => [one, values[index] as V])))
const digest = fc.uint8Array({ minLength: 20, maxLength: 20 })
const outputs: fc.Arbitrary<Map<string, DerivationOutput>> = fc.oneof(
  rising2(outputName, fc.record({ kind: fc.constant('input-addressed'), path: storePath }), 1),
  rising2(outputName, fc.record({ kind: fc.constant('deferred') }), 1),
  ...(['floating', 'impure'] as const).map((kind) =>
    rising2(
      outputName,
      fc.record({
        kind: fc.constant(kind),
        method: fc.constantFrom('flat', 'nar', 'git', 'text'),
        algorithm: fc.constant('sha256'),
      }),
      1,
    ),
  ),
  fc.tuple(storePath, fc.constantFrom('flat', 'nar', 'git'), digest).map(([path, method, bits]) => {
    const address = { method, hash: { algorithm: 'sha1', digest: bits } } as const
    return new Map([['out', { kind: 'fixed', path, address }]])
  }),
) as fc.Arbitrary<Map<string, DerivationOutput>> // fast-check widens the kinds
const derivations: fc.Arbitrary<Derivation> = fc.record({
  name: fc.constant('x'),
  outputs,
  inputDerivations: rising2(storePath, rising(outputName, 1)),
  inputSources: rising(storePath),
  platform: byteString,
  builder: byteString,
  args: fc.array(byteString, { maxLength: 4 }),
  env: rising2(byteString, byteString),
})
