// The parsers of names, hashes, keys and signatures: short texts with one spelling, or a few.
import { createPrivateKey, createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import {
  bootedToplevel,
  decodeByteString,
  decodeFileName,
  decodeNix32,
  dynamicPlaceholder,
  encodeFileName,
  encodeNix32,
  formatContentAddress,
  formatHash,
  formatHashDigits,
  formatMethodAndAlgorithm,
  guessPackageName,
  HASH_ALGORITHMS,
  hashLength,
  narHashDigest,
  narHashFromDigest,
  ownOutputPlaceholder,
  parseCachePublicKey,
  parseCacheSecretKey,
  parseCacheSignature,
  parseContentAddress,
  parseDrvName,
  parseHash,
  parseHashAlgorithm,
  parseHashDigits,
  parseMethodAndAlgorithm,
  parseNarHash,
  parseSha256,
  parseStorePath,
  parseStorePathBase,
  storePathBase,
  storePathOf,
} from '@bagcheck/nix'
import type { IngestionMethod, StorePath } from '@bagcheck/nix'
import { glibc } from '../path-info/facts.ts'
import { bytes, counted, parser, word } from './parser.ts'
import type { Limit, Parser } from './parser.ts'

// Its base16 is no nix32, so that no spelling is the start of another.
const digest = (length: number): Uint8Array => new Uint8Array(length).fill(0xee)
const base64 = (raw: Uint8Array): string => Buffer.from(raw).toString('base64')
const nix32 = encodeNix32(digest(32))
const hex = Buffer.from(digest(32)).toString('hex')
const digests = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length })
const ENCODINGS = ['base16', 'nix32', 'base64', 'sri'] as const
const never = /^$/

/** A cut name is a shorter name. */
const isShorterName = (prefix: string): boolean => /-[^/]+$/.test(prefix)
const names = (prefix: string): Limit =>
  counted('characters of name', 211, 'STORE_PATH', (n) => prefix + 'x'.repeat(n))
const keyNames = (digits: string, code: string): Limit =>
  counted('characters of name', 256, code, (n) => `${'k'.repeat(n)}:${digits}`)

const seed = Buffer.alloc(32, 1) // TEST
const secretDer = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
const point = createPublicKey(createPrivateKey({ key: secretDer, format: 'der', type: 'pkcs8' }))
  .export({ format: 'der', type: 'spki' })
  .subarray(-32)
const secretDigits = base64(Buffer.concat([seed, point]))

