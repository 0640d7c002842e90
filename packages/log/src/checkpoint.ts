// C2SP tlog-checkpoint: the text of a signed note that commits to one tree.
//
//   checkpoint = origin "\n" size "\n" base64( root[32] ) "\n" *( extension "\n" )
//
// `size` is decimal without sign or leading zeros. The origin names the log and is the name of the key
// that must have signed: a checkpoint of one log cannot pass as another's.
import { parseBase64 } from './base64.ts'
import { LogError, quote } from './error.ts'
import { HASH_BYTES, checkHash } from './hashing.ts'
import { openNote, parseVkey, signNote, type NoteSigner } from './note.ts'
import { checkSize } from './tree.ts'

/** One state of a log. `extensions` are further lines, opaque to us, usually none. */
export interface Checkpoint {
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
  readonly extensions?: readonly string[]
}

/**
 * The text of a checkpoint, ready to be signed.
 * @throws {LogError} CHECKPOINT_FORMAT – an empty or multi-line origin or extension; LOG_SIZE, LOG_HASH
 */
export function formatCheckpoint(checkpoint: Checkpoint): string {
  const { origin, size, root, extensions = [] } = checkpoint
  checkSize(size)
  checkHash(root, 'root')
  for (const line of [origin, ...extensions]) {
    if (line === '' || line.includes('\n'))
      throw new LogError('CHECKPOINT_FORMAT', `expected one non-empty line, saw ${quote(line)}`)
  }
  const lines = [origin, String(size), Buffer.from(root).toString('base64'), ...extensions]
  return `${lines.join('\n')}\n`
}

/**
 * Parses the text of a checkpoint; says nothing about who signed it.
 * @throws {LogError} CHECKPOINT_FORMAT – not exactly what {@link formatCheckpoint} writes; LOG_SIZE – the
 * size is above 2^53 − 1
 */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin, sizeText, rootText, ...rest] = text.split('\n')
  const end = rest.pop()
  if (end !== '' || !origin || sizeText === undefined || rootText === undefined)
    throw new LogError('CHECKPOINT_FORMAT', `expected origin, size and root, saw ${quote(text)}`)
  if (!/^(0|[1-9][0-9]{0,18})$/.test(sizeText))
    throw new LogError('CHECKPOINT_FORMAT', `expected a decimal size, saw ${quote(sizeText)}`)
  const root = parseBase64(rootText)
  if (root?.length !== HASH_BYTES)
    throw new LogError('CHECKPOINT_FORMAT', `expected a base64 root, saw ${quote(rootText)}`)
  if (rest.includes(''))
    throw new LogError('CHECKPOINT_FORMAT', 'expected no empty extension line, saw one')
  const checkpoint = { origin, size: checkSize(Number(sizeText)), root }
  return rest.length === 0 ? checkpoint : { ...checkpoint, extensions: rest }
}

/**
 * Signs a checkpoint with the log's key.
 * @throws {LogError} CHECKPOINT_ORIGIN – the key's name is not the origin; and as {@link formatCheckpoint}
 */
export function signCheckpoint(checkpoint: Checkpoint, signer: NoteSigner): string {
  if (signer.name !== checkpoint.origin) throw otherOrigin(signer.name, checkpoint.origin)
  return signNote(formatCheckpoint(checkpoint), [signer])
}

/**
 * Verifies a signed checkpoint: one of `vkeys`, named like the checkpoint's origin, signed it.
 * @throws {LogError} NOTE_KEY – a vkey is malformed; NOTE_FORMAT, NOTE_SIGNATURE – the note is not signed
 * so; CHECKPOINT_FORMAT, LOG_SIZE – its text is malformed; CHECKPOINT_ORIGIN – another log's key signed
 * @see https://c2sp.org/tlog-checkpoint
 */
export function openCheckpoint(note: string, vkeys: readonly string[]): Checkpoint {
  const { text, signers } = openNote(note, vkeys.map(parseVkey))
  const checkpoint = parseCheckpoint(text)
  if (!signers.some(({ name }) => name === checkpoint.origin))
    throw otherOrigin(signers.map(({ name }) => name).join(' '), checkpoint.origin)
  return checkpoint
}

function otherOrigin(signers: string, origin: string): LogError {
  const message = `expected a key named ${quote(origin)}, saw ${quote(signers)}`
  return new LogError('CHECKPOINT_ORIGIN', message)
}
