// narinfo: the facts of a binary cache about one store path, `<hash>.narinfo`.
//
//   StorePath: /nix/store/…            once, required
//   URL: nar/….nar.xz                  once, required; relative to the cache
//   Compression: xz                    once; absent or empty means bzip2, a habit of 2012
//   FileHash: sha256:<nix32>           once; of the compressed file
//   FileSize: 12345                    once
//   NarHash: sha256:<nix32>            once, required
//   NarSize: 67890                     once, required, above 0
//   References: base base …            once; base names in byte order, may be empty
//   Deriver: base.drv                  once
//   Sig: name:base64                   any number
//   CA: fixed:r:sha256:<nix32>         once
//
// Lines are `key: value` LF. The sender is hostile, or a proxy between. Every Nix up to 2.34 takes a key
// that stands twice, and the last value counts; two readers that differ about one text are a way to show
// one closure and run another, so that is refused, as are CR, other control bytes and a last line without
// LF. What other producers are known to do differently is taken and named in `quirks`.
// https://github.com/NixOS/nix/blob/master/src/libstore/nar-info.cc
import { formatContentAddress, parseContentAddress } from './content-address.ts'
import { NixError, quote } from './error.ts'
import { narHashDigest, parseNarHash, parseSha256 } from './hash.ts'
import type { NarHash, Sha256 } from './hash.ts'
import { parseDecimal, splitLines } from './lines.ts'
import type { PathInfo } from './manifest.ts'
import { encodeNix32 } from './nix32.ts'
import { parseCacheSignature } from './signature.ts'
import {
  byteOrder,
  parseStorePath,
  parseStorePathBase,
  storePathBase,
  storePathHash,
} from './store-path.ts'
import type { StorePath } from './store-path.ts'

/** What a binary cache says about a store path, and where its archive lies. */
export interface NarInfo extends PathInfo {
  /** Where the archive lies, relative to the cache. Never absolute, and without `..`. */
  readonly url: string
  /** The format of the file, such as `none`, `xz` or `zstd`. */
  readonly compression: string
  /** The sha256 of the compressed file. */
  readonly fileSha256?: Sha256
  /** Size of the compressed file in bytes. */
  readonly fileSize?: number
  readonly signatures: readonly string[]
}

/** How a narinfo may differ from what Nix writes and still be read. */
export const NAR_INFO_QUIRKS = [
  /** Keys in another order (old Hydra, attic). */
  'key-order',
  /** Keys that are not used here: `System`, `Provenance` (Determinate), or unknown. */
  'unknown-key',
  /** `Compression` absent or empty, which means bzip2. */
  'no-compression',
  /** `References` absent, which means none (harmonia). */
  'no-references',
  /** References that are not sorted. */
  'reference-order',
  /** A hash in base16, base64 or SRI (nix-serve, harmonia). */
  'hash-encoding',
  /** `Deriver: unknown-deriver` (Nix before 2.4), which means none. */
  'unknown-deriver',
] as const

/** One of {@link NAR_INFO_QUIRKS}. */
export type NarInfoQuirk = (typeof NAR_INFO_QUIRKS)[number]

/** A narinfo that was read. */
export interface ParsedNarInfo extends NarInfo {
  /** Empty exactly when {@link formatNarInfo} gives the same text again. */
  readonly quirks: readonly NarInfoQuirk[]
}

/** Most bytes of a narinfo: one with 60,000 references. */
export const NAR_INFO_MAX_BYTES: number = 4 << 20
const MAX_LINES = 1100
const MAX_REFERENCES = 60_000
const MAX_SIGNATURES = 1000
const MAX_VALUE = 4096

const KEYS = [
  'StorePath',
  'URL',
  'Compression',
  'FileHash',
  'FileSize',
  'NarHash',
  'NarSize',
  'References',
  'Deriver',
  'Sig',
  'CA',
] as const
const LINE = /^([A-Za-z][A-Za-z0-9-]{0,63}): (.*)$/
const URL_PATH = /^(?!\/)[!-~]{1,1024}$/
const COMPRESSION = /^[a-z0-9-]{1,16}$/

