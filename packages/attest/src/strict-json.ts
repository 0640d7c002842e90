// JSON text of others, read so that no two readers can see two things in it.
//
//   RFC 8259 grammar, and in addition (RFC 7493, I-JSON): valid UTF-8 without a byte order mark, no
//   duplicate member names, no lone surrogates, no number that a double cannot hold (1e999, integers
//   beyond 2^53 - 1).
//
// `JSON.parse` takes the last of two equal names, other parsers the first: an envelope that one
// verifier reads as A and another as B is an attack, hence a parser of our own. Size is limited
// before decoding and nesting while descending, so that hostile text costs its own length at most.
import { AttestError, quote } from './error.ts'

export interface JsonLimits {
  /** Bytes of UTF-8 text. Default 4 MiB. */
  maxBytes?: number
  /** Arrays and objects inside one another. Default 64. */
  maxDepth?: number
}

export const MAX_JSON_BYTES: number = 4 * 1024 * 1024
export const MAX_JSON_DEPTH = 64

/** An object as JSON text can hold it. */
export type JsonObject = { readonly [name: string]: unknown }

/**
 * Parses JSON that need not be canonical.
 *
 * @throws {AttestError} JSON_LIMIT, JSON_SYNTAX (also: not UTF-8), JSON_DUPLICATE_KEY, JSON_VALUE
 * @see RFC 8259, RFC 7493
 */
export function parseStrictJson(bytes: Uint8Array, limits: JsonLimits = {}): unknown {
  const text = decodeJsonText(bytes, limits.maxBytes ?? MAX_JSON_BYTES)
  const parser = new Parser(text, limits.maxDepth ?? MAX_JSON_DEPTH)
  return parser.parseDocument()
}

/**
 * Decodes UTF-8 strictly after checking its size; a byte order mark stays in the text, where the
 * grammar refuses it.
 *
 * @throws {AttestError} JSON_LIMIT, JSON_SYNTAX
 */
export function decodeJsonText(bytes: Uint8Array, maxBytes: number): string {
  if (bytes.length > maxBytes)
    throw new AttestError(
      'JSON_LIMIT',
      `expected at most ${maxBytes} bytes of JSON, saw ${bytes.length}`,
    )
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new AttestError('JSON_SYNTAX', 'expected UTF-8 text, saw bytes that are not UTF-8', {
      cause,
    })
  }
}

const WHITESPACE = /[ \t\n\r]*/y
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
const CONTROL = /[\u0000-\u001f]/
const INTEGER = /^-?[0-9]+$/

class Parser {
  readonly #text: string
  readonly #maxDepth: number
  #at = 0

  constructor(text: string, maxDepth: number) {
    this.#text = text
    this.#maxDepth = maxDepth
  }

  parseDocument(): unknown {
    this.#skipWhitespace()
    const value = this.#parseValue(1)
    this.#skipWhitespace()
    if (this.#at !== this.#text.length) throw this.#unexpected('the end of the text')
    return value
  }

  #parseValue(depth: number): unknown {
    const first = this.#text[this.#at]
    if (first === '{') return this.#parseObject(this.#deeper(depth))
    if (first === '[') return this.#parseArray(this.#deeper(depth))
    if (first === '"') return this.#parseString()
    if (this.#take('true')) return true
    if (this.#take('false')) return false
    if (this.#take('null')) return null
    return this.#parseNumber()
  }

  #deeper(depth: number): number {
    if (depth <= this.#maxDepth) return depth + 1
    throw new AttestError('JSON_LIMIT', `expected at most ${this.#maxDepth} levels of nesting`)
  }

  #parseObject(depth: number): JsonObject {
    const object: Record<string, unknown> = {}
    this.#at += 1
    this.#skipWhitespace()
    if (this.#take('}')) return object
    for (;;) {
      const name = this.#parseString()
      if (Object.hasOwn(object, name))
        throw new AttestError(
          'JSON_DUPLICATE_KEY',
          `expected distinct names, saw ${quote(name)} twice`,
        )
      this.#skipWhitespace()
      this.#expect(':')
      this.#skipWhitespace()
      // Not an assignment: a member called "__proto__" must become a member, not the prototype.
      Object.defineProperty(object, name, {
        value: this.#parseValue(depth),
        enumerable: true,
        configurable: true,
        writable: true,
      })
      this.#skipWhitespace()
      if (this.#take('}')) return object
      this.#expect(',')
      this.#skipWhitespace()
    }
  }

  #parseArray(depth: number): unknown[] {
    const array: unknown[] = []
    this.#at += 1
    this.#skipWhitespace()
    if (this.#take(']')) return array
    for (;;) {
      array.push(this.#parseValue(depth))
      this.#skipWhitespace()
      if (this.#take(']')) return array
      this.#expect(',')
      this.#skipWhitespace()
    }
  }

  #parseString(): string {
    const start = this.#at
    if (this.#text[start] !== '"') throw this.#unexpected('a string')
    const end = closingQuote(this.#text, start)
    if (end < 0) throw this.#unexpected('a string with its closing quote')
    const token = this.#text.slice(start, end + 1)
    this.#at = end + 1
    const value = decodeString(token)
    if (value === undefined)
      throw new AttestError('JSON_SYNTAX', `expected a JSON string, saw ${quote(token)}`)
    if (value.isWellFormed()) return value
    throw new AttestError(
      'JSON_VALUE',
      `expected Unicode text, saw a lone surrogate in ${quote(value)}`,
    )
  }

  #parseNumber(): number {
    const token = this.#match(NUMBER)
    if (token === undefined) throw this.#unexpected('a value')
    const value = Number(token)
    if (Number.isFinite(value) && (!INTEGER.test(token) || Number.isSafeInteger(value)))
      return value
    throw new AttestError('JSON_VALUE', `expected a number a double holds, saw ${quote(token)}`)
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const token = pattern.exec(this.#text)?.[0]
    if (token !== undefined) this.#at += token.length
    return token
  }

  #take(token: string): boolean {
    if (!this.#text.startsWith(token, this.#at)) return false
    this.#at += token.length
    return true
  }

  #expect(token: string): void {
    if (!this.#take(token)) throw this.#unexpected(JSON.stringify(token))
  }

  #skipWhitespace(): void {
    this.#match(WHITESPACE)
  }

  #unexpected(expected: string): AttestError {
    const rest = this.#text.slice(this.#at, this.#at + 20)
    const seen = rest === '' ? 'the end of the text' : quote(rest)
    return new AttestError(
      'JSON_SYNTAX',
      `expected ${expected} at character ${this.#at}, saw ${seen}`,
    )
  }
}

/**
 * Offset of the quote that closes the string opened at `start`, or -1. A loop and no regular
 * expression: those keep a stack whose depth follows the length of the text.
 */
function closingQuote(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const unit = text.charCodeAt(at)
    if (unit === 0x22) return at
    if (unit === 0x5c) at += 1
  }
  return -1
}

// The native parser resolves the escapes, and refuses those that are none and raw controls.
function decodeString(token: string): string | undefined {
  if (!token.includes('\\')) return CONTROL.test(token) ? undefined : token.slice(1, -1)
  try {
    return JSON.parse(token) as string
  } catch {
    // The caller says what was expected.
    return undefined
  }
}