export const WORDS: readonly Parser[] = [
  word('parseStorePath', [glibc.path], parseStorePath, (path) => path, {
    codes: /^STORE_PATH$/,
    isWhole: isShorterName,
    limits: [names(glibc.path.replace('glibc-2.36', ''))],
  }),
  word('parseStorePathBase', [storePathBase(glibc.path)], parseStorePathBase, storePathBase, {
    codes: /^STORE_PATH$/,
    isWhole: isShorterName,
    limits: [names(storePathBase(glibc.path).slice(0, 33))],
  }),
  word('decodeNix32', [nix32], (one) => decodeNix32(one, 32), encodeNix32, {
    codes: /^NIX32$/,
    values: digests(32),
  }),
  word('parseSha256', [hex], parseSha256, (one) => one, { codes: /^HASH$/ }),
  word('parseHashAlgorithm', HASH_ALGORITHMS, parseHashAlgorithm, (one) => one, {
    codes: /^HASH$/,
  }),
  word(
    'parseHash',
    HASH_ALGORITHMS.flatMap((algorithm) =>
      ENCODINGS.map((one) => formatHash({ algorithm, digest: digest(hashLength(algorithm)) }, one)),
    ),
    parseHash,
    (hash) => ENCODINGS.map((one) => formatHash(hash, one)),
    {
      codes: /^HASH$/,
      values: fc
        .constantFrom(...HASH_ALGORITHMS)
        .chain((algorithm) =>
          digests(hashLength(algorithm)).map((one) => ({ algorithm, digest: one })),
        ),
    },
  ),
  ...HASH_ALGORITHMS.map((algorithm) =>
    word(
      'parseHashDigits',
      ENCODINGS.map((one) => formatHashDigits(digest(hashLength(algorithm)), one)),
      (digits) => parseHashDigits(algorithm, digits),
      (one) => ENCODINGS.map((encoding) => formatHashDigits(one, encoding)),
      { form: algorithm, codes: /^HASH$/, values: digests(hashLength(algorithm)) },
    ),
  ),
  word(
    'parseNarHash',
    [hex, ...ENCODINGS.map((one) => formatHash({ algorithm: 'sha256', digest: digest(32) }, one))],
    parseNarHash,
    (one) => {
      const hash = { algorithm: 'sha256', digest: narHashDigest(one) } as const
      const spelled = ENCODINGS.map((encoding) => formatHash(hash, encoding))
      return [one, ...spelled, formatHashDigits(hash.digest, 'base16')]
    },
    { codes: /^HASH$/, values: digests(32).map(narHashFromDigest) },
  ),
  word(
    'parseMethodAndAlgorithm',
    ['sha512', 'r:sha256', 'git:sha1', 'text:sha256'],
    parseMethodAndAlgorithm,
    ({ method, algorithm }) => formatMethodAndAlgorithm(method, algorithm),
    {
      codes: /^(HASH|CONTENT_ADDRESS)$/,
      words: ['r:', 'git:', 'text:', 'md5', 'sha1', 'sha256', ':'],
    },
  ),
  word(
    'parseContentAddress',
    ['fixed:r:', 'fixed:', 'fixed:git:', 'text:'].map((head) => `${head}sha256:${nix32}`),
    parseContentAddress,
    formatContentAddress,
    {
      codes: /^(HASH|CONTENT_ADDRESS)$/,
      values: fc.constantFrom(...HASH_ALGORITHMS).chain((algorithm) =>
        fc.record({
          method: fc.constantFrom<IngestionMethod>(
            'flat',
            'nar',
            ...(algorithm === 'sha256' ? (['text', 'git'] as const) : []),
            ...(algorithm === 'sha1' ? (['git'] as const) : []),
          ),
          hash: fc.record({
            algorithm: fc.constant(algorithm),
            digest: digests(hashLength(algorithm)),
          }),
        }),
      ),
      words: ['fixed:', 'r:', 'git:', 'text:', 'sha256:', 'sha1:', nix32],
    },
  ),
  word(
    'dynamicPlaceholder',
    [ownOutputPlaceholder('out')],
    (one) => dynamicPlaceholder(one, 'out'),
    () => [],
    { codes: /^NIX32$/, lenient: true },
  ),
  word(
    'parseCachePublicKey',
    [`cache-1:${base64(digest(32))}`],
    (one) => {
      const { name, bytes: key } = parseCachePublicKey(one)
      return { name, key }
    },
    ({ name, key }) => `${name}:${base64(key)}`,
    { codes: /^SIGNATURE_KEY$/, limits: [keyNames(base64(digest(32)), 'SIGNATURE_KEY')] },
  ),
  word(
    'parseCacheSecretKey',
    [`cache-1:${secretDigits}`, `cache-1:${secretDigits}\n`],
    (one) => {
      const { name, key, publicKey } = parseCacheSecretKey(one)
      const secret = key.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
      return { name, digits: base64(Buffer.concat([secret, publicKey.bytes])) }
    },
    ({ name, digits }) => [`${name}:${digits}`, `${name}:${digits}\n`],
    {
      codes: /^SIGNATURE_KEY$/,
      isWhole: (prefix) => prefix.endsWith(secretDigits),
      limits: [keyNames(secretDigits, 'SIGNATURE_KEY')],
    },
  ),
  word(
    'parseCacheSignature',
    [`cache-1:${base64(digest(64))}`],
    parseCacheSignature,
    ({ name, bytes: signature }) => `${name}:${base64(signature)}`,
    { codes: /^SIGNATURE_FORMAT$/, limits: [keyNames(base64(digest(64)), 'SIGNATURE_FORMAT')] },
  ),

  // These take everything: what they do not understand they say nothing about.
  taking('storePathOf', `${glibc.path}/lib/libc.so.6`, storePathOf, (path) => path ?? []),
  taking('bootedToplevel', `quiet init=${glibc.path}/init`, bootedToplevel, (path) =>
    path === undefined ? [] : `init=${path}/init`,
  ),
  taking('parseDrvName', 'hello-2.12', parseDrvName, ({ name, version }) =>
    version === '' ? name : `${name}-${version}`,
  ),
  taking(
    'guessPackageName',
    glibc.path,
    (path) => guessPackageName(path as StorePath),
    () => [],
  ),
  taking('decodeByteString', 'Gr\xc3\xb6\xdfe', decodeByteString, () => []),
  parser<string>({
    name: 'decodeFileName',
    samples: [bytes('caf\xc3\xa9/\xff\xed\xb2\x80')],
    parse: decodeFileName,
    print: (name) => [encodeFileName(name)],
    codes: never,
    isWhole: () => true,
    values: fc.uint8Array().map((raw) => decodeFileName(raw)),
    words: ['/', '\xc3', '\xa9', '\xed', '\xb2', '\x80', '\xf0\x9f\x92\x8e', 'a'],
  }),
]

function taking<T>(
  name: string,
  sample: string,
  parse: (text: string) => T,
  print: (value: T) => string | readonly string[],
): Parser {
  return word<T>(name, [sample], parse, print, {
    codes: never,
    isWhole: () => true,
    lenient: true,
    mayNotNotice: true,
    words: ['/nix/store/', glibc.path, '/', '..', '\0', '"', ' ', '-', '--', '1', 'init=', '\xe9'],
  })
}
