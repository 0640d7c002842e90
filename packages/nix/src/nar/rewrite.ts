// Replaces store hashes in a stream. Nix finds references as it is done here: any 32 characters of nix32 that are
// the hash of a known path, wherever they stand. A replacement has the same length, so that nothing else moves.
import { createHash } from 'node:crypto'
import { narHashFromDigest } from '../hash.ts'
import type { NarHash } from '../hash.ts'

const HASH_BYTES = 32
const ALPHABET = '0123456789abcdfghijklmnpqrsvwxyz'
const IS_NIX32 = Uint8Array.from({ length: 256 }, (_, byte) =>
  ALPHABET.includes(String.fromCharCode(byte)) ? 1 : 0,
)

/**
 * The bytes of `chunks` with each hash that is a key of `replacements` replaced by its value, also across the
 * borders of chunks. Holds one chunk at a time.
 *
 * @param replacements both sides are the 32 characters of a store path's hash.
 */
export async function* rewriteHashes(
  chunks: AsyncIterable<Uint8Array>,
  replacements: ReadonlyMap<string, string>,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (const [from, to] of replacements)
    if (from.length !== HASH_BYTES || to.length !== HASH_BYTES)
      throw new TypeError('a store hash has 32 characters')
  let rest: Uint8Array = new Uint8Array()
  for await (const chunk of chunks) {
    const bytes = Buffer.concat([rest, chunk])
    const settled = rewriteIn(bytes, replacements)
    yield bytes.subarray(0, settled)
    rest = bytes.subarray(settled)
  }
  yield rest
}

/** Replaces in place; up to the returned offset nothing that follows can matter. */
function rewriteIn(bytes: Buffer, replacements: ReadonlyMap<string, string>): number {
  let at = 0
  while (at + HASH_BYTES <= bytes.length) {
    // From the back: the last other byte rules out every start before it.
    let last = at + HASH_BYTES - 1
    while (last >= at && IS_NIX32[bytes[last] ?? 0] === 1) last--
    if (last >= at) {
      at = last + 1
      continue
    }
    const replacement = replacements.get(bytes.toString('latin1', at, at + HASH_BYTES))
    if (replacement === undefined) {
      at += 1
      continue
    }
    bytes.write(replacement, at, 'latin1')
    at += HASH_BYTES
  }
  return at
}

/** The NAR hash that `chunks`, an archive, has after {@link rewriteHashes}. */
export async function hashRewritten(
  chunks: AsyncIterable<Uint8Array>,
  replacements: ReadonlyMap<string, string>,
): Promise<NarHash> {
  const digest = createHash('sha256')
  for await (const chunk of rewriteHashes(chunks, replacements)) digest.update(chunk)
  return narHashFromDigest(digest.digest())
}
