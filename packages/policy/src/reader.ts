// Readers turn parsed JSON or YAML into typed values. A reader reports what is wrong at a place and
// goes on, so that the author of a policy sees every mistake at once; what it returns after a report is
// never used, because a document with a problem is refused as a whole.
import type { Sha256 } from '@bagcheck/nix'
import { PolicyError, quote, type PolicyErrorCode } from './error.ts'

/** Where a value stands: a chain of keys, put together only when something is wrong there. */
export interface Place {
  readonly up: Place | null
  readonly key: string | number
}

/** How a document is read. */
export interface Reading {
  report: (path: readonly (string | number)[], message: string) => void
  /** False: members with a default may be left out (a policy as people write it). */
  readonly complete: boolean
}

export type Reader<T> = (value: unknown, place: Place | null, reading: Reading) => T

/** What a reader reads. */
export type Read<R> = R extends Reader<infer T> ? T : never

/** The keys from the document down to `place`. */
export function pathOf(place: Place | null): (string | number)[] {
  const path: (string | number)[] = []
  for (let at = place; at !== null; at = at.up) path.unshift(at.key)
  return path
}

export function wrong(
  reading: Reading,
  place: Place | null,
  expected: string,
  seen: unknown,
): never {
  const what = seen === undefined ? 'nothing' : quote(seen)
  reading.report(pathOf(place), `expected ${expected}, saw ${what}`)
  // Not reached by a value that anybody uses, see above.
  return undefined as never
}

/** `roles.orders.roots[3].closure` */
export function formatPath(path: readonly (string | number)[]): string {
  const steps = path.map((key) =>
    typeof key === 'number'
      ? `[${key}]`
      : /^[A-Za-z0-9_-]+$/.test(key)
        ? `.${key}`
        : `[${quote(key)}]`,
  )
  return steps.join('').replace(/^\./, '') || 'the document'
}

/**
 * Reads a document of which every member is there; `what` names it in messages.
 * @throws {PolicyError} with `code` and the first thing that is wrong
 */
export function readStrictly<T>(
  reader: Reader<T>,
  value: unknown,
  code: PolicyErrorCode,
  what: string,
): T {
  return reader(value, null, {
    complete: true,
    report: (path, message) => {
      throw new PolicyError(code, `${what}, ${formatPath(path)}: ${message}`)
    },
  })
}

/** A value that `accepts` takes. */
export function when<T>(expected: string, accepts: (value: unknown) => value is T): Reader<T> {
  return (value, place, reading) =>
    accepts(value) ? value : wrong(reading, place, expected, value)
}

/** A string that matches in whole. */
export function matching(expected: string, pattern: RegExp): Reader<string> {
  return when(
    expected,
    (value): value is string => typeof value === 'string' && pattern.test(value),
  )
}

export function literal<const T extends string | boolean | number>(
  ...values: readonly T[]
): Reader<T> {
  const expected = values.map((value) => JSON.stringify(value)).join(' or ')
  return when(expected, (value): value is T => values.some((known) => known === value))
}

/** A whole number from `min` to `max`. */
export function integer(min: number, max: number): Reader<number> {
  return when(
    `a whole number from ${min} to ${max}`,
    (value): value is number =>
      typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max,
  )
}

export function nullable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, place, reading) => (value === null ? null : reader(value, place, reading))
}

const defaults = new WeakMap<Reader<unknown>, () => unknown>()

/** A member that people may leave out; in a compiled document it is always there. */
export function optional<T>(reader: Reader<T>, value: () => T): Reader<T> {
  const own: Reader<T> = (seen, place, reading) => reader(seen, place, reading)
  defaults.set(own, value)
  return own
}

const later = new WeakSet<Reader<unknown>>()

/**
 * A member that is not there where it says nothing, in a compiled document too: what a later release added, so
 * that documents which were signed before read as they did.
 */
export function absent<T>(reader: Reader<T>): Reader<T | undefined> {
  const own: Reader<T> = (seen, place, reading) => reader(seen, place, reading)
  later.add(own)
  return own
}

/** A list of `min` to `max` values. */
export function list<T>(reader: Reader<T>, min: number, max: number): Reader<readonly T[]> {
  return (value, place, reading) => {
    if (!Array.isArray(value)) return wrong(reading, place, 'a list', value)
    if (value.length < min || value.length > max)
      wrong(reading, place, `a list of ${min} to ${max} entries`, value.length)
    return value.map((entry: unknown, index) => reader(entry, { up: place, key: index }, reading))
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** An object of `min` to `max` named entries, as a Map in the order of the document. */
export function table<T>(
  name: Reader<string>,
  reader: Reader<T>,
  min: number,
  max: number,
): Reader<ReadonlyMap<string, T>> {
  return (value, place, reading) => {
    if (!isObject(value)) return wrong(reading, place, 'named entries', value)
    const entries = Object.entries(value)
    if (entries.length < min || entries.length > max)
      wrong(reading, place, `${min} to ${max} named entries`, entries.length)
    return new Map(
      entries.map(([key, entry]) => {
        const at: Place = { up: place, key }
        name(key, at, reading)
        return [key, reader(entry, at, reading)]
      }),
    )
  }
}

/** An object with exactly these members. */
export function record<F extends Record<string, Reader<unknown>>>(
  fields: F,
): Reader<{ readonly [K in keyof F]: Read<F[K]> }> {
  const names = Object.keys(fields)
  return (value, place, reading) => {
    if (!isObject(value)) return wrong(reading, place, `an object with ${names.join(', ')}`, value)
    for (const key of Object.keys(value))
      if (!Object.hasOwn(fields, key))
        wrong(reading, { up: place, key }, `one of ${names.join(', ')}`, key)
    const result: Record<string, unknown> = {}
    for (const name of names) {
      const reader = fields[name] as Reader<unknown>
      const fallback = reading.complete ? undefined : defaults.get(reader)
      const seen = Object.hasOwn(value, name) ? value[name] : undefined
      if (seen === undefined && later.has(reader)) continue
      if (seen === undefined && fallback) result[name] = fallback()
      else if (seen === undefined) wrong(reading, { up: place, key: name }, 'a value', undefined)
      else result[name] = reader(seen, { up: place, key: name }, reading)
    }
    return result as { readonly [K in keyof F]: Read<F[K]> }
  }
}

/** Chooses the reader by the value of one member. */
export function either<T>(member: string, readers: Readonly<Record<string, Reader<T>>>): Reader<T> {
  return (value, place, reading) => {
    const seen = isObject(value) ? value[member] : undefined
    const reader = typeof seen === 'string' ? readers[seen] : undefined
    if (reader) return reader(value, place, reading)
    return wrong(
      reading,
      { up: place, key: member },
      `one of ${Object.keys(readers).join(', ')}`,
      seen,
    )
  }
}

// The cast brands a string whose whole grammar the expression checks.
export const sha256 = matching('64 lower-case hex digits', /^[0-9a-f]{64}$/) as Reader<Sha256>

/** RFC 3339 in UTC with whole seconds. */
export const time: Reader<string> = when(
  'a time like 2026-12-31T00:00:00Z',
  (value): value is string =>
    typeof value === 'string' &&
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) &&
    !Number.isNaN(Date.parse(value)) &&
    `${new Date(value).toISOString().slice(0, 19)}Z` === value,
)

/** Names of installations, roles, profiles, classes. */
export const simpleName: Reader<string> = matching(
  'a name of 1 to 64 letters, digits, ".", "_" or "-"',
  /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
)
