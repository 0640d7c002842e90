// Canonical JSON (RFC 8785, JCS): one value, one text, so that a digest of the text is a digest of
// the value.
//
//   no whitespace; member names in order of their UTF-16 code units; strings and numbers exactly as
//   ECMAScript's JSON.stringify writes them; no NaN, no infinities, no lone surrogates.
//
// Reading is strict the same way: text that is not the canonical text of its value is refused, which
// rules out duplicate names, spacing, other orders, and other forms of a number at one stroke.
import { AttestError, quote } from './error.ts'
import { MAX_JSON_DEPTH, decodeJsonText, type JsonLimits } from './strict-json.ts'

/** Default limit of {@link parseCanonical}: a policy with 100,000 roots has 30 MB. */
export const MAX_CANONICAL_BYTES: number = 64 * 1024 * 1024

/** Deepest value {@link canonicalize} writes; it also ends the walk through a cyclic one. */
const MAX_WRITTEN_DEPTH = 512

/**
 * Returns the canonical JSON text of `value`.
 *
 * Only what JSON can hold is accepted: null, booleans, finite numbers, well-formed strings, dense
 * arrays, and plain objects with such members. `toJSON` is not called and nothing is left out.
 *
 * @throws {AttestError} JSON_VALUE – a value that JSON cannot hold, named by its place; JSON_LIMIT –
 *   more than 512 levels, or a cycle
 * @see RFC 8785 section 3.2
 */
export function canonicalize(value: unknown): string {
  return writeValue(value, '$', 0)
}

function writeValue(value: unknown, at: string, depth: number): string {
  switch (typeof value) {
    case 'string':
      return writeString(value, at)
    case 'number':
      if (!Number.isFinite(value)) throw unwritable('a finite number', String(value), at)
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      if (value === null) return 'null'
      if (depth >= MAX_WRITTEN_DEPTH)
        throw new AttestError(
          'JSON_LIMIT',
          `expected at most ${MAX_WRITTEN_DEPTH} levels of nesting`,
        )
      return Array.isArray(value)
        ? writeArray(value, at, depth + 1)
        : writeObject(value as Record<string, unknown>, at, depth + 1)
    case 'undefined':
    case 'bigint':
    case 'symbol':
    case 'function':
      throw unwritable('a JSON value', typeof value, at)
  }
}

function writeArray(array: readonly unknown[], at: string, depth: number): string {
  let text = '['
  for (let i = 0; i < array.length; i += 1) {
    if (i > 0) text += ','
    text += writeValue(array[i], `${at}[${i}]`, depth)
  }
  return `${text}]`
}

function writeObject(object: Record<string, unknown>, at: string, depth: number): string {
  const prototype: unknown = Object.getPrototypeOf(object)
  if (prototype !== Object.prototype && prototype !== null)
    throw unwritable('a plain object', Object.prototype.toString.call(object), at)
  if (Object.getOwnPropertySymbols(object).length > 0)
    throw unwritable('members with names', 'a symbol', at)
  let text = '{'
  // The default sort compares UTF-16 code units, which is the order RFC 8785 asks for.
  for (const name of Object.keys(object).toSorted()) {
    if (text.length > 1) text += ','
    text += `${writeString(name, at)}:${writeValue(object[name], `${at}.${name}`, depth)}`
  }
  return `${text}}`
}

function writeString(text: string, at: string): string {
  if (!text.isWellFormed()) throw unwritable('well-formed text', quote(text), at)
  return JSON.stringify(text)
}

function unwritable(expected: string, seen: string, at: string): AttestError {
  return new AttestError('JSON_VALUE', `expected ${expected} at ${quote(at)}, saw ${seen}`)
}

/**
 * Parses canonical JSON and nothing else: the text must be what {@link canonicalize} writes.
 *
 * @param limits default 64 MiB and 64 levels
 * @throws {AttestError} CANONICAL_JSON – JSON, but not in canonical form; JSON_SYNTAX, JSON_LIMIT,
 *   JSON_VALUE
 */
export function parseCanonical(text: string | Uint8Array, limits: JsonLimits = {}): unknown {
  const maxBytes = limits.maxBytes ?? MAX_CANONICAL_BYTES
  const decoded = decodeJsonText(typeof text === 'string' ? encode(text, maxBytes) : text, maxBytes)
  checkDepth(decoded, limits.maxDepth ?? MAX_JSON_DEPTH)
  const value = parseText(decoded)
  if (!isCanonical(value, decoded))
    throw new AttestError(
      'CANONICAL_JSON',
      'expected canonical JSON, saw another form of the value',
    )
  return value
}

// A lone surrogate in a string would be encoded as U+FFFD: refuse it here instead.
function encode(text: string, maxBytes: number): Uint8Array {
  if (text.length > maxBytes)
    throw new AttestError('JSON_LIMIT', `expected at most ${maxBytes} bytes, saw ${text.length}`)
  if (!text.isWellFormed())
    throw new AttestError('JSON_VALUE', 'expected well-formed text, saw a lone surrogate')
  return Buffer.from(text)
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    // The parser's own message quotes the text without a limit; ours stays short.
    throw new AttestError('JSON_SYNTAX', 'expected JSON, saw a syntax error', { cause })
  }
}

// Three fast passes in native code or flat loops instead of one slow one in ours: JSON.stringify
// gives back the very text if nothing but the order of names can still be wrong, and the walk checks
// that. It writes integer-like names first and lone surrogates as escapes, though: where either may
// be in play, the slow writer decides.
function isCanonical(value: unknown, text: string): boolean {
  if (JSON.stringify(value) === text && !text.includes('\\ud')) return namesAscend(value)
  return canonicalize(value) === text
}

function namesAscend(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(namesAscend)
  const object = value as Record<string, unknown>
  let last: string | undefined
  for (const name of Object.keys(object)) {
    if (last !== undefined && last >= name) return false
    if (!namesAscend(object[name])) return false
    last = name
  }
  return true
}

// Before JSON.parse, because a text of brackets only would cost many times its size in memory.
function checkDepth(text: string, maxDepth: number): void {
  let depth = 0
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i)
    if (unit === 0x22) {
      // Skip to the closing quote; a backslash hides the character after it.
      for (i += 1; i < text.length; i += 1) {
        const inside = text.charCodeAt(i)
        if (inside === 0x22) break
        if (inside === 0x5c) i += 1
      }
    } else if (unit === 0x7b || unit === 0x5b) {
      depth += 1
      if (depth > maxDepth)
        throw new AttestError('JSON_LIMIT', `expected at most ${maxDepth} levels of nesting`)
    } else if (unit === 0x7d || unit === 0x5d) depth -= 1
  }
}
