// What a derivation says about itself beside its fields. Nix reads these from the environment, where everything
// is a string ("1" is true, lists are separated by white space), or from structured attributes, which are JSON.
import { decodeByteString, STRUCTURED_ATTRIBUTES } from './derivation.ts'
import type { Derivation } from './derivation.ts'

const MAX_LIST_CHARACTERS = 1 << 20

/** Attributes by name; see {@link readAttributes}. */
export interface Attributes {
  /** Whether they are structured: the environment then holds the outputs alone. */
  readonly structured: boolean
  /** The field a finding names: `env.NAME` or `__json.NAME`. */
  fieldOf(name: string): string
  has(name: string): boolean
  /** JSON as it stands, or the string of the environment. */
  raw(name: string): unknown
  /** Text; numbers and booleans as they are written. `undefined` for anything else. */
  string(name: string): string | undefined
  boolean(name: string): boolean
  /** Strings of a list; a string is split at white space, to 1 MiB of it. Other elements are left out. */
  strings(name: string): readonly string[]
}

/** The attributes of `derivation`, as text. Structured ones that are no JSON object count as none. */
export function readAttributes(derivation: Derivation): Attributes {
  const json = derivation.env.get(STRUCTURED_ATTRIBUTES)
  const structured = json !== undefined
  const values = structured ? parseObject(decodeByteString(json)) : undefined
  const raw = (name: string): unknown => {
    if (structured) return values?.get(name)
    const value = derivation.env.get(name)
    return value === undefined ? undefined : decodeByteString(value)
  }
  return {
    structured,
    raw,
    fieldOf: (name) => `${structured ? STRUCTURED_ATTRIBUTES : 'env'}.${name}`,
    has: (name) => raw(name) !== undefined,
    string(name) {
      const value = raw(name)
      if (typeof value === 'string') return value
      return typeof value === 'number' || typeof value === 'boolean' ? `${value}` : undefined
    },
    boolean: (name) => raw(name) === (structured ? true : '1'),
    strings(name) {
      const value = raw(name)
      if (typeof value === 'string')
        return value
          .slice(0, MAX_LIST_CHARACTERS)
          .split(/\s+/)
          .filter((word) => word !== '')
      return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : []
    },
  }
}

function parseObject(text: string): ReadonlyMap<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return value !== null && typeof value === 'object' ? new Map(Object.entries(value)) : undefined
  } catch {
    return undefined // as said above
  }
}
