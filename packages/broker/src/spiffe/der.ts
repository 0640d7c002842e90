// Writing DER (X.690 §10), as far as certificates need it. Only what is written here is ever encoded: nothing
// a request sent goes through, but the key, whose bytes OpenSSL has parsed and written anew. Reading is left
// to OpenSSL.

/** Tag, length and content. */
export function der(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const length = content.reduce((sum, { length: bytes }) => sum + bytes, 0)
  const digits = length < 0x80 ? [] : bigEndian(length)
  const size = length < 0x80 ? [length] : [0x80 | digits.length, ...digits]
  return Buffer.concat([Buffer.of(tag, ...size), ...content])
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts)
export const set = (...parts: readonly Uint8Array[]): Buffer => der(0x31, ...parts)
export const octets = (content: Uint8Array): Buffer => der(0x04, content)
export const utf8 = (text: string): Buffer => der(0x0c, Buffer.from(text))
export const TRUE: Buffer = der(0x01, Buffer.of(0xff))

/** A non-negative integer from its bytes, most significant first. */
export function integer(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0)
  const digits = first === -1 ? Buffer.of(0) : bytes.subarray(first)
  return der(0x02, ...((digits[0] ?? 0) >= 0x80 ? [Buffer.of(0)] : []), digits)
}

/** A bit string; `unused` bits at its end do not count. */
export function bits(content: Uint8Array, unused = 0): Buffer {
  return der(0x03, Buffer.of(unused), content)
}

/** An object identifier, such as `2.5.29.15`. */
export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const base128 = (value: number): number[] =>
    value < 0x80
      ? [value]
      : [...base128(Math.floor(value / 0x80)).map((b) => b | 0x80), value % 0x80]
  return der(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]))
}

/** A time as RFC 5280 §4.1.2.5 wants it: two digits for the year until 2049, four from then on. */
export function time(seconds: number): Buffer {
  const digits = `${new Date(seconds * 1000).toISOString().slice(0, 19).replaceAll(/[-:T]/g, '')}Z`
  return digits < '2050' ? der(0x17, Buffer.from(digits.slice(2))) : der(0x18, Buffer.from(digits))
}

function bigEndian(value: number): number[] {
  return value < 0x100 ? [value] : [...bigEndian(Math.floor(value / 0x100)), value % 0x100]
}
