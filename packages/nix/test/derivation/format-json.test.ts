import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  DERIVATION_JSON_VERSIONS,
  encodeByteString,
  formatDerivationJson,
  parseDerivation,
  parseDerivationJson,
  parseStorePath,
} from '@bagcheck/nix'
import type { Derivation, DerivationJsonVersion, StorePath } from '@bagcheck/nix'
import { derivationsOf } from './arbitrary.ts'

const coded = (code: string): unknown => expect.objectContaining({ code })
const path = parseStorePath(`/nix/store/${'a'.repeat(32)}-x.drv`)
const out = parseStorePath(`/nix/store/${'b'.repeat(32)}-x`)
const made: Derivation = {
  name: 'x',
  outputs: new Map([['out', { kind: 'input-addressed', path: out }]]),
  inputDerivations: new Map([[path, ['dev', 'out']]]),
  inputSources: [],
  platform: 'p',
  builder: 'b',
  args: ['"\\\n', encodeByteString('\u20ac\b\\b\f\x7f')],
  env: new Map([
    ['10', ''],
    ['9', 'x'],
    ['__proto__', ''],
  ]),
}
const print = (derivation: Derivation, version: DerivationJsonVersion): string =>
  formatDerivationJson(new Map([[path, derivation]]), version)
const withEnv = (key: string, value: string): Derivation => ({
  ...made,
  env: new Map([[key, value]]),
})

describe.each(DERIVATION_JSON_VERSIONS)('derivation JSON of version %s, printed', (version) => {
  const texts = fc
    .string({ unit: 'binary', maxLength: 8 })
    .map((text) => encodeByteString(text.replaceAll('\0', '')))

  test('parses to what was printed, whatever it was', () => {
    const any = derivationsOf(texts, { dynamic: version > 1 })
    fc.assert(
      fc.property(any, any, (one, two) => {
        const other = parseStorePath(`/nix/store/${'0'.repeat(32)}-x.drv`)
        const all = new Map<StorePath, Derivation>([
          [path, one],
          [other, two],
        ])
        const parsed = parseDerivationJson(Buffer.from(formatDerivationJson(all, version)))
        expect(parsed).toEqual(all)
        expect([...parsed.keys()]).toEqual([other, path])
      }),
    )
  })

  test('has structured attributes as they were', () => {
    const structured = encodeByteString(
      '{"":[{}],"10":1,"9":2.50,"__proto__":{"a":-0},"z":[1e3,9223372036854775807,null,true,"\u20ac"]}',
    )
    const derivation = withEnv('__json', structured)
    const printed = print(derivation, version)
    expect(printed.includes('structuredAttrs')).toBe(version > 2)
    expect(parseDerivationJson(Buffer.from(printed)).get(path)).toEqual(derivation)
  })

  test('is refused where it would not be read back', () => {
    expect(() => print({ ...made, name: 'y' }, version)).toThrow(coded('DRV_JSON'))
    for (const bytes of ['\xff', '\xc3', '\xed\xa0\x80'])
      for (const derivation of [
        { ...made, platform: bytes },
        { ...made, builder: bytes },
        { ...made, args: [bytes] },
        withEnv('a', bytes),
        withEnv(bytes, ''),
      ])
        expect(() => print(derivation, version)).toThrow(coded('DRV_JSON'))
    const address = {
      method: 'flat',
      hash: { algorithm: 'md5', digest: new Uint8Array(16) },
    } as const
    const wrong: Derivation = {
      ...made,
      outputs: new Map([['out', { kind: 'fixed', path: out, address }]]),
    }
    expect(() => print(wrong, version)).toThrow(coded('DRV_OUTPUT_PATH'))
  })

  test.each([
    ['white space', '{ }'],
    ['keys out of order', '{"b":1,"a":2}'],
    ['a key twice', '{"a":1,"a":2}'],
    ['an escape without need', String.raw`{"a":"\u0041"}`],
    ['a list', '[]'],
    ['no JSON', '{'],
    ['an integer of more than 64 bits', '{"a":18446744073709551616}'],
    ['too many levels', `{"a":${'['.repeat(64)}${']'.repeat(64)}}`],
  ])('keeps structured attributes with %s, or refuses them', (_, structured) => {
    const derivation = withEnv('__json', structured)
    if (version > 2) expect(() => print(derivation, version)).toThrow(coded('DRV_JSON'))
    else
      expect(parseDerivationJson(Buffer.from(print(derivation, version))).get(path)).toEqual(
        derivation,
      )
  })
})

test('derivation JSON has one form for each version', () => {
  expect(print(made, 1)).toBe(String.raw`{
  "${path}": {
    "outputs": {
      "out": {
        "path": "${out}"
      }
    },
    "inputSrcs": [],
    "inputDrvs": {
      "${path}": [
        "dev",
        "out"
      ]
    },
    "system": "p",
    "builder": "b",
    "args": [
      "\"\\\n",
      "€\u0008\\b\u000c${'\x7f'}"
    ],
    "env": {
      "10": "",
      "9": "x",
      "__proto__": ""
    }
  }
}
`)
  expect(print(made, 4)).toBe(String.raw`{
  "derivations": {
    "${path.slice(11)}": {
      "args": [
        "\"\\\n",
        "€\b\\b\f${'\x7f'}"
      ],
      "builder": "b",
      "env": {
        "10": "",
        "9": "x",
        "__proto__": ""
      },
      "inputs": {
        "drvs": {
          "${path.slice(11)}": {
            "dynamicOutputs": {},
            "outputs": [
              "dev",
              "out"
            ]
          }
        },
        "srcs": []
      },
      "name": "x",
      "outputs": {
        "out": {
          "path": "${out.slice(11)}"
        }
      },
      "system": "p",
      "version": 4
    }
  },
  "version": 4
}
`)
})

test('derivation JSON has dynamic inputs, except in version 1', () => {
  const text =
    `DrvWithVersion("xp-dyn-drv",[("out","","","")],[("${path}",(["cat","dog"],[("cat",["kitten"]),` +
    `("goose",([],[("egg",["gosling"])]))]))],[],"","",[],[])`
  const derivation = parseDerivation(Buffer.from(text), 'x')
  for (const version of [2, 3, 4] as const) {
    const printed = print(derivation, version)
    expect(printed).toContain('"gosling"')
    expect(parseDerivationJson(Buffer.from(printed)).get(path)).toEqual(derivation)
  }
  expect(() => print(derivation, 1)).toThrow(coded('DRV_JSON'))
})
