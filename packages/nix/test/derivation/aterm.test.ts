import { describe, expect, test } from 'vitest'
import {
  contentAddressedPath,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  formatDerivation,
  NixError,
  parseDerivation,
  parseStorePath,
} from '@bagcheck/nix'
import type { Derivation, DerivationOutput, UsedOutputs } from '@bagcheck/nix'

const a = parseStorePath(`/nix/store/${'a'.repeat(32)}-a.drv`)
const b = parseStorePath(`/nix/store/${'b'.repeat(32)}-b.drv`)
const out = parseStorePath(`/nix/store/${'c'.repeat(32)}-x`)
const dev = parseStorePath(`/nix/store/${'d'.repeat(32)}-x-dev`)
const hex = '0'.repeat(64)
const zeros = { algorithm: 'sha256', digest: new Uint8Array(32) } as const
const fixed = contentAddressedPath('x', { method: 'flat', hash: zeros })

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

/** The text of a derivation with dynamic inputs. */
function versioned(drvs: string): string {
  return text({ drvs }).replace('Derive(', 'DrvWithVersion("xp-dyn-drv",')
}
const dynamic = versioned(
  `("${a}",(["cat","dog"],[("cat",["kitten"]),("goose",([],[("egg",["gosling"])]))])),` +
    `("${b}",([],[("out",["out"])]))`,
)
function nested(levels: number): string {
  return `${'([],[("o",'.repeat(levels)}["out"]${')])'.repeat(levels)}`
}

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
      `"${fixed}","sha256","${hex}"`,
      { kind: 'fixed', path: fixed, address: { method: 'flat', hash: zeros } },
    ],
  ])('has %s outputs: %s', (_, columns, output) => {
    const written = text({ outs: `("out",${columns})` })
    expect(parse(written).outputs).toEqual(new Map([['out', output]]))
    expect(Buffer.from(formatDerivation(parse(written))).toString('latin1')).toBe(written)
  })

  test.each<[string, string, string]>([
    ['nothing', '', 'DRV_TRUNCATED'],
    ['another term', 'Other()', 'DRV_SYNTAX'],
    ['another version', full.replace('Derive(', 'DrvWithVersion("2",'), 'DRV_VERSION'],
    [
      'a version without need',
      full.replace('Derive(', 'DrvWithVersion("xp-dyn-drv",'),
      'DRV_VERSION',
    ],
    [
      'dynamic inputs without version',
      text({ drvs: `("${a}",([],[("o",["out"])]))` }),
      'DRV_SYNTAX',
    ],
    [
      'a fixed output at another path',
      text({ outs: `("out","${out}","sha256","${hex}")` }),
      'DRV_OUTPUT_PATH',
    ],
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

  test('with dynamic inputs parses, and prints back', () => {
    const parsed = parse(dynamic)
    expect(parsed.inputDerivations).toEqual(
      new Map([
        [a, ['cat', 'dog']],
        [b, []],
      ]),
    )
    expect(parsed.dynamicInputs).toEqual(
      new Map([
        [
          a,
          new Map<string, UsedOutputs>([
            ['cat', { outputs: ['kitten'] }],
            [
              'goose',
              { outputs: [], dynamicOutputs: new Map([['egg', { outputs: ['gosling'] }]]) },
            ],
          ]),
        ],
        [b, new Map([['out', { outputs: ['out'] }]])],
      ]),
    )
    expect(Buffer.from(formatDerivation(parsed)).toString('latin1')).toBe(dynamic)
    expect(parse(full)).not.toHaveProperty('dynamicInputs')
  })

  test.each<[string, string, string]>([
    ['no names and nothing nested', '([],[])', 'DRV_SYNTAX'],
    ['nothing nested', '(["out"],[])', 'DRV_SYNTAX'],
    ['nothing used of what is nested', '(["out"],[("out",[])])', 'DRV_SYNTAX'],
    ['nested names out of order', '([],[("b",["out"]),("a",["out"])])', 'DRV_ORDER'],
    ['a nested name twice', '([],[("a",["out"]),("a",["out"])])', 'DRV_ORDER'],
    ['a nested name that no output has', '([],[("a/b",["out"])])', 'DRV_OUTPUT'],
    ['a name that no output has, nested', '([],[("a",["a/b"])])', 'DRV_OUTPUT'],
    ['something else nested', '([],["a"])', 'DRV_SYNTAX'],
    ['too many levels', nested(DYNAMIC_OUTPUTS_MAX_DEPTH + 1), 'DRV_LIMIT'],
    ['very many levels', nested(100_000), 'DRV_LIMIT'],
  ])('with dynamic inputs that have %s is refused', (_, used, code) => {
    expect(() => parse(versioned(`("${a}",${used})`))).toThrow(coded(code))
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
})