/**
 * Parses a narinfo.
 *
 * @param options.path The path that was asked for: the answer must be about it.
 * @param options.hashPart The same where only the 32 characters of the file's name are known.
 * @throws {NixError} NAR_INFO_LINE – not lines of printable ASCII, each ended by LF; NAR_INFO_KEY – a key
 * twice, or a required one missing; NAR_INFO_VALUE – a value that is not what its key demands;
 * NAR_INFO_PATH – about another path than was asked for; NAR_INFO_LIMIT
 */
export function parseNarInfo(
  bytes: Uint8Array,
  options: { readonly path?: StorePath; readonly hashPart?: string } = {},
): ParsedNarInfo {
  const { lines } = splitLines(bytes, 'NAR_INFO', NAR_INFO_MAX_BYTES, MAX_LINES)
  const values = new Map<string, string>()
  const signatures: string[] = []
  for (const [index, line] of lines.entries()) {
    const [, key = '', value = ''] = LINE.exec(line) ?? []
    if (key === '')
      throw new NixError('NAR_INFO_LINE', `expected "<key>: <value>", got ${quote(line)}`, {
        detail: { line: index + 1 },
      })
    if (key !== 'References' && value.length > MAX_VALUE)
      throw new NixError('NAR_INFO_LIMIT', `expected ${key} of at most ${MAX_VALUE} bytes`)
    if (key === 'Sig') signatures.push(value)
    else if (values.has(key)) throw new NixError('NAR_INFO_KEY', `expected ${quote(key)} once`)
    else values.set(key, value)
  }
  if (signatures.length > MAX_SIGNATURES)
    throw new NixError('NAR_INFO_LIMIT', `expected at most ${MAX_SIGNATURES} signatures`)

  const info = readValues(values, signatures)
  const asked = options.path ?? options.hashPart
  if (asked !== undefined && asked !== info.path && asked !== storePathHash(info.path))
    throw new NixError('NAR_INFO_PATH', `expected ${quote(asked)}, got ${quote(info.path)}`, {
      detail: { path: info.path },
    })
  return { ...info, quirks: findQuirks(lines, values, info) }
}

/**
 * The text that Nix writes for `info`. It is read back, because a signature or URL from elsewhere may say
 * other facts in further lines.
 *
 * @throws {NixError} as {@link parseNarInfo}, where `info` holds something that no narinfo can.
 */
export function formatNarInfo(info: NarInfo): string {
  const lines: [(typeof KEYS)[number], string][] = [
    ['StorePath', info.path],
    ['URL', info.url],
    ['Compression', info.compression],
  ]
  if (info.fileSha256 !== undefined)
    lines.push(['FileHash', formatHash(Buffer.from(info.fileSha256, 'hex'))])
  if (info.fileSize !== undefined) lines.push(['FileSize', String(info.fileSize)])
  lines.push(
    ['NarHash', formatHash(narHashDigest(info.narHash))],
    ['NarSize', String(info.narSize)],
    ['References', [...info.references].sort(byteOrder).map(storePathBase).join(' ')],
  )
  if (info.deriver !== undefined) lines.push(['Deriver', storePathBase(info.deriver)])
  for (const signature of info.signatures) lines.push(['Sig', signature])
  if (info.ca !== undefined) lines.push(['CA', info.ca])
  const broken = lines.find(([, value]) => value.includes('\n'))
  if (broken !== undefined)
    throw new NixError(
      'NAR_INFO_LINE',
      `expected ${broken[0]} in one line, got ${quote(broken[1])}`,
    )
  const text = lines.map(([key, value]) => `${key}: ${value}\n`).join('')
  parseNarInfo(Buffer.from(text), { path: info.path })
  return text
}

