// Protocol Buffers, as much as the Workload API needs: messages described by data, from which come the
// encoding, the decoding and what server reflection tells. Wire format: a field is a varint tag
// `number << 3 | type`, then a varint (type 0), eight bytes (1), or a length and so many bytes (2).
//
// A field that is undefined is not written; all else is, also zero, which a oneof needs. What is read may
// come from anybody: lengths are checked before anything is taken, unknown fields are stepped over, and the
// last of several values of a single field counts, as the format demands.
import { AgentError } from '../../error.ts'

const TYPES = { double: 1, int32: 5, bool: 8, string: 9, message: 11, bytes: 12, enum: 14 } as const
type Kind = keyof typeof TYPES

/** A field; `Value` is its type in a message. */
export interface Field<Value> {
  readonly number: number
  readonly kind: Kind
  readonly label: 'single' | 'repeated' | 'map'
  /** Of a message field; a function, because messages can hold themselves. */
  readonly of?: () => MessageType<Fields>
  /** Name of an enum. */
  readonly enum?: string
  /** Name of the oneof that the field is in. */
  readonly oneof?: string
  /** Only for the type system: there is no such member. */
  readonly value?: Value
}

type Fields = Readonly<Record<string, Field<unknown>>>

/** A message: its full name, and its fields by name. */
export interface MessageType<F extends Fields> {
  readonly name: string
  readonly fields: F
}

/** What a message of this type is in memory. */
export type MessageOf<M> =
  M extends MessageType<infer F>
    ? { readonly [K in keyof F]?: F[K] extends Field<infer Value> ? Value : never }
    : never

const single = <Value>(number: number, kind: Kind): Field<Value> => ({
  ...{ number, kind, label: 'single' },
})
export const string = (number: number): Field<string> => single(number, 'string')
export const bytes = (number: number): Field<Uint8Array> => single(number, 'bytes')
export const bool = (number: number): Field<boolean> => single(number, 'bool')
export const int32 = (number: number): Field<number> => single(number, 'int32')
export const double = (number: number): Field<number> => single(number, 'double')
export const enumeration = (number: number, name: string): Field<number> => ({
  ...single<number>(number, 'enum'),
  enum: name,
})
export const nested = <M extends MessageType<Fields>>(
  number: number,
  of: () => M,
): Field<MessageOf<M>> => ({ ...single(number, 'message'), of })
export const repeated = <Value>(field: Field<Value>): Field<readonly Value[]> =>
  ({ ...field, label: 'repeated' }) as Field<unknown> as Field<readonly Value[]>
/** Keys are strings. */
export const mapOf = <Value>(field: Field<Value>): Field<Readonly<Record<string, Value>>> =>
  ({ ...field, label: 'map' }) as Field<unknown> as Field<Readonly<Record<string, Value>>>
export const inOneof = <Value>(oneof: string, field: Field<Value>): Field<Value> => ({
  ...field,
  oneof,
})

export function message<F extends Fields>(name: string, fields: F): MessageType<F> {
  return { name, fields }
}

/** The bytes of a message in pieces. Contents are not copied: who wipes a key that is in it, wipes it here. */
export function encode<F extends Fields>(
  type: MessageType<F>,
  value: MessageOf<MessageType<F>>,
): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (const [name, field] of Object.entries(type.fields)) {
    const content = (value as Readonly<Record<string, unknown>>)[name]
    if (content === undefined) continue
    if (field.label === 'repeated')
      for (const item of content as readonly unknown[]) parts.push(...encodeField(field, item))
    else if (field.label === 'map')
      for (const [key, item] of Object.entries(content as Readonly<Record<string, unknown>>)) {
        const entry = [...encodeField(KEY, key), ...encodeField({ ...field, number: 2 }, item)]
        parts.push(...delimited(field.number, entry))
      }
    else parts.push(...encodeField(field, content))
  }
  return parts
}

const KEY: Field<string> = string(1)

function encodeField(field: Field<unknown>, value: unknown): Uint8Array[] {
  switch (field.kind) {
    case 'string':
      return delimited(field.number, [Buffer.from(value as string)])
    case 'bytes':
      return delimited(field.number, [value as Uint8Array])
    case 'message':
      return delimited(field.number, encode(messageOf(field), value as Record<string, never>))
    case 'double': {
      const eight = Buffer.alloc(8)
      eight.writeDoubleLE(value as number)
      return [varint((field.number << 3) | 1), eight]
    }
    case 'bool':
    case 'int32':
    case 'enum':
      return [varint(field.number << 3), varint(Number(value))]
  }
}

function delimited(number: number, content: readonly Uint8Array[]): Uint8Array[] {
  const length = content.reduce((total, part) => total + part.length, 0)
  return [varint((number << 3) | 2), varint(length), ...content]
}

/** A whole number from 0 to 2^53: nothing of ours is negative. */
function varint(value: number): Buffer {
  const out: number[] = []
  let left = value
  for (; left > 127; left = Math.floor(left / 128)) out.push((left % 128) | 128)
  return Buffer.from([...out, left])
}

/**
 * Reads a message of known fields; what it does not hold is undefined. Maps are written only, never read.
 * @throws {AgentError} REQUEST_INVALID
 */
export function decode<F extends Fields>(
  type: MessageType<F>,
  input: Uint8Array,
): MessageOf<MessageType<F>> {
  const names = new Map(
    Object.entries(type.fields).map(([name, field]) => [field.number, { name, field }]),
  )
  const value: Record<string, unknown> = {}
  let at = 0
  const readVarint = (): number => {
    let result = 0
    for (let scale = 1; scale <= 2 ** 63; scale *= 128) {
      const byte = input[at++]
      if (byte === undefined) throw malformed(type.name)
      result += (byte & 127) * scale
      if (byte < 128) return result
    }
    throw malformed(type.name)
  }
  const take = (length: number): Buffer => {
    if (length > input.length - at) throw malformed(type.name)
    const part = Buffer.from(input.subarray(at, at + length))
    at += length
    return part
  }
  while (at < input.length) {
    const tag = readVarint()
    const number = Math.floor(tag / 8)
    const wire = tag % 8
    if (number === 0) throw malformed(type.name)
    const seen =
      wire === 0
        ? readVarint()
        : take(wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? readVarint() : NaN)
    const known = names.get(number)
    if (known === undefined) continue
    const item = decodeField(known.field, seen, type.name)
    if (known.field.label === 'repeated') ((value[known.name] ??= []) as unknown[]).push(item)
    else value[known.name] = item
  }
  return value as MessageOf<MessageType<F>>
}

function decodeField(field: Field<unknown>, seen: number | Buffer, name: string): unknown {
  if (typeof seen === 'number') {
    if (field.kind === 'bool') return seen !== 0
    if (field.kind === 'int32' || field.kind === 'enum') return seen
    throw malformed(name)
  }
  if (field.kind === 'bytes') return seen
  if (field.kind === 'message') return decode(messageOf(field), seen)
  if (field.kind !== 'string') throw malformed(name)
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(seen)
  } catch {
    throw malformed(name)
  }
}

function messageOf(field: Field<unknown>): MessageType<Fields> {
  if (field.of === undefined) throw new TypeError('expected a field that holds a message')
  return field.of()
}

/** Number of a field's type in a descriptor. */
export function typeNumber(field: Field<unknown>): number {
  return TYPES[field.kind]
}

function malformed(name: string): AgentError {
  return new AgentError('REQUEST_INVALID', `expected a message ${name}`)
}
