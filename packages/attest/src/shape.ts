// Named checks that turn parsed JSON into typed fields, or throw the reader's code with the place.
import { AttestError, quote, type AttestErrorCode } from './error.ts'
import type { JsonObject } from './strict-json.ts'

/** Where a value stands, for messages, and the code to throw there. */
export interface Place {
  readonly at: string
  readonly code: AttestErrorCode
}

export function within(place: Place, name: string | number): Place {
  const at = typeof name === 'number' ? `${place.at}[${name}]` : `${place.at}.${name}`
  return { at, code: place.code }
}

export function mismatch(place: Place, expected: string, seen: unknown): AttestError {
  const text = seen === undefined ? 'nothing' : quote(seen)
  return new AttestError(place.code, `expected ${expected} at ${place.at}, saw ${text}`)
}

export function asObject(value: unknown, place: Place): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw mismatch(place, 'an object', value)
  return value as JsonObject
}

/** An object with exactly these members, all present. */
export function asRecord(value: unknown, names: readonly string[], place: Place): JsonObject {
  const object = asObject(value, place)
  refuseOthers(object, names, place)
  for (const name of names)
    if (!Object.hasOwn(object, name)) throw mismatch(within(place, name), 'a value', undefined)
  return object
}

/** Refuses members that are not among `names`. */
export function refuseOthers(object: JsonObject, names: readonly string[], place: Place): void {
  for (const name of Object.keys(object))
    if (!names.includes(name)) throw mismatch(place, `only ${names.join(', ')}`, name)
}

export function asArray(value: unknown, place: Place): readonly unknown[] {
  if (!Array.isArray(value)) throw mismatch(place, 'an array', value)
  return value
}

export function asString(value: unknown, place: Place): string {
  if (typeof value !== 'string') throw mismatch(place, 'a string', value)
  return value
}

export function asBoolean(value: unknown, place: Place): boolean {
  if (typeof value !== 'boolean') throw mismatch(place, 'true or false', value)
  return value
}

/** A whole number from 0 to 2^53 - 1. */
export function asCount(value: unknown, place: Place): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw mismatch(place, 'a whole number', value)
  return value
}
