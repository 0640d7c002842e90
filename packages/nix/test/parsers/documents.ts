// The parsers of other JSON.
import fc from 'fast-check'
import {
  BOOTSPEC_MAX_BYTES,
  FLAKE_LOCK_MAX_BYTES,
  formatNarListing,
  LISTING_MAX_BYTES,
  NAR_MAX_DEPTH,
  parseBootspec,
  parseFlakeLock,
  parseNarListing,
  parsePathInfoJson,
  PATH_INFO_MAX_BYTES,
  printFlakeLock,
  storePathBase,
} from '@bagcheck/nix'
import type { Bootspec } from '@bagcheck/nix'
import { parseStrictJson, STRICT_JSON_MAX_DEPTH } from '../../src/strict-json.ts'
import { github, lockText } from '../flake-lock/locks.ts'
import { document } from '../nixos/documents.ts'
import { factsLists, glibc, hello, storePath } from '../path-info/facts.ts'
import {
  base,
  bounded,
  bytes,
  counted,
  json,
  JSON_CODES,
  JSON_WORDS,
  numbers,
  padded,
  parser,
} from './parser.ts'
import type { Parser } from './parser.ts'

const lock = {
  a: github('a', { inputs: { b: 'b', c: ['b'] }, parent: [] }),
  b: github('b', { flake: false }),
  root: { inputs: { a: 'a', b: 'b' } },
}
const plain = { locked: { type: 'path' }, original: { type: 'path' } }
const inputsOf = (all: readonly [string, unknown][]): Uint8Array =>
  lockText({ a: plain, root: { inputs: Object.fromEntries(all) } })

const V1 = 'org.nixos.bootspec.v1'
const SPECIALISATION = 'org.nixos.specialisation.v1'
const bootDocument = ({ specialisations, vendors, ...v1 }: Bootspec): object => ({
  ...Object.fromEntries(vendors),
  [V1]: v1,
  [SPECIALISATION]: Object.fromEntries(
    Array.from(specialisations, ([name, one]) => [name, bootDocument(one)]),
  ),
})
const nestedBoot = (levels: number): object =>
  document('a', {}, levels === 1 ? {} : { [SPECIALISATION]: { x: nestedBoot(levels - 1) } })
const boot = json(document('a', {}, { [SPECIALISATION]: { x: document('b') }, vendor: ['x'] }))

const { path: _, ...entry } = hello
const newer = (version: 2 | 3): object => ({
  version,
  storeDir: '/nix/store',
  info: {
    [storePathBase(hello.path)]: {
      ...entry,
      ca: { method: 'nar', hash: `sha256-${Buffer.alloc(32, 4).toString('base64')}` },
      deriver: storePathBase(storePath(3, 'hello-2.12.drv')),
      references: hello.references.map(storePathBase),
      signatures:
        version === 2 ? hello.signatures : [{ keyName: 'a', sig: hello.signatures?.[0]?.slice(2) }],
      ...{ storeDir: '/nix/store', version },
    },
    [storePathBase(glibc.path)]: null,
  },
})
const PATH_INFO_SHAPES: Readonly<Record<string, unknown>> = {
  'an array': [hello, { path: glibc.path, valid: false }],
  'a map': { [hello.path]: entry, [glibc.path]: null },
  'version 1': { [hello.path]: { ...entry, storeDir: '/nix/store', version: 1 } },
  'version 2': newer(2),
  'version 3': newer(3),
}

const listed = '{"type":"regular","size":0}'
const listing = (node: string): string => `{"version":1,"root":${node}}`
const listingOf = (name: string, node = listed): string =>
  listing(`{"type":"directory","entries":{${JSON.stringify(name)}:${node}}}`)

