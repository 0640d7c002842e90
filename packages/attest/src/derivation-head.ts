// The first fields of a derivation as Nix writes it to the store (ATerm):
//
//   Derive([(NAME,PATH,METHOD,HASH)…],[(DRV,[NAME…])…],[SOURCE…],SYSTEM,…
//
// Enough to answer one question without trusting the Nix database: does this derivation name that
// path as an output, and for which system? The path of a derivation is made from its text, so the
// text is checked against it, and nothing else has to be believed.
import { makeStorePath, sha256Hex, storePathName } from '@bagcheck/nix'
import type { StorePath } from '@bagcheck/nix'
import { closingQuote } from './strict-json.ts'

export interface DerivationHead {
  /** Output name → path; outputs whose path is not known before the build are left out. */
  readonly outputs: ReadonlyMap<string, string>
  readonly system: string
}

const MAX_BYTES = 16 * 1024 * 1024

/**
 * Returns the head of the derivation at `drvPath`, or undefined if `bytes` are not its text.
 */
export function readDerivationHead(
  drvPath: StorePath,
  bytes: Uint8Array,
): DerivationHead | undefined {
  if (bytes.length > MAX_BYTES) return undefined
  const reader = new TermReader(Buffer.from(bytes).toString('latin1'))
  const [outputs, inputDerivations, inputSources, system] = reader.fields(4) ?? []
  if (!Array.isArray(outputs) || !Array.isArray(inputDerivations)) return undefined
  if (!Array.isArray(inputSources) || typeof system !== 'string') return undefined
  const references = [...inputDerivations.map((entry) => entry[0]), ...inputSources]
  if (!references.every((reference) => typeof reference === 'string')) return undefined
  const type = ['text', ...references.toSorted()].join(':')
  const inner = new Uint8Array(Buffer.from(sha256Hex(bytes), 'hex'))
  if (makeStorePath(type, inner, storePathName(drvPath)) !== drvPath) return undefined
  const named = outputs.flatMap((entry) =>
    typeof entry[0] === 'string' && typeof entry[1] === 'string' && entry[1] !== ''
      ? [[entry[0], entry[1]] as const]
      : [],
  )
  return { outputs: new Map(named), system }
}

/** A string, or a list or tuple of terms. */
type Term = string | readonly Term[]

class TermReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  /** The first `count` fields of the derivation, or undefined if they are not there. */
  fields(count: number): Term[] | undefined {
    if (!this.#take('Derive(')) return undefined
    const fields: Term[] = []
    for (;;) {
      const field = this.#term(0)
      if (field === undefined) return undefined
      fields.push(field)
      if (fields.length === count) return fields
      if (!this.#take(',')) return undefined
    }
  }

  // Three levels are all that a derivation has: a list of tuples that hold lists.
  #term(depth: number): Term | undefined {
    if (depth > 3) return undefined
    if (this.#take('[')) return this.#sequence(']', depth)
    if (this.#take('(')) return this.#sequence(')', depth)
    if (!this.#text.startsWith('"', this.#at)) return undefined
    const end = closingQuote(this.#text, this.#at)
    if (end < 0) return undefined
    const token = this.#text.slice(this.#at + 1, end)
    this.#at = end + 1
    return token.replace(/\\([^])/g, (_match, escaped: string) => UNESCAPED[escaped] ?? escaped)
  }

  #sequence(end: string, depth: number): Term | undefined {
    const terms: Term[] = []
    if (this.#take(end)) return terms
    for (;;) {
      const term = this.#term(depth + 1)
      if (term === undefined) return undefined
      terms.push(term)
      if (this.#take(end)) return terms
      if (!this.#take(',')) return undefined
    }
  }

  #take(token: string): boolean {
    if (!this.#text.startsWith(token, this.#at)) return false
    this.#at += token.length
    return true
  }
}

const UNESCAPED: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' }
