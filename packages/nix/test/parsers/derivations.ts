// The parsers of derivations: as Nix keeps them, and as JSON.
import fc from 'fast-check'
import {
  contentAddressedPath,
  DERIVATION_JSON_MAX_BYTES,
  DERIVATION_JSON_VERSIONS,
  DERIVATION_MAX_BYTES,
  DERIVATION_MAX_ELEMENTS,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  encodeByteString,
  formatDerivation,
  formatDerivationJson,
  parseDerivation,
  parseDerivationJson,
  parseStorePath,
} from '@bagcheck/nix'
import type { Derivation, StorePath } from '@bagcheck/nix'
import { derivationsOf } from '../derivation/arbitrary.ts'
import { storePath } from '../path-info/facts.ts'
import { bounded, counted, json, JSON_CODES, JSON_WORDS, numbers, parser, text } from './parser.ts'
import type { Parser } from './parser.ts'

const drv = parseStorePath(`/nix/store/${'a'.repeat(32)}-x.drv`)
const source = parseStorePath(`/nix/store/${'b'.repeat(32)}-source`)
const address = {
  method: 'nar',
  hash: { algorithm: 'sha256', digest: new Uint8Array(32) },
} as const
const derivation: Derivation = {
  name: 'x',
  outputs: new Map([['out', { kind: 'fixed', path: contentAddressedPath('x', address), address }]]),
  inputDerivations: new Map([[drv, ['dev', 'out']]]),
  inputSources: [source],
  platform: 'p',
  builder: 'b',
  args: ['"\\\n', encodeByteString('\u20ac')],
  env: new Map([
    ['__json', '{"a":[1.50,true]}'],
    ['out', ''],
  ]),
}
const dynamic: Derivation = {
  ...derivation,
  outputs: new Map([['out', { kind: 'deferred' }]]),
  inputDerivations: new Map([[drv, []]]),
  dynamicInputs: new Map([[drv, new Map([['out', { outputs: ['a'] }]])]]),
}
const DRV_CODES = 'DRV_(LIMIT|OUTPUT|OUTPUT_PATH)|STORE_PATH|HASH|CONTENT_ADDRESS'
const aterm = (args: string): string => `Derive([("out","","","")],[],[],"p","b",[${args}],[])`
const nestedTerm = (n: number): string =>
  `DrvWithVersion("xp-dyn-drv",[("out","","","")],[("${drv}",` +
  `${'([],[("o",'.repeat(n)}["out"]${')])'.repeat(n)})],[],"p","b",[],[])`
const nestedUse = (n: number): unknown =>
  n === 0
    ? { outputs: ['out'], dynamicOutputs: {} }
    : { outputs: [], dynamicOutputs: { o: nestedUse(n - 1) } }
const byteStrings = fc.uint8Array({ maxLength: 8 }).map((raw) => text(raw).replaceAll('\0', ''))
const utf8Strings = fc
  .string({ unit: 'binary', maxLength: 8 })
  .map((one) => encodeByteString(one.replaceAll('\0', '')))
const printJson = (all: ReadonlyMap<StorePath, Derivation>, version: 1 | 2 | 3 | 4): Uint8Array =>
  Buffer.from(formatDerivationJson(all, version))
/** Without the white space, which is no part of what it says. */
const compact = (document: Uint8Array): Uint8Array =>
  Buffer.from(Buffer.from(document).toString().replace(/\n */g, '').replaceAll('": ', '":'))

export const DERIVATIONS: readonly Parser[] = [
  parser({
    name: 'parseDerivation',
    samples: [formatDerivation(derivation), formatDerivation(dynamic)],
    parse: (raw) => parseDerivation(raw, 'x'),
    print: (value) => [formatDerivation(value)],
    codes: new RegExp(`^(DRV_(TRUNCATED|SYNTAX|ORDER|VERSION)|${DRV_CODES})$`),
    cutCode: 'DRV_TRUNCATED',
    values: derivationsOf(byteStrings),
    words: ['Derive(', '[', ']', '(', ')', ',', '"', '\\', '""', '"a"', `"${drv}"`, '\n', '\0'],
    limits: [
      bounded(DERIVATION_MAX_BYTES, 'DRV_LIMIT'),
      counted('elements', DERIVATION_MAX_ELEMENTS, 'DRV_LIMIT', (n) =>
        aterm(numbers(n, () => '""').join()),
      ),
      counted('levels of dynamic outputs', DYNAMIC_OUTPUTS_MAX_DEPTH, 'DRV_LIMIT', nestedTerm),
    ],
  }),
  ...DERIVATION_JSON_VERSIONS.map((version) =>
    parser<Map<StorePath, Derivation>>({
      name: 'parseDerivationJson',
      form: `version ${version}`,
      samples: (version === 1 ? [derivation] : [derivation, dynamic]).map((one) =>
        compact(printJson(new Map([[drv, one]]), version)),
      ),
      parse: parseDerivationJson,
      // Versions 1 and 2 are read in one way, and only 2 holds all that this can give.
      print: (all) => [printJson(all, version === 1 ? 2 : version)],
      codes: new RegExp(`^(DRV_JSON|${JSON_CODES}|${DRV_CODES})$`),
      cutCode: 'JSON_SYNTAX',
      lenient: true,
      values: fc
        .tuple(...[1, 2].map(() => derivationsOf(utf8Strings, { dynamic: version > 1 })))
        .map((all) => new Map(all.map((one, n) => [storePath(n, 'x.drv'), one]))),
      words: [
        ...JSON_WORDS,
        '"out"',
        '"path"',
        '"version"',
        '"hashAlgo"',
        '"r:sha256"',
        '{}',
        `"${drv}"`,
      ],
      limits:
        version === 2
          ? [
              bounded(DERIVATION_JSON_MAX_BYTES, 'JSON_LIMIT'),
              counted('levels of dynamic outputs', DYNAMIC_OUTPUTS_MAX_DEPTH, 'DRV_LIMIT', (n) =>
                json({
                  [drv]: {
                    ...{ outputs: { out: {} }, inputSrcs: [], inputDrvs: { [drv]: nestedUse(n) } },
                    ...{ system: '', builder: '', args: [], env: {} },
                  },
                }),
              ),
            ]
          : [],
    }),
  ),
]
