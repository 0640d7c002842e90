// Canonical JSON (RFC 8785, JCS): one value, one text, so that a digest of the text is a digest of
// the value.
//
//   no whitespace; member names in order of their UTF-16 code units; strings and numbers exactly as
//   ECMAScript's JSON.stringify writes them; no NaN, no infinities, no lone surrogates.
//
// Reading is strict the same way: text that is not the canonical text of its value is refused, which
// rules out duplicate names, spacing, other orders, and other forms of a number at one stroke.
import { scanCanonical } from './canonical-scan.ts'
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
  return writeValue(value, ['$'])
}

// `path` is the place of the value, kept as a stack so that only a message pays for its text.
function writeValue(value: unknown, path: string[]): string {
  switch (typeof value) {
    case 'string':
      return writeString(value, path)
    case 'number':
      if (!Number.isFinite(value)) throw unwritable('a finite number', String(value), path)
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      if (value === null) return 'null'
      if (path.length > MAX_WRITTEN_DEPTH)
        throw new AttestError(
          'JSON_LIMIT',
          `expected at most ${MAX_WRITTEN_DEPTH} levels of nesting`,
        )
      return Array.isArray(value)
        ? writeArray(value, path)
        : writeObject(value as Record<string, unknown>, path)
    case 'undefined':
    case 'bigint':
    case 'symbol':
    case 'function':
      throw unwritable('a JSON value', typeof value, path)
  }
}

function writeArray(array: readonly unknown[], path: string[]): string {
  let text = '['
  path.push('[]')
  for (let i = 0; i < array.length; i += 1) {
    if (i > 0) text += ','
    text += writeValue(array[i], path)
  }
  path.pop()
  return `${text}]`
}

function writeObject(object: Record<string, unknown>, path: string[]): string {
  const prototype: unknown = Object.getPrototypeOf(object)
  if (prototype !== Object.prototype && prototype !== null)
    throw unwritable('a plain object', Object.prototype.toString.call(object), path)
  if (Object.getOwnPropertySymbols(object).length > 0)
    throw unwritable('members with names', 'a symbol', path)
  let text = '{'
  // The default sort compares UTF-16 code units, which is the order RFC 8785 asks for.
  for (const name of Object.keys(object).toSorted()) {
    if (text.length > 1) text += ','
    path.push(name)
    text += `${writeString(name, path)}:${writeValue(object[name], path)}`
    path.pop()
  }
  return `${text}}`
}

function writeString(text: string, path: string[]): string {
  if (!text.isWellFormed()) throw unwritable('well-formed text', quote(text), path)
  return JSON.stringify(text)
}

function unwritable(expected: string, seen: string, path: string[]): AttestError {
  return new AttestError(
    'JSON_VALUE',
    `expected ${expected} at ${quote(path.join('.'))}, saw ${seen}`,
  )
}

/**
 * Parses canonical JSON and nothing else: the text must be what {@link canonicalize} writes.
 *
 * @param limits default 64 MiB and 64 levels
 * @throws {AttestError} CANONICAL_JSON – JSON, but not in canonical form; JSON_SYNTAX, JSON_LIMIT,
 *   JSON_VALUE – a string argument with a lone surrogate
 */
export function parseCanonical(text: string | Uint8Array, limits: JsonLimits = {}): unknown {
  const maxBytes = limits.maxBytes ?? MAX_CANONICAL_BYTES
  const bytes = typeof text === 'string' ? encode(text, maxBytes) : text
  const decoded = decodeJsonText(bytes, maxBytes)
  // Before JSON.parse, because text of brackets only would cost many times its size in memory.
  const canonical = scanCanonical(bytes, limits.maxDepth ?? MAX_JSON_DEPTH)
  let value: unknown
  try {
    value = JSON.parse(decoded)
  } catch (cause) {
    // The parser's own message quotes the text; ours stays short.
    throw new AttestError('JSON_SYNTAX', 'expected JSON, saw a syntax error', { cause })
  }
  if (!canonical)
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
