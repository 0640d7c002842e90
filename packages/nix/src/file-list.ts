// The file list: one line per regular file of a closure, in byte order of the path.
//
//   line = path SP sha256 SP size SP mode LF
//
//   path    absolute; bytes outside 0x21..0x7e, and "%", as %XX (upper case), and only those
//   sha256  64 lower-case hexadecimal digits        size  decimal        mode  0444 or 0555
//
// With it a verifier can judge one mapped file without the rest of its store path. Lines are in the order
// of the bytes of the path, not of its escaped form. There is one text for a closure; parsing refuses
// every other spelling, because the text comes from attestations, that is, from anyone.
import { NixError, quote } from './error.ts'
import { decodeFileName, encodeFileName } from './file-name.ts'
import { parseSha256, sha256Hex } from './hash.ts'
import type { Sha256 } from './hash.ts'
import { lineError, parseDecimal, splitLines } from './lines.ts'
import { storePathOf } from './store-path.ts'

/** One regular file of a closure. */
export interface ListedFile {
  /** Absolute, as `decodeFileName` represents it: for names in UTF-8, what `node:fs` gives. */
  readonly path: string
  readonly sha256: Sha256
  /** In bytes. */
  readonly size: number
  readonly executable: boolean
}

/** The regular files of a closure. */
export interface FileList {
  /** In byte order of path. */
  readonly files: readonly ListedFile[]
  /** sha256 of {@link FileList.text}. */
  readonly digest: Sha256
  readonly text: string
  readonly byPath: ReadonlyMap<string, ListedFile>
}

/** Most bytes of a file list; a large system has about 40 MB. */
export const FILE_LIST_MAX_BYTES: number = 256 << 20
const MAX_FILES = 2_000_000
const MAX_PATH_BYTES = 4096

/**
 * Parses the one canonical text of a file list.
 *
 * @throws {NixError} FILE_LIST_LINE, FILE_LIST_ORDER, FILE_LIST_LIMIT
 */
export function parseFileList(bytes: Uint8Array): FileList {
  const { text, lines } = splitLines(bytes, 'FILE_LIST', FILE_LIST_MAX_BYTES, MAX_FILES)
  const files: ListedFile[] = []
  let previous: Buffer = Buffer.alloc(0)
  for (const [index, line] of lines.entries()) {
    const [file, raw] = parseLine(line, index)
    if (Buffer.compare(previous, raw) >= 0)
      throw lineError('FILE_LIST_ORDER', index, 'expected a path after the one before')
    previous = raw
    files.push(file)
  }
  return indexFiles(files, text)
}

/** The list of `files`, in any order; each at most once. */
export function makeFileList(files: readonly ListedFile[]): FileList {
  const sorted = files
    .map((file) => ({ file, raw: encodeFileName(file.path) }))
    .sort((a, b) => Buffer.compare(a.raw, b.raw))
  const lines = sorted.map(({ file, raw }) => {
    const mode = file.executable ? '0555' : '0444'
    return `${escapePath(raw)} ${file.sha256} ${file.size} ${mode}\n`
  })
  const ordered = sorted.map(({ file }) => file)
  return indexFiles(ordered, lines.join(''))
}

/** The files of `list` in the store path `path`, in byte order. */
export function filesOfStorePath(list: FileList, path: string): readonly ListedFile[] {
  const alone = list.byPath.get(path)
  if (alone !== undefined) return [alone]
  // The prefix is ASCII, so strings compare with it as their bytes do.
  const prefix = `${path}/`
  const start = lowerBound(list.files, prefix)
  let end = start
  while (list.files[end]?.path.startsWith(prefix) === true) end++
  return list.files.slice(start, end)
}

function lowerBound(files: readonly ListedFile[], path: string): number {
  let low = 0
  let high = files.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((files[middle] as ListedFile).path < path) low = middle + 1
    else high = middle
  }
  return low
}

function indexFiles(files: readonly ListedFile[], text: string): FileList {
  const byPath = new Map(files.map((file) => [file.path, file]))
  if (byPath.size !== files.length) throw new TypeError('each file is listed once')
  return { files, digest: sha256Hex(text), text, byPath }
}

function parseLine(line: string, index: number): [ListedFile, Buffer] {
  try {
    const [escaped = '', sha256 = '', size = '', mode = '', ...more] = line.split(' ')
    if (more.length > 0 || (mode !== '0444' && mode !== '0555'))
      throw new NixError('FILE_LIST_LINE', `expected mode 0444 or 0555, got ${quote(mode)}`)
    const raw = unescapePath(escaped)
    const path = decodeFileName(raw)
    if (raw.length > MAX_PATH_BYTES || storePathOf(path) === undefined)
      throw new NixError('FILE_LIST_LINE', `expected a file in the store, got ${quote(path)}`)
    const file: ListedFile = {
      path,
      sha256: parseSha256(sha256),
      size: parseDecimal(size, 'FILE_LIST_LINE'),
      executable: mode === '0555',
    }
    return [file, raw]
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw lineError('FILE_LIST_LINE', index, reason, cause)
  }
}

function escapePath(raw: Uint8Array): string {
  let text = ''
  for (const byte of raw)
    text +=
      byte >= 0x21 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  return text
}

function unescapePath(text: string): Buffer {
  if (!text.includes('%')) return Buffer.from(text, 'latin1')
  const plain = text.replace(/%([0-9A-F]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  )
  const raw = Buffer.from(plain, 'latin1')
  // Refuses a lone "%", lower-case digits and an escape that is not needed.
  if (escapePath(raw) !== text)
    throw new NixError('FILE_LIST_LINE', `expected canonical %XX escapes, got ${quote(text)}`)
  return raw
}
