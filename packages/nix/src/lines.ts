// What the line formats of this package (closure manifest, file list, narinfo, registrations) share.
import { NixError, quote } from './error.ts'
import type { NixErrorCode } from './error.ts'

/**
 * The lines of a canonical text: printable ASCII, every line ended by LF. An empty
 * line is for the format to judge.
 *
 * @throws {NixError} `<format>_LIMIT`, checked before anything is allocated, or `<format>_LINE`
 */
export function splitLines(
  bytes: Uint8Array,
  format: 'MANIFEST' | 'FILE_LIST' | 'NAR_INFO' | 'REGISTRATION',
  maxBytes: number,
  maxLines: number,
): { readonly text: string; readonly lines: string[] } {
  if (bytes.length > maxBytes)
    throw new NixError(`${format}_LIMIT`, `expected at most ${maxBytes} bytes, got ${bytes.length}`)
  let count = 0
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number // in range by the loop
    if (byte === 0x0a) count++
    else if (byte < 0x20 || byte > 0x7e)
      throw new NixError(`${format}_LINE`, `expected printable ASCII, got byte ${byte}`, {
        detail: { line: count + 1 },
      })
  }
  if (count > maxLines)
    throw new NixError(`${format}_LIMIT`, `expected at most ${maxLines} lines, got ${count}`)
  if (bytes.length > 0 && bytes.at(-1) !== 0x0a)
    throw new NixError(`${format}_LINE`, 'expected a line feed at the end', {
      detail: { line: count + 1 },
    })
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  return { text, lines: text === '' ? [] : text.slice(0, -1).split('\n') }
}

/**
 * A decimal number from 0 to 2^53 - 1 without sign or leading zero.
 *
 * @throws {NixError} `code`
 */
export function parseDecimal(text: string, code: NixErrorCode): number {
  const value = /^(?:0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value))
    throw new NixError(code, `expected a decimal number, got ${quote(text)}`)
  return value
}

/** What is wrong with the line at `index`, which people count from 1. */
export function lineError(
  code: NixErrorCode,
  index: number,
  reason: string,
  cause?: unknown,
): NixError {
  const detail = { line: index + 1 }
  return new NixError(code, `line ${index + 1}: ${reason}`, { cause, detail })
}
