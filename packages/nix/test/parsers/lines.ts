// The parsers of texts that are lines.
import fc from 'fast-check'
import {
  CACHE_INFO_MAX_BYTES,
  FILE_LIST_MAX_BYTES,
  formatCacheInfo,
  formatNarInfo,
  formatRegistrations,
  makeFileList,
  MANIFEST_MAX_BYTES,
  NAR_INFO_MAX_BYTES,
  parseCacheInfo,
  parseFileList,
  parseManifest,
  parseNarInfo,
  parseRegistrations,
  REGISTRATION_MAX_BYTES,
  sha256Hex,
  storePathBase,
} from '@bagcheck/nix'
import type { ListedFile, PathInfo } from '@bagcheck/nix'
import { anyFacts, factsLists, glibc, hello } from '../path-info/facts.ts'
import { base, bounded, bytes, counted, numbers, parser, repeated } from './parser.ts'
import type { Parser } from './parser.ts'

const line = ({ path, narHash, narSize, references }: PathInfo): string =>
  `${[path, narHash, narSize, ...references.map(storePathBase)].join(' ')}\n`
const manifest = line(glibc) + line(hello)
const file = (path: string, executable = false): ListedFile => ({
  path,
  sha256: sha256Hex(path),
  size: path.length,
  executable,
})
const files = makeFileList([
  file(`${glibc.path}/a b`, true),
  file(`${glibc.path}/\xe9`),
  file(hello.path),
])
const fileWords = [
  glibc.path,
  hello.path,
  ' ',
  '\n',
  '/',
  '..',
  '%',
  '%20',
  '%41',
  '0444',
  '0',
  sha256Hex(''),
]

const signature = (n: number): string => `k${n}:${'A'.repeat(86)}==`
const narInfo = formatNarInfo({
  ...{ ...hello, references: [...hello.references] },
  signatures: [signature(1)],
  url: 'nar/x.nar.xz',
  compression: 'xz',
  fileSha256: sha256Hex(''),
  fileSize: 50_088,
})
const narInfoWith = (key: string, value: string): string =>
  narInfo.replace(new RegExp(`^${key}: .*$`, 'm'), `${key}: ${value}`)
const NAR_INFO_NEEDS = /^StorePath: .*\nURL: .*\n(.*\n)*NarHash: .*\nNarSize: .*\n/

const registrations = formatRegistrations([glibc, hello])
const cacheInfo = formatCacheInfo({ wantMassQuery: true, priority: 40 })

