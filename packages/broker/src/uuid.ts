// RFC 9562 §5.7: 48 bits of milliseconds, version, 74 random bits. Sorts by time; used for decision ids,
// which are also the `jti` of the tokens they allow.

/** A UUIDv7. `random` is 10 fresh random bytes. */
export function uuidV7(nowMs: number, random: Uint8Array): string {
  if (random.length !== 10) throw new TypeError('a UUIDv7 needs 10 random bytes')
  const bytes = Buffer.alloc(16)
  bytes.writeUIntBE(nowMs, 0, 6)
  bytes.set(random, 6)
  bytes[6] = 0x70 | (bytes[6]! & 0x0f)
  bytes[8] = 0x80 | (bytes[8]! & 0x3f)
  const hex = bytes.toString('hex')
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-')
}
