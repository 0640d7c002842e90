// Nix's base 32: the digest is a little-endian integer, written most significant group first.
// The alphabet leaves out e, o, u and t, so that no hash spells a word.
// https://github.com/NixOS/nix/blob/master/src/libutil/base-nix-32.cc
import { NixError, quote } from './error.ts'

const ALPHABET = '0123456789abcdfghijklmnpqrsvwxyz'

/** The number of nix32 characters that encode `byteLength` bytes. */
export function nix32Length(byteLength: number): number {
  return Math.ceil((byteLength * 8) / 5)
}

/** `bytes` in nix32, {@link nix32Length} characters. */
export function encodeNix32(bytes: Uint8Array): string {
  let text = ''
  for (let n = nix32Length(bytes.length) - 1; n >= 0; n--) {
    const bit = n * 5
    const index = bit >> 3
    const pair = (bytes[index] ?? 0) | ((bytes[index + 1] ?? 0) << 8)
    text += ALPHABET[(pair >> (bit & 7)) & 31]
  }
  return text
}

/**
 * The `byteLength` bytes that `text` encodes.
 *
 * @throws {NixError} NIX32 – wrong length, a character outside the alphabet, or bits beyond the last
 * byte (two texts would mean the same bytes).
 */
export function decodeNix32(text: string, byteLength: number): Uint8Array {
  const length = nix32Length(byteLength)
  if (text.length !== length)
    throw new NixError('NIX32', `expected ${length} nix32 characters, got ${quote(text)}`)
  const bytes = new Uint8Array(byteLength)
  for (let n = 0; n < length; n++) {
    const character = text[length - 1 - n] as string // in range by the loop
    const group = ALPHABET.indexOf(character)
    if (group < 0)
      throw new NixError('NIX32', `expected nix32, got ${quote(character)} in ${quote(text)}`)
    const bit = n * 5
    const index = bit >> 3
    const pair = group << (bit & 7)
    bytes[index] = (bytes[index] ?? 0) | (pair & 0xff)
    const carry = pair >> 8
    if (index + 1 < byteLength) bytes[index + 1] = (bytes[index + 1] ?? 0) | carry
    else if (carry !== 0)
      throw new NixError('NIX32', `expected zero bits after the last byte in ${quote(text)}`)
  }
  return bytes
}
