// Structured attributes: the JSON object that stands as text under `__json` in a derivation's environment. Nix parses
// and prints it anew where its JSON has them beside `env`, so there and here they have one spelling: no white
// space, keys in byte order, and numbers as they were.
import { byteOrder } from '../store-path.ts'
import { encodeByteString } from './derivation.ts'

/** `JSON.rawJSON` of ECMAScript 2026, which TypeScript does not declare yet. */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON(text: string): RawJson
  isRawJSON(value: unknown): value is RawJson
}

/** A number in the spelling it was read in. */
export interface RawJson {
  readonly rawJSON: string
}

/** Whether `value` is a number of {@link parseKeepingNumbers}. */
export function isRawJson(value: unknown): value is RawJson {
  return isRawJSON(value)
}

/** As `JSON.parse`, with every number a {@link RawJson}. */
export function parseKeepingNumbers(text: string): unknown {
  return JSON.parse(text, (_, one: unknown, context?: { source?: string }) =>
    typeof one === 'number' ? rawJSON(context?.source ?? `${one}`) : one,
  )
}

/** The one text of a value of {@link parseKeepingNumbers}. */
export function printStructured(value: unknown): string {
  if (isRawJSON(value) || value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(printStructured).join(',')}]`
  const members = byKey(value).map(([key, one]) => `${JSON.stringify(key)}:${printStructured(one)}`)
  return `{${members.join(',')}}`
}

/** The members of an object in byte order of their keys' UTF-8. */
export function byKey(value: object): [key: string, member: unknown][] {
  return Object.entries(value)
    .map(([key, member]) => [encodeByteString(key), key, member] as const)
    .toSorted(([a], [b]) => byteOrder(a, b))
    .map(([, key, member]) => [key, member])
}