export const LINES: readonly Parser[] = [
  parser({
    name: 'parseManifest',
    samples: [bytes(manifest)],
    parse: parseManifest,
    print: (value) => [bytes(value.text)],
    codes: /^MANIFEST_(LINE|ORDER|REFERENCE|ROOT|LIMIT)$/,
    isWhole: (prefix) => prefix === line(glibc),
    words: [line(glibc), line(hello), storePathBase(glibc.path), ' ', '\n', '0', glibc.narHash],
    limits: [
      bounded(MANIFEST_MAX_BYTES, 'MANIFEST_LIMIT'),
      repeated('lines', '\n', 200_000, 'MANIFEST_LIMIT'),
    ],
  }),
  parser({
    name: 'parseFileList',
    samples: [bytes(files.text)],
    parse: parseFileList,
    print: (value) => [bytes(value.text), bytes(makeFileList(value.files).text)],
    codes: /^FILE_LIST_(LINE|ORDER|LIMIT)$/,
    isWhole: (prefix) => prefix === '' || prefix.endsWith('\n'),
    values: fc
      .uniqueArray(fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }))
      .map((names) => names.filter((name) => name.isWellFormed() && !/[/\0]|^\.\.?$/.test(name)))
      .map((names) => makeFileList(names.map((name) => file(`${glibc.path}/${name}`)))),
    words: fileWords,
    limits: [
      bounded(FILE_LIST_MAX_BYTES, 'FILE_LIST_LIMIT'),
      repeated('lines', '\n', 2_000_000, 'FILE_LIST_LIMIT'),
      counted(
        'bytes of path',
        4096,
        'FILE_LIST_LINE',
        (n) => makeFileList([file(`${glibc.path}/`.padEnd(n, 'x'))]).text,
      ),
    ],
  }),
  parser({
    name: 'parseNarInfo',
    samples: [bytes(narInfo)],
    parse: (raw) => parseNarInfo(raw),
    print: (info) => [bytes(formatNarInfo(info))],
    codes: /^NAR_INFO_(LINE|KEY|VALUE|LIMIT)$/,
    // Quirks are part of what is read, and not of what is printed.
    lenient: true,
    printsLess: true,
    isWhole: (prefix) => prefix.endsWith('\n') && NAR_INFO_NEEDS.test(prefix),
    values: fc
      .tuple(
        anyFacts,
        fc.record(
          {
            url: fc.stringMatching(/^nar\/[a-z0-9]{1,40}\.nar$/),
            compression: fc.constantFrom('none', 'xz', 'zstd', 'bzip2', 'br'),
            signatures: fc.array(fc.nat().map(signature), { maxLength: 3 }),
            fileSha256: fc.string().map(sha256Hex),
            fileSize: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
            ca: fc.constantFrom(hello.ca ?? '', `fixed:sha1:${'a'.repeat(32)}`),
          },
          { requiredKeys: ['url', 'compression', 'signatures'] },
        ),
      )
      .map(([facts, file]) => ({ ...facts, ...file, quirks: [] })),
    words: [...narInfo.split(/(?<=\n)/), 'System: x\n', 'Deriver: unknown-deriver\n', '\n', ': '],
    limits: [
      bounded(NAR_INFO_MAX_BYTES, 'NAR_INFO_LIMIT'),
      repeated('lines', '\n', 1100, 'NAR_INFO_LIMIT'),
      counted('bytes of value', 4096, 'NAR_INFO_LIMIT', (n) => `${narInfo}X: ${'x'.repeat(n)}\n`),
      counted('bytes of key', 64, 'NAR_INFO_LINE', (n) => `${narInfo}${'X'.repeat(n)}: x\n`),
      counted('bytes of URL', 1024, 'NAR_INFO_VALUE', (n) => narInfoWith('URL', 'x'.repeat(n))),
      counted('bytes of format', 16, 'NAR_INFO_VALUE', (n) =>
        narInfoWith('Compression', 'x'.repeat(n)),
      ),
      counted('signatures', 1000, 'NAR_INFO_LIMIT', (n) =>
        narInfoWith('Sig', numbers(n, signature).join('\nSig: ')),
      ),
      counted('references', 60_000, 'NAR_INFO_LIMIT', (n) =>
        narInfoWith('References', numbers(n, base).join(' ')),
      ),
    ],
  }),
  parser({
    name: 'parseCacheInfo',
    samples: [bytes(cacheInfo)],
    parse: parseCacheInfo,
    print: (info) => [bytes(formatCacheInfo(info))],
    codes: /^CACHE_INFO$/,
    lenient: true,
    mayNotNotice: true,
    // White space matters to nobody, and a number cut off is a number.
    isWhole: (prefix) =>
      /^StoreDir: \/nix\/store(\s*|\nWantMassQuery: 1(\s*|\nPriority: \d+\s*))$/.test(prefix),
    values: fc.record({ wantMassQuery: fc.boolean(), priority: fc.nat(999_999_999) }),
    words: [...cacheInfo.split(/(?<=\n)/), 'X:', ' ', ':', '\r', '\n'],
    limits: [
      counted('bytes', CACHE_INFO_MAX_BYTES, 'CACHE_INFO', (n) => cacheInfo.padEnd(n, ' ')),
      counted('digits of priority', 9, 'CACHE_INFO', (n) => cacheInfo.replace('40', '4'.repeat(n))),
    ],
  }),
  parser({
    name: 'parseRegistrations',
    samples: [bytes(registrations)],
    parse: parseRegistrations,
    print: (infos) => [bytes(formatRegistrations(infos))],
    codes: /^REGISTRATION_(LINE|LIMIT)$/,
    lenient: true, // hashes in any spelling, references in any order
    isWhole: (prefix) => prefix === '' || prefix === formatRegistrations([glibc]),
    values: factsLists,
    words: [...registrations.split(/(?<=\n)/), '\n', '9007199254740991\n', '0\n'],
    limits: [
      bounded(REGISTRATION_MAX_BYTES, 'REGISTRATION_LIMIT'),
      repeated('lines', '\n', 8_000_000, 'REGISTRATION_LIMIT'),
    ],
  }),
]
