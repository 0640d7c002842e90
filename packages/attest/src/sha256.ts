import { hash } from 'node:crypto'

/** Returns the SHA-256 of bytes, or of the UTF-8 form of a string, in lower-case hex. */
export function sha256Hex(data: Uint8Array | string): string {
  return hash('sha256', data, 'hex')
}
