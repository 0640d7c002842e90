// C2SP signed notes: text, an empty line, and one line per signature.
//
//   note       = text "\n" 1*100( "— " name " " base64( keyId[4] ‖ signature ) "\n" )
//   text       = 1*( line "\n" ), UTF-8 without control characters
//   name       = 1*( any character but white space and "+" )
//   vkey       = name "+" hex8( keyId ) "+" base64( 0x01 ‖ publicKey[32] )
//   secret key = "PRIVATE+KEY+" name "+" hex8( keyId ) "+" base64( 0x01 ‖ seed[32] )
//   keyId      = SHA-256( name ‖ 0x0A ‖ 0x01 ‖ publicKey )[:4]
//
// The last empty line separates text from signatures, so a text may contain empty lines. Signatures by
// unknown keys are skipped (a witness may add its own); a wrong one by a known key refuses the note,
// and so does a note that no known key signed.
import {
  createPrivateKey,
  createPublicKey,
  hash,
  randomBytes,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto'
import { parseBase64 } from './base64.ts'
import { LogError, quote } from './error.ts'

/** A note longer than this is refused unread; the limit of Go's implementation. */
export const MAX_NOTE_BYTES = 1_000_000

/** More signature lines than this refuse a note; the limit of Go's implementation. */
export const MAX_NOTE_SIGNATURES = 100

const ED25519 = 0x01
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')
const SECRET_PREFIX = 'PRIVATE+KEY+'

/** What checks one key's signatures; from {@link parseVkey}. `keyId` is 8 hex digits. */
export interface NoteVerifier {
  readonly name: string
  readonly keyId: string
  readonly publicKey: KeyObject
}

/** What makes one key's signatures; from {@link parseNoteKey}. `keyId` is 8 hex digits. */
export interface NoteSigner {
  readonly name: string
  readonly keyId: string
  readonly privateKey: KeyObject
}

/** A key pair as text; `secretKey` is a secret. */
export interface NoteKey {
  readonly secretKey: string
  readonly vkey: string
}

/** A note that at least one known key signed; `signers` are those that verified, in order of the lines. */
export interface OpenedNote {
  readonly text: string
  readonly signers: readonly NoteVerifier[]
}

/**
 * Makes an Ed25519 key pair for signed notes.
 * @param name by convention a schema-less URL such as the log's origin
 * @param random returns that many random bytes; from `node:crypto` unless told
 * @throws {LogError} NOTE_KEY – the name is empty or contains white space or "+"
 */
export function generateNoteKey(
  name: string,
  random: (bytes: number) => Uint8Array = randomBytes,
): NoteKey {
  const seed = random(32)
  const publicKey = rawPublicKey(privateKeyOf(seed))
  const keyId = ed25519KeyId(checkName(name), publicKey)
  return {
    secretKey: `${SECRET_PREFIX}${name}+${keyId}+${algorithmAndKey(seed)}`,
    vkey: `${name}+${keyId}+${algorithmAndKey(publicKey)}`,
  }
}

/**
 * Parses a secret key line.
 * @throws {LogError} NOTE_KEY – malformed, another algorithm, or a key id of another key; the message
 * never quotes the text
 */
export function parseNoteKey(secretKey: string): NoteSigner {
  if (!secretKey.startsWith(SECRET_PREFIX))
    throw new LogError('NOTE_KEY', `expected a secret key that starts with "${SECRET_PREFIX}"`)
  const { name, keyId, key } = parseKey(secretKey.slice(SECRET_PREFIX.length), 'secret key')
  const privateKey = privateKeyOf(key)
  checkKeyId(keyId, ed25519KeyId(name, rawPublicKey(privateKey)))
  return { name, keyId, privateKey }
}

/**
 * Parses a verifier key line.
 * @throws {LogError} NOTE_KEY – malformed, another algorithm, or a key id of another key
 */
export function parseVkey(vkey: string): NoteVerifier {
  const { name, keyId, key } = parseKey(vkey, 'vkey')
  checkKeyId(keyId, ed25519KeyId(name, key))
  const publicKey = createPublicKey({
    key: Buffer.concat([SPKI_PREFIX, key]),
    format: 'der',
    type: 'spki',
  })
  return { name, keyId, publicKey }
}

/** The vkey line of a verifier or a signer. */
export function formatVkey(key: NoteVerifier | NoteSigner): string {
  const raw = rawPublicKey('publicKey' in key ? key.publicKey : key.privateKey)
  return `${key.name}+${key.keyId}+${algorithmAndKey(raw)}`
}

/**
 * Signs a text, which must end with a newline.
 * @throws {LogError} NOTE_FORMAT – the text is empty, does not end with a newline, is not well formed or
 * contains control characters
 */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  checkText(text)
  if (signers.length === 0) throw new TypeError('a note needs at least one signer')
  const lines = signers.map((signer) => {
    const signature = sign(null, Buffer.from(text), signer.privateKey)
    const blob = Buffer.concat([Buffer.from(signer.keyId, 'hex'), signature])
    return `— ${signer.name} ${blob.toString('base64')}\n`
  })
  return `${text}\n${lines.join('')}`
}

