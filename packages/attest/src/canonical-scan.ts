// Tells in one pass over the bytes whether JSON text is in canonical form (RFC 8785), without
// building the value: a policy with 100,000 roots is 30 MB, and writing it again to compare costs
// more than all the rest of loading it.
//
// What is checked here: no whitespace, the one escape that a character has, the one form that a
// number has, names strictly ascending (so none twice), and depth. What is not: the grammar. The
// caller parses the same text with JSON.parse, so whatever this pass lets through that is not JSON
// is refused there. Bytes are UTF-8 (checked before), in which no part of a longer sequence looks
// like a quote, a bracket or a digit.
import { AttestError } from './error.ts'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a
const MINUS = 0x2d
// " \ b f n r t
const SHORT_ESCAPES: ReadonlySet<number | undefined> = new Set(Buffer.from('"\\bfnrt'))

/** Whether `bytes`, if they are JSON at all, are canonical. @throws {AttestError} JSON_LIMIT */
export function scanCanonical(bytes: Uint8Array, maxDepth: number): boolean {
  const scan = new CanonicalScan(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  return scan.run(maxDepth)
}

class CanonicalScan {
  readonly #bytes: Buffer
  /** The name before this one, per open object: offsets of its quotes; -1 in arrays and before. */
  readonly #nameStarts: number[] = []
  readonly #nameEnds: number[] = []

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  run(maxDepth: number): boolean {
    const bytes = this.#bytes
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = bytes[at] as number
      if (byte === QUOTE) {
        const end = this.#stringEnd(at)
        if (end < 0) return false
        if (bytes[end + 1] === COLON && !this.#takeName(at, end)) return false
        at = end
      } else if (byte === 0x7b || byte === 0x5b) {
        if (this.#nameStarts.length >= maxDepth)
          throw new AttestError('JSON_LIMIT', `expected at most ${maxDepth} levels of nesting`)
        this.#nameStarts.push(-1)
        this.#nameEnds.push(-1)
      } else if (byte === 0x7d || byte === 0x5d) {
        this.#nameStarts.pop()
        this.#nameEnds.pop()
      } else if (byte === MINUS || (byte >= 0x30 && byte <= 0x39)) {
        const end = this.#numberEnd(at)
        if (end < 0) return false
        at = end
      } else if (byte <= 0x20) return false
    }
    return true
  }

  /** Offset of the closing quote, or -1. */
  #stringEnd(start: number): number {
    const bytes = this.#bytes
    for (let at = start + 1; at < bytes.length; at += 1) {
      const byte = bytes[at] as number
      if (byte === QUOTE) return at
      if (byte === BACKSLASH) {
        at = this.#escapeEnd(at)
        if (at < 0) return -1
      }
    }
    return -1
  }

  // Canonical escapes: \" \\ \b \f \n \r \t, and \u00xx in lower case for the other controls.
  #escapeEnd(start: number): number {
    const bytes = this.#bytes
    const escaped = bytes[start + 1]
    if (SHORT_ESCAPES.has(escaped)) return start + 1
    if (escaped !== 0x75) return -1
    const digits = bytes.toString('latin1', start + 2, start + 6)
    return /^00(?:0[0-7be-f]|1[0-9a-f])$/.test(digits) ? start + 5 : -1
  }

  /** Offset of the last character of a number, or -1 if that is not how the number is written. */
  #numberEnd(start: number): number {
    const bytes = this.#bytes
    let end = start
    while (end + 1 < bytes.length && isNumberByte(bytes[end + 1] as number)) end += 1
    const token = bytes.toString('latin1', start, end + 1)
    return String(Number(token)) === token ? end : -1
  }

  #takeName(start: number, end: number): boolean {
    const top = this.#nameStarts.length - 1
    const lastStart = this.#nameStarts[top] ?? -1
    const lastEnd = this.#nameEnds[top] ?? -1
    this.#nameStarts[top] = start
    this.#nameEnds[top] = end
    return lastStart < 0 || this.#ascends(lastStart + 1, lastEnd, start + 1, end)
  }

  // UTF-16 code units order like bytes of UTF-8 up to U+DFFF; above, and where characters are
  // escaped, the decoded names are compared.
  #ascends(aStart: number, aEnd: number, bStart: number, bEnd: number): boolean {
    const bytes = this.#bytes
    const length = Math.min(aEnd - aStart, bEnd - bStart)
    for (let i = 0; i < length; i += 1) {
      const a = bytes[aStart + i] as number
      const b = bytes[bStart + i] as number
      if (a === BACKSLASH || b === BACKSLASH || a >= 0xee || b >= 0xee)
        return this.#name(aStart, aEnd) < this.#name(bStart, bEnd)
      if (a !== b) return a < b
    }
    return aEnd - aStart < bEnd - bStart
  }

  // Only well-formed strings with canonical escapes get here, but a raw control may be in one: then
  // the text is no JSON, and the caller's parser says so.
  #name(start: number, end: number): string {
    try {
      return JSON.parse(this.#bytes.toString('utf8', start - 1, end + 1)) as string
    } catch {
      return ''
    }
  }
}

function isNumberByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    byte === MINUS ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45 ||
    byte === 0x65
  )
}
