// How a parser is described, so that `parsers.test.ts` can put every one of them to the same tests.
import type fc from 'fast-check'

/** A bound with a name: the last input that it lets pass and the first that it does not. */
export interface Limit {
  readonly what: string
  readonly last: () => Uint8Array
  readonly first: () => Uint8Array
  /** What the first is refused with; the last may be refused for another reason, for what it holds. */
  readonly code: string
}

/** How to put one parser to the test. `T` is what it gives, as a value that can be compared. */
export interface Parser<T = unknown> {
  /** The name that it is exported by. */
  readonly name: string
  /** Which of several ways to call it, or shapes to read. */
  readonly form?: string
  readonly samples: readonly Uint8Array[]
  readonly parse: (bytes: Uint8Array) => T | Promise<T>
  /** The codes that it may refuse with. */
  readonly codes: RegExp
  /** What a sample is refused with that is cut off, where it is always the same. */
  readonly cutCode?: string
  /** All spellings of a value that are read, the one that we write first; absent where nothing is printed. */
  readonly print?: (value: T) => readonly Uint8Array[] | Promise<readonly Uint8Array[]>
  /** Other spellings are read too; what they say is printed, and read to the same. */
  readonly lenient?: true
  /** The text that is printed does not say all that was read. */
  readonly printsLess?: true
  /** A flipped bit may leave the value as it was: white space, or a part that is not looked at. */
  readonly mayNotNotice?: true
  /** Which prefixes of a sample say something themselves; all others must be refused. */
  readonly isWhole?: (prefix: string) => boolean
  /** Any value that can be printed. */
  readonly values?: fc.Arbitrary<T>
  /** What its texts are made of. */
  readonly words: readonly string[]
  readonly limits?: readonly Limit[]
}

/** Forgets the type of what it gives, once all that belongs to it agrees. */
export function parser<T>(one: Parser<T>): Parser {
  return one as unknown as Parser
}

/** Text with one byte in each code unit, as bytes. */
export const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
/** Bytes as text with one byte in each code unit. */
export const text = (raw: Uint8Array): string => Buffer.from(raw).toString('latin1')
/** A value as the bytes of its JSON. */
export const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

/** A parser of short texts. */
export function word<T>(
  name: string,
  samples: readonly string[],
  parse: (text: string) => T,
  print: (value: T) => string | readonly string[],
  more: Partial<Parser<T>> & Pick<Parser<T>, 'codes'>,
): Parser {
  return parser<T>({
    name,
    samples: samples.map(bytes),
    parse: (raw) => parse(text(raw)),
    print: (value) => [print(value)].flat().map(bytes),
    words: ['/nix/store/', ':', '-', '=', 'sha256', '0', 'a', ' ', '\n', '\0', '\xe9', '..'],
    ...more,
  })
}

/** `max` times `one`, and once more. */
export function repeated(what: string, one: string, max: number, code: string): Limit {
  const write = (count: number) => () => Buffer.alloc(one.length * count, one, 'latin1')
  return { what: `${max} ${what}`, last: write(max), first: write(max + 1), code }
}

/** Bytes that no text starts with: where there are too many of them, nobody looks. */
export function bounded(maxBytes: number, code: string): Limit {
  return repeated('bytes', '\xff', maxBytes, code)
}

/** A text with `max` of something, and with one more; the first must be read. */
export function counted(
  what: string,
  max: number,
  code: string,
  write: (count: number) => string | Uint8Array,
): Limit {
  const make = (count: number) => () => {
    const written = write(count)
    return typeof written === 'string' ? bytes(written) : written
  }
  return { what: `${max} ${what}`, last: make(max), first: make(max + 1), code }
}

/** The codes of anything in JSON. */
export const JSON_CODES = 'JSON_(SYNTAX|DUPLICATE_KEY|LIMIT)'
/** What JSON is made of. */
export const JSON_WORDS = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '0',
  '1e3',
  '-',
  'null',
  'true',
  ' ',
]
/** The same JSON with white space up to a length. */
export const padded = (document: Uint8Array, what: string, max: number, code: string): Limit =>
  counted(what, max, code, (n) => Buffer.concat([document, Buffer.alloc(n - document.length, ' ')]))
/** Something for each number below `length`. */
export const numbers = <T>(length: number, make: (n: number) => T): T[] =>
  Array.from({ length }, (_, n) => make(n))
/** The base name of a store path, by number. */
export const base = (n: number): string => `${String(n).padStart(32, '0')}-x`