function readValues(values: ReadonlyMap<string, string>, signatures: readonly string[]): NarInfo {
  const required = (key: (typeof KEYS)[number]): string => {
    const value = values.get(key)
    if (value === undefined) throw new NixError('NAR_INFO_KEY', `expected the key ${quote(key)}`)
    return read(key, value, (text) => text)
  }
  const optional = <T>(key: (typeof KEYS)[number], parse: (text: string) => T): T | undefined => {
    const value = values.get(key)
    return value === undefined ? undefined : read(key, value, parse)
  }
  const fileHash = optional('FileHash', parseNarHash)
  const fileSize = optional('FileSize', parseSize)
  const deriver = optional('Deriver', parseDeriver)
  const ca = optional('CA', (text) => formatContentAddress(parseContentAddress(text)))
  return {
    path: read('StorePath', required('StorePath'), parseStorePath),
    url: read('URL', required('URL'), parseUrl),
    compression:
      optional('Compression', (text) => match(text || 'bzip2', COMPRESSION, 'a format')) ?? 'bzip2',
    ...(fileHash !== undefined && { fileSha256: hexOf(fileHash) }),
    ...(fileSize !== undefined && { fileSize }),
    narHash: read('NarHash', required('NarHash'), parseNarHash),
    narSize: read('NarSize', required('NarSize'), parseSize),
    references: optional('References', parseReferences) ?? [],
    ...(deriver !== undefined && { deriver }),
    signatures: signatures.map((text) =>
      read('Sig', text, () => {
        parseCacheSignature(text)
        return text
      }),
    ),
    ...(ca !== undefined && { ca }),
  }
}

/** Runs a parser and says which key it was about. */
function read<T>(key: (typeof KEYS)[number], value: string, parse: (text: string) => T): T {
  try {
    return parse(value)
  } catch (cause) {
    if (cause instanceof NixError && cause.code === 'NAR_INFO_LIMIT') throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('NAR_INFO_VALUE', `${key}: ${reason}`, { cause, detail: { key } })
  }
}

function parseReferences(text: string): StorePath[] {
  const bases = text === '' ? [] : text.split(' ')
  if (bases.length > MAX_REFERENCES)
    throw new NixError('NAR_INFO_LIMIT', `expected at most ${MAX_REFERENCES} references`)
  const references = bases.map(parseStorePathBase).sort(byteOrder)
  const twice = references.find((reference, index) => reference === references[index - 1])
  if (twice !== undefined)
    throw new NixError('NAR_INFO_VALUE', `expected each reference once, got ${quote(twice)} twice`)
  return references
}

function parseSize(text: string): number {
  const size = parseDecimal(text, 'NAR_INFO_VALUE')
  if (size > 0) return size
  throw new NixError('NAR_INFO_VALUE', 'expected a size above 0')
}

function parseDeriver(text: string): StorePath | undefined {
  return text === 'unknown-deriver' ? undefined : parseStorePathBase(text)
}

/** A place within the cache: relative, and without a way out. @throws {NixError} NAR_INFO_VALUE */
export function parseUrl(text: string): string {
  const path = match(text, URL_PATH, 'a relative path')
  const climbs = path
    .split('?')[0]
    ?.split('/')
    .some((part) => part === '.' || part === '..')
  if (!climbs && !path.includes(':') && !path.includes('\\') && !/%2e|%2f|%5c/i.test(path))
    return path
  throw new NixError('NAR_INFO_VALUE', `expected a place within the cache, got ${quote(text)}`)
}

function match(text: string, pattern: RegExp, what: string): string {
  if (pattern.test(text)) return text
  throw new NixError('NAR_INFO_VALUE', `expected ${what}, got ${quote(text)}`)
}

function hexOf(hash: NarHash): Sha256 {
  return parseSha256(Buffer.from(narHashDigest(hash)).toString('hex'))
}

function formatHash(digest: Uint8Array): string {
  return `sha256:${encodeNix32(digest)}`
}

function findQuirks(
  lines: readonly string[],
  values: ReadonlyMap<string, string>,
  info: NarInfo,
): NarInfoQuirk[] {
  const order = lines.map((line) => KEYS.findIndex((key) => line.startsWith(`${key}:`)))
  const known = order.filter((index) => index >= 0)
  const canonicalHash = (key: 'NarHash' | 'FileHash'): boolean =>
    values.get(key) === undefined || /^sha256:.{52}$/.test(values.get(key) ?? '')
  const bases = info.references.map(storePathBase).join(' ')
  const found: Record<NarInfoQuirk, boolean> = {
    'key-order': known.some((index, at) => index < (known[at - 1] ?? 0)),
    'unknown-key': known.length < order.length,
    'no-compression': !values.get('Compression'),
    'no-references': !values.has('References'),
    'reference-order': values.has('References') && values.get('References') !== bases,
    'hash-encoding': !canonicalHash('NarHash') || !canonicalHash('FileHash'),
    'unknown-deriver': values.get('Deriver') === 'unknown-deriver',
  }
  return NAR_INFO_QUIRKS.filter((quirk) => found[quirk])
}
