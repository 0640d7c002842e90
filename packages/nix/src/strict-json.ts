// JSON documents of Nix and NixOS (flake.lock, boot.json), read so that no two readers can see two
// things in one text: valid UTF-8 without a byte order mark, no duplicate member names, no lone
// surrogates, no integer beyond 2^53 - 1 (64 bits where the caller keeps its text), bounded size and nesting. `JSON.parse` checks the grammar; a scan of
// the tokens adds what it leaves out. (Reading "nodes" twice, Nix takes the last one.)
import { NixError, quote } from './error.ts'

/** An object as JSON text can hold it. */
export type JsonObject = Readonly<Record<string, unknown>>

/** How many levels are read, unless the caller says otherwise. */
export const STRICT_JSON_MAX_DEPTH = 64
const INTEGER = /^-?[0-9]+$/

/** Bounds for {@link parseStrictJson}. */
export interface StrictJsonOptions {
  /** Default 64. */
  readonly maxDepth?: number
  /** Take integers of 64 bits, which the value does not hold exactly: for callers that keep their text. */
  readonly wideIntegers?: boolean
}

/**
 * Parses JSON of at most `maxBytes`.
 *
 * @throws {NixError} JSON_LIMIT – too long, or more than `maxDepth` levels; JSON_SYNTAX – not UTF-8, not JSON, or
 * text that readers may take differently; JSON_DUPLICATE_KEY
 */
export function parseStrictJson(
  bytes: Uint8Array,
  maxBytes: number,
  { maxDepth = STRICT_JSON_MAX_DEPTH, wideIntegers = false }: StrictJsonOptions = {},
): unknown {
  if (bytes.length > maxBytes)
    throw new NixError('JSON_LIMIT', `expected at most ${maxBytes} bytes, got ${bytes.length}`)
  let text: string
  let value: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    value = JSON.parse(text)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('JSON_SYNTAX', `expected JSON: ${reason}`, { cause })
  }
  scanTokens(text, maxDepth, wideIntegers)
  return value
}

/** True for an object that is no array. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What was seen where something else was expected; short enough for a message. */
export function describeJson(value: unknown): string {
  return value === undefined ? 'nothing' : quote(JSON.stringify(value))
}

/** Walks the tokens of `text`, which is JSON. */
function scanTokens(text: string, maxDepth: number, wideIntegers: boolean): void {
  // One entry for each open bracket: the names seen so far in an object, undefined in an array.
  const open: (Set<string> | undefined)[] = []
  let nameNext = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at] as string // in range by the loop
    if (character === '{' || character === '[') {
      if (open.length === maxDepth)
        throw new NixError('JSON_LIMIT', `expected at most ${maxDepth} levels`)
      open.push(character === '{' ? new Set() : undefined)
      nameNext = character === '{'
    } else if (character === '}' || character === ']') {
      open.pop()
    } else if (character === ',') {
      nameNext = open.at(-1) !== undefined
    } else if (character === '"') {
      const end = closingQuote(text, at)
      const string = readString(text.slice(at, end + 1))
      if (nameNext) addName(open.at(-1), string)
      nameNext = false
      at = end
    } else if (character === '-' || (character >= '0' && character <= '9')) {
      const end = endOfNumber(text, at)
      checkNumber(text.slice(at, end), wideIntegers)
      at = end - 1
    }
  }
}

/** A loop and no regular expression: those keep a stack whose depth follows the length of the text. */
function closingQuote(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at
}

function endOfNumber(text: string, start: number): number {
  let at = start
  while (at < text.length && '+-.0123456789eE'.includes(text[at] as string)) at++
  return at
}

function readString(token: string): string {
  const value = token.includes('\\') ? (JSON.parse(token) as string) : token.slice(1, -1)
  if (value.isWellFormed()) return value
  throw new NixError('JSON_SYNTAX', `expected Unicode text, got ${quote(value)}`)
}

function addName(names: Set<string> | undefined, name: string): void {
  if (names?.has(name))
    throw new NixError('JSON_DUPLICATE_KEY', `expected distinct names, got ${quote(name)} twice`)
  names?.add(name)
}

function checkNumber(token: string, wideIntegers: boolean): void {
  const value = Number(token)
  const isHeld = INTEGER.test(token)
    ? Number.isSafeInteger(value) || (wideIntegers && isWide(token))
    : Number.isFinite(value)
  if (!isHeld)
    throw new NixError('JSON_SYNTAX', `expected a number that readers hold, got ${quote(token)}`)
}

/** Whether it fits into 64 bits, with or without a sign. */
function isWide(token: string): boolean {
  if (token.length > 20) return false // before it is computed with
  const value = BigInt(token)
  return value >= -(2n ** 63n) && value < 2n ** 64n
}