/**
 * Verifies a note against the known keys and returns its text.
 * @throws {LogError} NOTE_FORMAT – malformed; NOTE_SIGNATURE – a known key's signature is wrong, or no
 * known key signed
 * @see https://c2sp.org/signed-note
 */
export function openNote(note: string, verifiers: readonly NoteVerifier[]): OpenedNote {
  const { text, lines } = splitNote(note)
  const signers: NoteVerifier[] = []
  for (const line of lines) {
    const { name, keyId, signature } = parseSignatureLine(line)
    const known = verifiers.filter((v) => v.name === name && v.keyId === keyId)
    // The same key twice adds nothing: the first signature decided.
    if (known.length === 0 || known.some((v) => signers.includes(v))) continue
    const verifier = known.find((v) => verify(null, Buffer.from(text), v.publicKey, signature))
    if (verifier === undefined)
      throw new LogError('NOTE_SIGNATURE', `wrong signature by ${quote(name)} (${keyId})`)
    signers.push(verifier)
  }
  if (signers.length === 0)
    throw new LogError('NOTE_SIGNATURE', 'expected a signature by a known key, saw none')
  return { text, signers }
}

function splitNote(note: string): { text: string; lines: string[] } {
  // Characters first: encoding to count bytes would allocate what the limit is there to prevent.
  if (note.length > MAX_NOTE_BYTES || Buffer.byteLength(note) > MAX_NOTE_BYTES)
    throw new LogError('NOTE_FORMAT', `expected a note of at most ${MAX_NOTE_BYTES} bytes`)
  const separator = note.lastIndexOf('\n\n')
  if (separator === -1)
    throw new LogError('NOTE_FORMAT', 'expected an empty line before the signatures, saw none')
  const text = note.slice(0, separator + 1)
  checkText(text)
  const signatures = note.slice(separator + 2)
  if (!signatures.endsWith('\n'))
    throw new LogError('NOTE_FORMAT', 'expected a newline after the last signature')
  const lines = signatures.slice(0, -1).split('\n')
  if (lines.length > MAX_NOTE_SIGNATURES)
    throw new LogError(
      'NOTE_FORMAT',
      `expected at most ${MAX_NOTE_SIGNATURES} signatures, saw ${lines.length}`,
    )
  return { text, lines }
}

function parseSignatureLine(line: string): {
  name: string
  keyId: string
  signature: Uint8Array
} {
  const [dash, name, base64, ...rest] = line.split(' ')
  const blob = base64 === undefined ? undefined : parseBase64(base64)
  const good = dash === '—' && rest.length === 0 && name !== undefined && isName(name)
  if (!good || blob === undefined || blob.length < 5)
    throw new LogError('NOTE_FORMAT', `expected "— name base64", saw ${quote(line)}`)
  return { name, keyId: blob.subarray(0, 4).toString('hex'), signature: blob.subarray(4) }
}

function checkText(text: string): void {
  if (!text.endsWith('\n'))
    throw new LogError(
      'NOTE_FORMAT',
      `expected a text that ends with a newline, saw ${quote(text)}`,
    )
  if (!text.isWellFormed() || /[\0-\x09\x0b-\x1f\ufffd]/.test(text))
    throw new LogError('NOTE_FORMAT', 'expected UTF-8 without control characters')
}

function parseKey(text: string, what: string): { name: string; keyId: string; key: Buffer } {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text)
  const [, name, keyId, base64] = match ?? []
  if (name === undefined || keyId === undefined || base64 === undefined)
    throw new LogError('NOTE_KEY', `expected a ${what} of the form name+id+base64`)
  const blob = parseBase64(base64)
  if (blob?.length !== 33 || blob[0] !== ED25519)
    throw new LogError('NOTE_KEY', `expected an Ed25519 ${what} (0x01 and 32 bytes in base64)`)
  return { name: checkName(name), keyId, key: blob.subarray(1) }
}

function checkKeyId(seen: string, expected: string): void {
  if (seen !== expected)
    throw new LogError('NOTE_KEY', `expected key id ${expected} for this name and key, saw ${seen}`)
}

function checkName(name: string): string {
  if (isName(name)) return name
  throw new LogError('NOTE_KEY', `expected a name without white space and "+", saw ${quote(name)}`)
}

function isName(name: string): boolean {
  return name !== '' && name.isWellFormed() && !/[\s+\0-\x1f\x85\ufffd]/u.test(name)
}

function ed25519KeyId(name: string, publicKey: Uint8Array): string {
  const input = Buffer.concat([Buffer.from(`${name}\n`), Buffer.of(ED25519), publicKey])
  return hash('sha256', input, 'buffer').toString('hex', 0, 4)
}

function algorithmAndKey(key: Uint8Array): string {
  return Buffer.concat([Buffer.of(ED25519), key]).toString('base64')
}

function privateKeyOf(seed: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, seed]),
    format: 'der',
    type: 'pkcs8',
  })
}

function rawPublicKey(key: KeyObject): Buffer {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return publicKey.export({ format: 'der', type: 'spki' }).subarray(SPKI_PREFIX.length)
}
