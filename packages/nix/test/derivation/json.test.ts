import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  decodeByteString,
  derivationGraph,
  derivationPath,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  encodeByteString,
  formatHash,
  formatHashDigits,
  formatMethodAndAlgorithm,
  NixError,
  parseDerivationJson,
  parseStorePath,
  storePathBase,
} from '@bagcheck/nix'
import type { Derivation, DerivationOutput, StorePath } from '@bagcheck/nix'
// Field by field what Nix's manual says (doc/manual/source/protocols/json of NixOS/nix at 2.36: derivation-v4.yaml and what
// it refers to) and its reader takes (src/libstore/derivation/json.cc); versions 1 to 3 were read in 2.8.0, 2.24.0, 2.31.0
// and 2.32.0. What releases really print is compared in the system tests.
import { flat, Instantiator, pathOf } from './instantiate.ts'

const coded = (code: string): unknown => expect.objectContaining({ code })
const parse = (value: unknown): Map<StorePath, Derivation> =>
  parseDerivationJson(Buffer.from(JSON.stringify(value)))

const nix = new Instantiator()
const source = nix.add({ name: 'src', fixed: flat('content'), env: { url: 'https://a.test/x' } })
const structured = '{"a":{"b":"Gr\u00f6\u00dfe","z":[1,2.50,1e3,-0,1234567890123456]},"name":"lib"}'
const library = nix.add({
  name: 'lib',
  outputs: ['dev', 'out'],
  inputs: [source],
  sources: [pathOf(source)],
  args: ['-c', encodeByteString('Gr\u00f6\u00dfe')],
  env: { __json: encodeByteString(structured) },
})
const root = nix.add({ name: 'root', inputs: [library, source] })
const graph = nix.graph(root)

type Form = 1 | 2 | '2 with methods' | 3 | 4

/** What Nix prints for an output, form by form. */
function outputJson(output: DerivationOutput, form: Form): unknown {
  const path = (one: StorePath) => (form === 3 || form === 4 ? storePathBase(one) : one)
  if (output.kind === 'input-addressed') return { path: path(output.path) }
  if (output.kind !== 'fixed') throw new TypeError(output.kind)
  const { method, hash } = output.address
  if (form === 4) return { method, hash: formatHash(hash, 'sri') }
  const digits = formatHashDigits(hash.digest, 'base16')
  return form === 1 || form === 2
    ? {
        path: path(output.path),
        hashAlgo: formatMethodAndAlgorithm(method, hash.algorithm),
        hash: digits,
      }
    : { path: path(output.path), method, hashAlgo: hash.algorithm, hash: digits }
}

/** The graph in one form. Structured attributes stand apart where `form` does that. */
function graphJson(form: Form): string {
  const based = form === 3 || form === 4
  const path = (one: StorePath) => (based ? storePathBase(one) : one)
  const entries = Array.from(graph.derivations, ([at, derivation]) => {
    const { name, outputs, inputDerivations, inputSources, platform, builder, args, env } =
      derivation
    const drvs = Object.fromEntries(
      Array.from(inputDerivations, ([input, names]) => [
        path(input),
        form === 1 ? names : { outputs: names.toReversed(), dynamicOutputs: {} },
      ]),
    )
    const srcs = inputSources.map(path).toReversed()
    const variables = Object.fromEntries(
      [...env]
        .filter(([key]) => !(based && key === '__json'))
        .map(([k, v]) => [k, decodeByteString(v)]),
    )
    const fields = {
      ...(form === 1 ? {} : { name }),
      ...(based ? { version: form } : {}),
      outputs: Object.fromEntries(Array.from(outputs, ([k, v]) => [k, outputJson(v, form)])),
      ...(form === 4 ? { inputs: { drvs, srcs } } : { inputDrvs: drvs, inputSrcs: srcs }),
      system: platform,
      builder,
      args: args.map(decodeByteString),
      env: variables,
    }
    const text = JSON.stringify(fields)
    const json = env.get('__json')
    const apart = based && json !== undefined
    const whole = apart ? `${text.slice(0, -1)},"structuredAttrs":${decodeByteString(json)}}` : text
    return `${JSON.stringify(path(at))}:${whole}`
  })
  const map = `{${entries.toReversed().join(',')}}`
  return form === 4 ? `{"version":4,"derivations":${map}}` : map
}

