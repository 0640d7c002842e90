// The text of a .drv file:
//   drv    = "Derive(" outs "," drvs "," srcs "," str "," str "," strs "," env ")"  platform, builder, args
//   outs   = "[" { "(" name "," path "," algo "," hash ")" } "]"   by name
//   drvs   = "[" { "(" path "," used ")" } "]"                     by path
//   used   = names                                                 by name, at least one
//   srcs   = "[" { path } "]"                                      by path
//   env    = "[" { "(" str "," str ")" } "]"                       by name
//   str    = '"' { byte | "\\" | '\"' | "\n" | "\r" | "\t" } '"'   other bytes stand for themselves
// Lists separate by "," and every "by" is byte order, strictly rising. The kind of an output:
//   (path, "", "")      input-addressed       ("", algo, "")         floating
//   (path, algo, hex)   fixed                 ("", algo, "impure")   impure          ("", "", "")  deferred
// Nix itself takes other orders, other escapes and raw line feeds, all of which it would print otherwise; here
// what parses prints back byte for byte, so that a derivation has one text. NUL is refused: no environment holds
// it. What uses outputs of derivations that are built themselves (dynamic derivations, experimental) has another head
//   drv    = 'DrvWithVersion("xp-dyn-drv",' outs "," drvs …        otherwise as above
//   used   = names | "(" names "," "[" { "(" name "," used ")" } "]" ")"     by name, at least one
// and has it only then: the head goes with at least one "(" in its inputs.
// A fixed output has the path that follows from its content address, which is all that the path says.
// Limits: 64 MiB, 200,000 elements in a list, 16 levels of dynamic outputs. The text is untrusted: nothing is
// allocated from a count it states, and each byte is looked at a bounded number of times.
// https://github.com/NixOS/nix/blob/master/src/libstore/derivation/aterm.cc
import { formatMethodAndAlgorithm, parseMethodAndAlgorithm } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { formatHashDigits, parseHashDigits } from '../hash.ts'
import { parseStorePath } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import {
  checkFixedPath,
  checkOutputs,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  outputPath,
} from './derivation.ts'
import type { Derivation, DerivationOutput, UsedOutputs } from './derivation.ts'

/** The longest .drv that is read, in bytes. Real ones reach a few MB. */
export const DERIVATION_MAX_BYTES: number = 64 << 20
/** The most elements in one list of a derivation. */
export const DERIVATION_MAX_ELEMENTS = 200_000

