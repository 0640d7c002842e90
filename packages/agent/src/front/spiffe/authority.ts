// gRPC for Java tells the path of a unix socket as `:authority`. RFC 9113 §8.3.1 wants a host there, Node's HTTP/2
// resets the stream, and java-spiffe could not be used. So what a connection brings is looked through, and a slash in
// that one value becomes a hyphen, in place: nothing here asks for the value, and whoever is there, the kernel tells.
//
//   connection = preface, frames         RFC 9113 §3.4, §4.1
//   HEADERS    = [pad length], [priority], header block, padding          §6.2
//   block      = indexed field | literal field | new size of the table    RFC 7541 §6
//
// Only HEADERS frames are held back until they are whole, 16 KiB at most, and what does not parse is passed on as it
// is: Node's HTTP/2 remains the judge of it. Text in Huffman's code is left alone; the library does not use it.
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'

const PREFACE_BYTES = 24
const FRAME_HEAD_BYTES = 9
const MAX_FRAME_BYTES = 16_384
const HEADERS = 1
const [PADDED, PRIORITY] = [0x08, 0x20]
const PRIORITY_BYTES = 5
/** Of the static table, RFC 7541 appendix A. */
const AUTHORITY_INDEX = 1
const [SLASH, HYPHEN] = [0x2f, 0x2d]

/** `socket` as HTTP/2 shall see it. Ends with it, and ends it. */
export function withHostAsAuthority(socket: Socket): Duplex {
  const rewrite = authorityRewriter()
  const duplex = new Duplex({
    read: () => void socket.resume(),
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, () => done()),
    final: (done) => void socket.end(done),
    destroy: (_error, done) => {
      socket.destroy()
      done(null)
    },
  })
  socket.on('data', (chunk) => {
    for (const part of rewrite(chunk as Buffer)) if (!duplex.push(part)) socket.pause()
  })
  socket.on('end', () => duplex.push(null))
  socket.on('close', () => duplex.destroy())
  return duplex
}

/** Takes what a client sends, chunk by chunk, and returns what can be passed on. Chunks are altered in place. */
export function authorityRewriter(): (chunk: Buffer) => Buffer[] {
  let passing = PREFACE_BYTES
  let held: Buffer = Buffer.alloc(0)
  return (chunk) => {
    const out: Buffer[] = []
    let rest = held.length === 0 ? chunk : Buffer.concat([held, chunk])
    const pass = (bytes: number): Buffer => {
      const part = rest.subarray(0, bytes)
      rest = rest.subarray(bytes)
      out.push(part)
      return part
    }
    while (rest.length > 0) {
      if (passing > 0) {
        passing -= pass(passing).length
        continue
      }
      if (rest.length < FRAME_HEAD_BYTES) break
      const whole = FRAME_HEAD_BYTES + rest.readUIntBE(0, 3)
      if (rest[3] !== HEADERS || whole > FRAME_HEAD_BYTES + MAX_FRAME_BYTES) passing = whole
      else if (rest.length < whole) break
      else rewriteFrame(pass(whole))
    }
    held = rest
    return out
  }
}

function rewriteFrame(frame: Buffer): void {
  const flags = frame[4] ?? 0
  const isPadded = (flags & PADDED) !== 0
  const start =
    FRAME_HEAD_BYTES + (isPadded ? 1 : 0) + ((flags & PRIORITY) === 0 ? 0 : PRIORITY_BYTES)
  const padding = isPadded ? (frame[FRAME_HEAD_BYTES] ?? 0) : 0
  rewriteBlock(frame.subarray(start, Math.max(start, frame.length - padding)))
}

function rewriteBlock(block: Buffer): void {
  let at = 0
  /** RFC 7541 §5.1; undefined where the block ends too early, or for a number that no block of ours holds. */
  const integer = (prefixBits: number): number | undefined => {
    const mask = (1 << prefixBits) - 1
    let value = (block[at++] ?? 0) & mask
    if (value < mask) return value
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = block[at++]
      if (byte === undefined) return undefined
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    return undefined
  }
  /** §5.2; the bytes as they lie there. */
  const string = (): { text: Buffer; isPlain: boolean } | undefined => {
    const isPlain = (block[at] ?? 0) < 0x80
    const length = integer(7)
    if (length === undefined || at + length > block.length) return undefined
    const text = block.subarray(at, at + length)
    at += length
    return { text, isPlain }
  }
  while (at < block.length) {
    const first = block[at] ?? 0
    // §6.1 indexed field, §6.3 size of the table: nothing follows.
    if (first >= 0x80 || (first & 0xe0) === 0x20) {
      if (integer(first >= 0x80 ? 7 : 5) === undefined) return
      continue
    }
    // §6.2 literal field, which enters the table or does not.
    const index = integer(first >= 0x40 ? 6 : 4)
    const name = index === 0 ? string() : undefined
    if (index === undefined || (index === 0 && name === undefined)) return
    const value = string()
    if (value === undefined) return
    const isAuthority = index === AUTHORITY_INDEX || name?.text.toString('latin1') === ':authority'
    if (!isAuthority || !value.isPlain) continue
    for (let i = 0; i < value.text.length; i += 1)
      if (value.text[i] === SLASH) value.text[i] = HYPHEN
  }
}