describe('derivation JSON', () => {
  test.each<Form>([1, 2, '2 with methods', 3, 4])(
    'of form %s parses to what it stands for',
    (form) => {
      const parsed = parseDerivationJson(Buffer.from(graphJson(form)))
      expect(parsed.size).toBe(3)
      for (const [path, derivation] of graph.derivations) {
        expect(parsed.get(path)).toEqual(derivation)
        expect(derivationPath(parsed.get(path) as Derivation)).toBe(path)
      }
      expect(derivationGraph([root.path], parsed)).toEqual(graph)
    },
  )

  const path = parseStorePath(`/nix/store/${'a'.repeat(32)}-x.drv`)
  const fields = {
    outputs: { out: { hashAlgo: 'r:sha256' } },
    inputSrcs: [],
    inputDrvs: {},
    system: '',
    builder: '',
    args: [],
    env: {},
  }
  const using = (used: unknown): unknown => ({ [path]: { ...fields, inputDrvs: { [path]: used } } })
  const deep = (levels: number): unknown =>
    levels === 0
      ? { outputs: ['out'], dynamicOutputs: {} }
      : { outputs: [], dynamicOutputs: { o: deep(levels - 1) } }
  const output = (one: unknown): DerivationOutput | undefined =>
    parse({ [path]: { ...fields, outputs: { out: one } } })
      .get(path)
      ?.outputs.get('out')

  test('has outputs of every other kind', () => {
    expect(output({})).toEqual({ kind: 'deferred' })
    expect(output({ hashAlgo: 'git:sha1' })).toEqual({
      kind: 'floating',
      method: 'git',
      algorithm: 'sha1',
    })
    expect(output({ method: 'nar', hashAlgo: 'sha256', impure: true })).toEqual({
      kind: 'impure',
      method: 'nar',
      algorithm: 'sha256',
    })
  })

  test.each<[string, unknown, string?]>([
    ['a list', []],
    ['a number', 1],
    ['a version that is not known', { version: 5, derivations: {} }],
    ['a derivation of a version that is not known', { [path]: { ...fields, version: 5 } }],
    ['an unknown key', { [path]: { ...fields, options: {} } }],
    ['another name', { [path]: { ...fields, name: 'y' } }],
    ['a path that is no derivation', { '/nix/store/x': fields }, 'STORE_PATH'],
    ['a missing field', { [path]: { ...fields, env: undefined } }],
    ['a list of arguments that is none', { [path]: { ...fields, args: 'x' } }],
    ['an argument that is no string', { [path]: { ...fields, args: [1] } }],
    ['NUL', { [path]: { ...fields, env: { a: '\0' } } }],
    ['a source twice', { [path]: { ...fields, inputSrcs: [path, path] } }],
    ['an input without outputs', { [path]: { ...fields, inputDrvs: { [path]: [] } } }],
    ['an output of no name', using({ outputs: ['a b'], dynamicOutputs: {} }), 'DRV_OUTPUT'],
    ['inputs without outputs', using({ outputs: [], dynamicOutputs: {} })],
    ['inputs without dynamic outputs', using({ outputs: ['out'] })],
    ['dynamic outputs that are a list', using({ outputs: ['out'], dynamicOutputs: [] })],
    ['dynamic outputs of nothing', using({ outputs: [], dynamicOutputs: { a: { outputs: [] } } })],
    [
      'dynamic outputs of no name',
      using({ outputs: [], dynamicOutputs: { '': ['a'] } }),
      'DRV_OUTPUT',
    ],
    ['dynamic outputs too deep', using(deep(DYNAMIC_OUTPUTS_MAX_DEPTH + 1)), 'DRV_LIMIT'],
    ['a name of NUL', { [path]: { ...fields, env: { '\0': '' } } }],
    ['a base name in version 2', { [storePathBase(path)]: fields }, 'STORE_PATH'],
    ['a full path in version 3', { [path]: { ...fields, name: 'x', version: 3 } }, 'STORE_PATH'],
    ['no name in version 3', { [storePathBase(path)]: { ...fields, version: 3 } }],
    ['version 4 alone', { [storePathBase(path)]: { ...fields, version: 4 } }],
    ['a version in version 2', { [path]: { ...fields, version: 2 } }],
    [
      'version 3 in version 4',
      { version: 4, derivations: { [storePathBase(path)]: { ...fields, name: 'x', version: 3 } } },
    ],
    ['no outputs', { [path]: { ...fields, outputs: {} } }, 'DRV_OUTPUT'],
    ['an output with an odd name', { [path]: { ...fields, outputs: { 'a b': {} } } }, 'DRV_OUTPUT'],
    [
      'structured attributes twice',
      { [path]: { ...fields, env: { __json: '{}' }, structuredAttrs: {} } },
    ],
    ['structured attributes that are no object', { [path]: { ...fields, structuredAttrs: 1 } }],
  ])('with %s is refused', (_, value, code = 'DRV_JSON') => {
    expect(() => parse(value)).toThrow(coded(code))
  })

  test.each<[string, unknown, string?]>([
    ['a path and an algorithm', { path, hashAlgo: 'sha256' }],
    ['a wrong path', { path, hashAlgo: 'md5', hash: '0'.repeat(32) }],
    ['a hash without algorithm', { hash: '0'.repeat(64) }],
    ['a hash without path', { hashAlgo: 'sha256', hash: '0'.repeat(64) }, 'DRV_JSON'],
    ['a hash that is not base16', { path, hashAlgo: 'sha256', hash: '0'.repeat(52) }, 'HASH'],
    ['an unknown method', { method: 'zip', hashAlgo: 'sha256' }],
    ['a hash of version 4', { method: 'nar', hash: `md5-${'A'.repeat(22)}==` }, 'DRV_JSON'],
    ['a path and a method', { path, method: 'nar' }, 'DRV_JSON'],
    ['impure with a path', { path, hashAlgo: 'sha256', impure: true }, 'DRV_JSON'],
    ['text by md5', { method: 'text', hashAlgo: 'md5' }, 'CONTENT_ADDRESS'],
    ['impure: false', { method: 'nar', hashAlgo: 'sha256', impure: false }],
  ])('with %s of an output is refused', (_, one, code) => {
    expect(() => output(one)).toThrow(code === undefined ? NixError : coded(code))
  })

  test.each<[string, unknown, string?]>([
    ['a path beside the hash', { path: 'x', method: 'nar', hash: `md5-${'A'.repeat(22)}==` }],
    ['a hash in base16', { method: 'nar', hash: `sha256:${'0'.repeat(64)}` }],
    [
      'a hash of its parts',
      { method: 'nar', hash: { algorithm: 'md5', format: 'base16', hash: '' } },
    ],
    ['an algorithm beside the hash', { method: 'nar', hashAlgo: 'md5', hash: '0'.repeat(32) }],
    ['a method in the algorithm', { hashAlgo: 'r:sha256' }],
    ['text by md5', { method: 'text', hash: `md5-${'A'.repeat(22)}==` }, 'CONTENT_ADDRESS'],
    ['a full path', { path }, 'STORE_PATH'],
  ])('of version 4 with %s of an output is refused', (_, out, code = 'DRV_JSON') => {
    const { inputDrvs: drvs, inputSrcs: srcs, ...rest } = fields
    const one = { ...rest, name: 'x', version: 4, inputs: { drvs, srcs } }
    const whole = (outputs: unknown): unknown => ({
      version: 4,
      derivations: { [storePathBase(path)]: { ...one, outputs } },
    })
    expect(parse(whole({ out: {} })).size).toBe(1)
    expect(() => parse(whole({ out }))).toThrow(coded(code))
  })

  test('has integers of 64 bits in structured attributes, and no longer ones', () => {
    const text = (number: string): Buffer =>
      Buffer.from(
        JSON.stringify({ [path]: { ...fields, structuredAttrs: { n: 0 } } }).replace(
          '{"n":0}',
          `{"n":${number}}`,
        ),
      )
    for (const number of ['9223372036854775807', '-9223372036854775808', '18446744073709551615'])
      expect(parseDerivationJson(text(number)).get(path)?.env.get('__json')).toBe(`{"n":${number}}`)
    for (const number of [
      '-9223372036854775809',
      '18446744073709551616',
      '1'.repeat(10_000),
      '1e999',
    ])
      expect(() => parseDerivationJson(text(number))).toThrow(coded('JSON_SYNTAX'))
  })

  test('is refused where it is not UTF-8', () => {
    for (const bytes of [Buffer.from([0x22, 0xff, 0x22]), Buffer.from('{"a":"\\ud800"}')])
      expect(() => parseDerivationJson(bytes)).toThrow(coded('JSON_SYNTAX'))
  })

  test('with a key twice is refused', () => {
    const text = JSON.stringify({ [path]: fields }).replace('"args"', '"args":[],"args"')
    expect(() => parseDerivationJson(Buffer.from(text))).toThrow(coded('JSON_DUPLICATE_KEY'))
  })

  test('fails with a code, whatever the JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(...Object.keys(fields)), (value, key) => {
        for (const one of [value, { [path]: value }, { [path]: { ...fields, [key]: value } }]) {
          try {
            parse(one)
          } catch (error) {
            expect(error).toBeInstanceOf(NixError)
          }
        }
      }),
    )
  })
})