export const DOCUMENTS: readonly Parser[] = [
  parser({
    name: 'parseStrictJson', // of this package alone; the others stand on it
    samples: [json({ a: [1, -2.5e3, true, null, 'x\n\u20ac'], b: {}, '': [] })],
    parse: (raw) => JSON.stringify(parseStrictJson(raw, 1000)),
    print: (value) => [Buffer.from(value)],
    codes: new RegExp(`^${JSON_CODES}$`),
    cutCode: 'JSON_SYNTAX',
    lenient: true,
    values: fc
      .jsonValue({ maxDepth: 4 })
      .map((value) => JSON.stringify(value))
      // As other readers have them, numbers from 2^53 on are no numbers.
      .filter((one) => one.length <= 300 && !/[0-9]{16}/.test(one)),
    words: JSON_WORDS,
    limits: [
      padded(json([]), 'bytes', 1000, 'JSON_LIMIT'),
      counted('levels', STRICT_JSON_MAX_DEPTH, 'JSON_LIMIT', (n) => '['.repeat(n) + ']'.repeat(n)),
      counted('digits', 15, 'JSON_SYNTAX', (n) => `9007199254740991${'0'.repeat(n - 15)}`),
    ],
  }),
  parser({
    name: 'parseFlakeLock',
    samples: [lockText(lock)],
    parse: parseFlakeLock,
    print: (value) => [Buffer.from(printFlakeLock(value))],
    codes: new RegExp(`^(FLAKE_LOCK_(VERSION|NODE|INPUT|CYCLE|LIMIT)|${JSON_CODES})$`),
    cutCode: 'JSON_SYNTAX',
    lenient: true,
    printsLess: true, // in version 7, without what nothing reaches
    words: [
      ...JSON_WORDS,
      '"a"',
      '"b"',
      '"root"',
      '"inputs"',
      '"flake"',
      '["a"]',
      '{}',
      '5',
      '"parent"',
    ],
    limits: [
      padded(lockText(lock), 'bytes', FLAKE_LOCK_MAX_BYTES, 'JSON_LIMIT'),
      counted('nodes', 10_000, 'FLAKE_LOCK_LIMIT', (n) =>
        lockText({ root: {}, ...Object.fromEntries(numbers(n - 1, (at) => [`n${at}`, plain])) }),
      ),
      counted('inputs', 100_000, 'FLAKE_LOCK_LIMIT', (n) =>
        inputsOf(numbers(n, (at) => [`i${at}`, 'a'])),
      ),
      counted('follows in a row', 256, 'FLAKE_LOCK_LIMIT', (n) =>
        inputsOf([
          ...numbers(n, (at): [string, unknown] => [`i${at}`, [`i${at + 1}`]]),
          [`i${n}`, 'a'],
        ]),
      ),
    ],
  }),
  parser({
    name: 'parseBootspec',
    samples: [boot],
    parse: parseBootspec,
    print: (value) => [json(bootDocument(value))],
    codes: new RegExp(`^(BOOTSPEC|${JSON_CODES})$`),
    cutCode: 'JSON_SYNTAX',
    lenient: true,
    words: [...JSON_WORDS.filter((one) => one !== '-'), `"${V1}"`, '"init"', '"x"', '{}', 'null'],
    limits: [
      padded(boot, 'bytes', BOOTSPEC_MAX_BYTES, 'JSON_LIMIT'),
      counted('specialisations', 1000, 'BOOTSPEC', (n) =>
        json(
          document(
            'a',
            {},
            { [SPECIALISATION]: Object.fromEntries(numbers(n, (at) => [`s${at}`, document('a')])) },
          ),
        ),
      ),
      counted('levels', 4, 'BOOTSPEC', (n) => json(nestedBoot(n))),
    ],
  }),
  ...Object.entries(PATH_INFO_SHAPES).map(([form, shape]) =>
    parser({
      name: 'parsePathInfoJson',
      form,
      samples: [json(shape)],
      parse: parsePathInfoJson,
      print: (infos) => [json(infos)],
      codes: new RegExp(`^(PATH_INFO_ENTRY|${JSON_CODES})$`),
      cutCode: 'JSON_SYNTAX',
      lenient: true,
      mayNotNotice: true, // paths that are not valid, and members that are not used
      ...(form === 'an array' && {
        values: factsLists.map((infos) =>
          infos
            .map((info) => ({ ...info, signatures: [] }))
            .toSorted((a, b) => (a.path < b.path ? -1 : 1)),
        ),
        limits: [
          bounded(PATH_INFO_MAX_BYTES, 'JSON_LIMIT'),
          counted(
            'paths',
            200_000,
            'PATH_INFO_ENTRY',
            (n) => `{${numbers(n, (at) => `"/nix/store/${base(at)}":null`).join()}}`,
          ),
        ],
      }),
      words: [
        ...JSON_WORDS,
        '"path"',
        `"${glibc.path}"`,
        '"narSize"',
        '"version"',
        '"info"',
        '{}',
        '[]',
      ],
    }),
  ),
  parser({
    name: 'parseNarListing',
    samples: [
      bytes(
        listing(
          '{"type":"directory","entries":{"10":{"type":"regular","size":10,"executable":true,"narOffset":400},' +
            '"empty":{"type":"directory","entries":{}},"link":{"type":"symlink","target":"bin/tool"}}}',
        ),
      ),
    ],
    parse: parseNarListing,
    print: (value) => [Buffer.from(formatNarListing(value))],
    codes: new RegExp(`^(LISTING_ENTRY|${JSON_CODES})$`),
    cutCode: 'JSON_SYNTAX',
    lenient: true,
    words: [...JSON_WORDS, '"entries"', '"type"', '"regular"', '"size"', listed, '".."', '"a/b"'],
    limits: [
      bounded(LISTING_MAX_BYTES, 'JSON_LIMIT'),
      counted('bytes of name', 255, 'LISTING_ENTRY', (n) => listingOf('x'.repeat(n))),
      counted('bytes of target', 4095, 'LISTING_ENTRY', (n) =>
        listing(JSON.stringify({ type: 'symlink', target: 'x'.repeat(n) })),
      ),
      counted('levels', NAR_MAX_DEPTH - 1, 'LISTING_ENTRY', (n) =>
        listing(`${'{"type":"directory","entries":{"d":'.repeat(n)}${listed}${'}}'.repeat(n)}`),
      ),
    ],
  }),
]
