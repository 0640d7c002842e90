// Records whose every part is one number.
import { narHashFromDigest } from '@bagcheck/nix'
import type { LedgerRecord, NarHash, StorePath } from '@bagcheck/nix'
import { restoreSnapshot } from '../src/verify/snapshot.ts'

const ENTRIES = 200
const REGULAR = 0o100444n

/** The paths that every transaction of a test writes. */
export const RECORD_PATHS: readonly StorePath[] = ['a', 'b', 'c'].map(
  (name) => `/nix/store/${name.repeat(32)}-x` as StorePath,
)

/** The NAR hash of record `number`. */
export function hashOf(number: number): NarHash {
  return narHashFromDigest(Buffer.alloc(32, number % 7))
}

/** What the files of record `number` hold: a function of its NAR hash, as in a real tree. */
export function fileHashesOf(number: number, entries: number = ENTRIES): Uint8Array {
  return new Uint8Array(entries * 32).fill(number % 7)
}

/** Record `number`: see the head. */
export function recordOf(number: number, entries: number = ENTRIES): LedgerRecord {
  const stats = new BigInt64Array(new SharedArrayBuffer(entries * 40)).fill(BigInt(number))
  for (let at = 2; at < stats.length; at += 5) stats[at] = REGULAR
  const names = Array.from({ length: entries }, (_, n) => (n === 0 ? '\0' : `${number}-${n}\0`))
  return {
    narHash: hashOf(number),
    fullAtMs: number,
    attributes: number % 2 === 0,
    snapshot: restoreSnapshot(new Uint8Array(stats.buffer), Buffer.from(names.join(''))),
  }
}
