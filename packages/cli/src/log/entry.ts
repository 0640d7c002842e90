// One entry of the log with its way to a signed checkpoint.
import type { LogEntryResponse } from '@bagcheck/api'
import { leafHash, openCheckpoint, parseCheckpoint, verifyInclusion } from '@bagcheck/log'
import type { Checkpoint } from '@bagcheck/log'
import type { TrustRoot } from '@bagcheck/policy'

/** The text of a signed note, without its signatures. */
const noteText = (note: string): string => note.slice(0, note.indexOf('\n\n') + 1)

/** Opens a checkpoint with the keys of a trust root; without one, says only what is written there. */
export function readCheckpoint(note: string, trust: TrustRoot | undefined): Checkpoint {
  return trust === undefined
    ? parseCheckpoint(noteText(note))
    : openCheckpoint(note, trust.log.keys)
}

/** @throws {LogError} – the entry is not in the tree of the checkpoint */
export function verifyEntry(entry: LogEntryResponse, checkpoint: Checkpoint): void {
  verifyInclusion({
    leafHash: leafHash(Buffer.from(entry.leaf, 'base64')),
    index: entry.index,
    size: checkpoint.size,
    root: checkpoint.root,
    proof: entry.proof.map((hash) => Buffer.from(hash, 'base64')),
  })
}