const OUTPUT_NAME = /^[0-9A-Za-z+\-._?=]{1,211}$/
const ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\',
  '"': '"',
  n: '\n',
  r: '\r',
  t: '\t',
}
const MUST_ESCAPE = /["\\\n\r\t]/
const NEVER_RAW = /[\n\r\t\0]/

/**
 * Parses the text of a derivation.
 *
 * @param name its name, which the text does not hold; see `derivationName`.
 * @throws {NixError} DRV_LIMIT, DRV_TRUNCATED, DRV_SYNTAX, DRV_ORDER, DRV_VERSION – the text is not what the
 * grammar says; DRV_OUTPUT – an output of no kind, or several kinds; DRV_OUTPUT_PATH – a fixed output at another
 * path than that of its content address; STORE_PATH, HASH, CONTENT_ADDRESS – in a field.
 */
export function parseDerivation(bytes: Uint8Array, name: string): Derivation {
  if (bytes.length > DERIVATION_MAX_BYTES)
    throw new NixError(
      'DRV_LIMIT',
      `expected at most ${DERIVATION_MAX_BYTES} bytes, got ${bytes.length}`,
    )
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  const parser = new Parser(text)
  const versioned = text.startsWith('Dr')
  parser.expect(versioned ? 'DrvWithVersion(' : 'Derive(')
  if (versioned) {
    const version = parser.string()
    if (version !== 'xp-dyn-drv')
      throw new NixError('DRV_VERSION', `expected "xp-dyn-drv", got ${quote(version)}`)
    parser.expect(',')
  }
  const outputs = parser.map((key) => parseOutput(parser, key))
  parser.expect(',')
  const used = parser.map((path) => parseInput(parser, path, versioned))
  const dynamicInputs = new Map(
    [...used].flatMap(([path, { dynamicOutputs }]) =>
      dynamicOutputs === undefined ? [] : [[path as StorePath, dynamicOutputs] as const],
    ),
  )
  if (versioned && dynamicInputs.size === 0)
    throw new NixError('DRV_VERSION', 'expected "Derive(" where no input is dynamic')
  parser.expect(',')
  const inputSources = [...parser.set()].map(parseStorePath)
  parser.expect(',')
  const platform = parser.string()
  parser.expect(',')
  const builder = parser.string()
  parser.expect(',')
  const args = parser.list(() => parser.string())
  parser.expect(',')
  const env = parser.map(() => parser.string())
  parser.expect(')')
  parser.end()
  checkOutputs(outputs)
  for (const output of outputs.values()) if (output.kind === 'fixed') checkFixedPath(output, name)
  return {
    name,
    outputs,
    inputDerivations: new Map(
      Array.from(used, ([path, { outputs }]) => [path as StorePath, outputs]), // parseInput parses each key
    ),
    ...(dynamicInputs.size > 0 && { dynamicInputs }),
    inputSources,
    platform,
    builder,
    args,
    env,
  }
}

function parseOutput(parser: Parser, name: string): DerivationOutput {
  checkOutputName(name)
  const path = parser.string()
  parser.expect(',')
  const algorithm = parser.string()
  parser.expect(',')
  return makeOutput(path, algorithm, parser.string())
}

function parseInput(parser: Parser, path: string, versioned: boolean): UsedOutputs {
  parseStorePath(path)
  return parseUsed(parser, path, versioned, 0)
}

function parseUsed(parser: Parser, path: string, versioned: boolean, depth: number): UsedOutputs {
  const nested = versioned && parser.skip('(')
  const outputs = [...parser.set()]
  for (const name of outputs) checkOutputName(name)
  if (!nested) {
    if (outputs.length > 0) return { outputs }
    throw new NixError('DRV_SYNTAX', `expected the names of outputs of ${quote(path)}, got none`)
  }
  if (depth === DYNAMIC_OUTPUTS_MAX_DEPTH)
    throw new NixError('DRV_LIMIT', `expected at most ${depth} levels of dynamic outputs`)
  parser.expect(',')
  const dynamicOutputs = parser.map((name) => {
    checkOutputName(name)
    return parseUsed(parser, path, versioned, depth + 1)
  })
  parser.expect(')')
  if (dynamicOutputs.size > 0) return { outputs, dynamicOutputs }
  throw new NixError('DRV_SYNTAX', `expected dynamic outputs of ${quote(path)}, got none`)
}

/** @throws {NixError} DRV_OUTPUT – no name that an output can have. */
export function checkOutputName(name: string): void {
  if (!OUTPUT_NAME.test(name))
    throw new NixError('DRV_OUTPUT', `expected the name of an output, got ${quote(name)}`)
}

function makeOutput(path: string, algorithm: string, hash: string): DerivationOutput {
  if (algorithm === '' && hash === '')
    return path === ''
      ? { kind: 'deferred' }
      : { kind: 'input-addressed', path: parseStorePath(path) }
  if (algorithm !== '' && (path === '') === (hash === '' || hash === 'impure')) {
    const addressing = parseMethodAndAlgorithm(algorithm)
    if (hash === '') return { kind: 'floating', ...addressing }
    if (hash === 'impure') return { kind: 'impure', ...addressing }
    const digest = parseHashDigits(addressing.algorithm, hash, 'base16')
    const address = {
      method: addressing.method,
      hash: { algorithm: addressing.algorithm, digest },
    }
    return { kind: 'fixed', path: parseStorePath(path), address }
  }
  throw new NixError(
    'DRV_OUTPUT',
    `expected an output of a kind that exists, got path ${quote(path)}, algorithm ` +
      `${quote(algorithm)} and hash ${quote(hash)}`,
  )
}

/** The text of `derivation`; what {@link parseDerivation} took is printed byte for byte. */
export function formatDerivation(derivation: Derivation): Uint8Array {
  return Buffer.from(printDerivation(derivation), 'latin1')
}

/** What is printed otherwise when a derivation is hashed "modulo": see `modulo.ts`. */
export interface PrintChanges {
  /** Instead of the input derivations: output names by hash, in byte order. */
  readonly inputs?: Iterable<readonly [hash: string, names: readonly string[]]>
  /** Print own input-addressed output paths as "", also in the environment. */
  readonly maskOutputs?: boolean
}

/** The text as a byte string. */
export function printDerivation(
  derivation: Derivation,
  { inputs, maskOutputs = false }: PrintChanges = {},
): string {
  const { outputs, inputSources, platform, builder, args, env, dynamicInputs } = derivation
  const outs = Array.from(outputs, ([name, output]) => {
    const path = maskOutputs && output.kind === 'input-addressed' ? '' : (outputPath(output) ?? '')
    const [algorithm, hash] = addressColumns(output)
    return `("${name}","${path}","${algorithm}","${hash}")`
  })
  const drvs = inputs
    ? Array.from(inputs, ([key, names]) => `("${key}",${printNames(names)})`)
    : Array.from(derivation.inputDerivations, ([path, names]) => {
        const dynamicOutputs = dynamicInputs?.get(path)
        return `("${path}",${printUsed({ outputs: names, ...(dynamicOutputs && { dynamicOutputs }) })})`
      })
  const variables = Array.from(env, ([key, value]) => {
    const shown = maskOutputs && outputs.has(key) ? '' : value
    return `(${printString(key)},${printString(shown)})`
  })
  return (
    `${dynamicInputs ? 'DrvWithVersion("xp-dyn-drv",' : 'Derive('}[${outs.join(',')}],[${drvs.join(',')}],[${inputSources.map(printString).join(',')}],` +
    `${printString(platform)},${printString(builder)},[${args.map(printString).join(',')}],` +
    `[${variables.join(',')}])`
  )
}

function printUsed({ outputs, dynamicOutputs }: UsedOutputs): string {
  if (dynamicOutputs === undefined) return printNames(outputs)
  const nested = Array.from(dynamicOutputs, ([name, used]) => `("${name}",${printUsed(used)})`)
  return `(${printNames(outputs)},[${nested.join(',')}])`
}

function printNames(names: readonly string[]): string {
  return names.length === 0 ? '[]' : `["${names.join('","')}"]`
}

function addressColumns(output: DerivationOutput): readonly [algorithm: string, hash: string] {
  switch (output.kind) {
    case 'input-addressed':
    case 'deferred':
      return ['', '']
    case 'fixed': {
      const { method, hash } = output.address
      return [
        formatMethodAndAlgorithm(method, hash.algorithm),
        formatHashDigits(hash.digest, 'base16'),
      ]
    }
    case 'floating':
      return [formatMethodAndAlgorithm(output.method, output.algorithm), '']
    case 'impure':
      return [formatMethodAndAlgorithm(output.method, output.algorithm), 'impure']
  }
}

function printString(bytes: string): string {
  if (!MUST_ESCAPE.test(bytes)) return `"${bytes}"`
  const escaped = bytes.replace(/["\\\n\r\t]/g, (c) =>
    c === '\n' ? '\\n' : c === '\r' ? '\\r' : c === '\t' ? '\\t' : `\\${c}`,
  )
  return `"${escaped}"`
}

class Parser {
  readonly #text: string
  #offset = 0
  /** Where the next backslash is, so that text without any is not searched again for each string. */
  #backslash = -1

  constructor(text: string) {
    this.#text = text
  }

  expect(word: string): void {
    if (!this.#text.startsWith(word, this.#offset)) {
      const rest = this.#text.slice(this.#offset, this.#offset + word.length)
      throw word.startsWith(rest) ? this.#truncated() : this.#unexpected(quote(word))
    }
    this.#offset += word.length
  }

  end(): void {
    if (this.#offset !== this.#text.length) throw this.#unexpected('the end')
  }

  string(): string {
    this.expect('"')
    const start = this.#offset
    const close = this.#text.indexOf('"', start)
    if (this.#backslash < start) {
      const found = this.#text.indexOf('\\', start)
      this.#backslash = found < 0 ? this.#text.length : found
    }
    if (close >= 0 && close < this.#backslash) {
      this.#offset = close + 1
      return this.#raw(start, close)
    }
    return this.#escapedString(start)
  }

  #escapedString(start: number): string {
    let value = ''
    for (let from = start; ;) {
      const stop = indexOfEither(this.#text, from)
      if (stop < 0) throw this.#truncated()
      value += this.#raw(from, stop)
      if (this.#text[stop] === '"') {
        this.#offset = stop + 1
        return value
      }
      this.#offset = stop
      const letter = this.#text[stop + 1]
      if (letter === undefined) throw this.#truncated()
      const escaped = ESCAPES[letter]
      if (escaped === undefined) throw this.#unexpected(String.raw`\\, \", \n, \r or \t`)
      value += escaped
      from = stop + 2
    }
  }

  /** The text between two offsets, which must stand for itself. */
  #raw(start: number, end: number): string {
    const raw = this.#text.slice(start, end)
    const bad = raw.search(NEVER_RAW)
    if (bad < 0) return raw
    this.#offset = start + bad
    throw this.#unexpected('no NUL and an escape for line feed, carriage return and tab')
  }

  list<T>(element: () => T): T[] {
    this.expect('[')
    const elements: T[] = []
    if (this.skip(']')) return elements
    for (;;) {
      if (elements.length === DERIVATION_MAX_ELEMENTS)
        throw new NixError('DRV_LIMIT', `expected at most ${DERIVATION_MAX_ELEMENTS} elements`)
      elements.push(element())
      if (this.skip(']')) return elements
      this.expect(',')
    }
  }

  /** Strings in strictly rising byte order. */
  set(): Set<string> {
    let last: string | undefined
    return new Set(this.list(() => (last = this.#rising(last))))
  }

  /** `(key,value)` pairs in strictly rising byte order of the keys. */
  map<T>(parseValue: (key: string) => T): Map<string, T> {
    let last: string | undefined
    return new Map(
      this.list(() => {
        this.expect('(')
        const key = (last = this.#rising(last))
        this.expect(',')
        const value = parseValue(key)
        this.expect(')')
        return [key, value] as const
      }),
    )
  }

  #rising(last: string | undefined): string {
    const next = this.string()
    if (last !== undefined && next <= last)
      throw new NixError(
        'DRV_ORDER',
        `expected byte order, got ${quote(next)} after ${quote(last)}`,
      )
    return next
  }

  /** Whether `character` is next; then it is behind us. */
  skip(character: string): boolean {
    if (this.#text[this.#offset] !== character) return false
    this.#offset += 1
    return true
  }

  #unexpected(expected: string): NixError {
    const seen = this.#text.slice(this.#offset, this.#offset + 20)
    return new NixError('DRV_SYNTAX', `expected ${expected}, got ${quote(seen)}`, {
      detail: { offset: this.#offset },
    })
  }

  #truncated(): NixError {
    return new NixError('DRV_TRUNCATED', 'expected more than the text has')
  }
}

function indexOfEither(text: string, from: number): number {
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22 || code === 0x5c) return at
  }
  return -1
}
