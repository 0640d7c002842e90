// The state directory, 0700, owned by the agent's user:
//   node.key          the node's private key, PKCS #8 PEM, 0600
//   join.json         the join token, while the node is being enrolled with it
//   node.json         what the broker called the node
//   counter.json      high-water mark of the evidence counter
//   policy.json       highest policy version seen
//   first-sights.json what each systemd service ran when it was first seen
//   denials.json      the newest denials, for people
//   attestations/     manifests and file lists by closure digest, as the broker sent them
//   ledger.sqlite     what of the store was verified when
//   lock.sqlite       locked while an agent uses the directory
// Every file is replaced whole: written beside, fsynced, renamed, directory fsynced. A crash leaves the old.
//
// The counter is reserved in blocks before use: a crash skips numbers, and none is used twice. A number
// that is used twice tells the broker that the key was cloned.
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { AgentError, quote } from '../error.ts'

const COUNTER_BLOCK = 1000

/** The node as the broker enrolled it. */
export interface NodeIdentity {
  readonly node: string
  readonly nodeClass: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
  /** RFC 7638 thumbprint of the node key. */
  readonly keyThumbprint: string
}

/** Files of the state directory. One process uses it at a time, see {@link lockState}. */
export class AgentState {
  readonly directory: string
  // Evidence counter: the next number, and the first that is not reserved on disk.
  #counter: number
  #reserved: number

  private constructor(directory: string, reserved: number) {
    this.directory = directory
    this.#counter = reserved
    this.#reserved = reserved
  }

  /** @throws {AgentError} KEY_FILE_MODE, STATE_INVALID */
  static open(directory: string): AgentState {
    makeStateDirectory(directory)
    mkdirSync(join(directory, 'attestations'), { recursive: true, mode: 0o700 })
    const stored = readJson(join(directory, 'counter.json'))
    const reserved = stored === undefined ? 1 : stored['reserved']
    if (!Number.isSafeInteger(reserved) || (reserved as number) < 1)
      throw new AgentError('STATE_INVALID', `expected a counter, saw ${quote(reserved)}`)
    return new AgentState(directory, reserved as number)
  }

  /** A number greater than any before, also across restarts. */
  nextCounter(): number {
    if (this.#counter >= this.#reserved) {
      const reserved = this.#counter + COUNTER_BLOCK
      writeFile(join(this.directory, 'counter.json'), JSON.stringify({ reserved }))
      this.#reserved = reserved
    }
    return this.#counter++
  }

  /** @throws {AgentError} STATE_INVALID */
  readNode(): NodeIdentity | undefined {
    const value = readJson(join(this.directory, 'node.json'))
    if (value === undefined) return undefined
    const { node, nodeClass, expiresAt, keyThumbprint } = value
    if (
      typeof node !== 'string' ||
      typeof nodeClass !== 'string' ||
      !Number.isSafeInteger(expiresAt) ||
      typeof keyThumbprint !== 'string'
    )
      throw new AgentError('STATE_INVALID', 'expected {node, nodeClass, expiresAt, keyThumbprint}')
    return { node, nodeClass, expiresAt: expiresAt as number, keyThumbprint }
  }

  writeNode(node: NodeIdentity): void {
    writeFile(join(this.directory, 'node.json'), JSON.stringify(node))
  }

  /** The join token that the broker was asked with, if its answer never arrived here. */
  readPendingJoin(): string | undefined {
    return readOptional(this.#pendingJoin)
  }

  writePendingJoin(envelope: string): void {
    writeFile(this.#pendingJoin, envelope)
  }

  dropPendingJoin(): void {
    rmSync(this.#pendingJoin, { force: true })
  }

  /** The highest policy version seen, 0 if none. @throws {AgentError} STATE_INVALID */
  readPolicyVersion(): number {
    const version = readJson(join(this.directory, 'policy.json'))?.['version'] ?? 0
    if (Number.isSafeInteger(version) && (version as number) >= 0) return version as number
    throw new AgentError('STATE_INVALID', `expected a policy version, saw ${quote(version)}`)
  }

  writePolicyVersion(version: number): void {
    writeFile(join(this.directory, 'policy.json'), JSON.stringify({ version }))
  }

  /** A cached text about the closure `digest`, as it was stored; the caller checks it. */
  readAttestation(digest: string): string | undefined {
    return readOptional(this.#attestation(digest))
  }

  writeAttestation(digest: string, text: string): void {
    writeFile(this.#attestation(digest), text)
  }

  /** What {@link writeFirstSights} wrote; the reader checks it. */
  readFirstSights(): string | undefined {
    return readOptional(join(this.directory, 'first-sights.json'))
  }

  writeFirstSights(text: string): void {
    writeFile(join(this.directory, 'first-sights.json'), text)
  }

  /** What {@link writeDenials} wrote. */
  readDenials(): string | undefined {
    return readOptional(join(this.directory, 'denials.json'))
  }

  writeDenials(text: string): void {
    writeFile(join(this.directory, 'denials.json'), text)
  }

  get ledgerFile(): string {
    return join(this.directory, 'ledger.sqlite')
  }

  get keyFile(): string {
    return join(this.directory, 'node.key')
  }

  get #pendingJoin(): string {
    return join(this.directory, 'join.json')
  }

  #attestation(digest: string): string {
    if (!/^[0-9a-f]{64}$/.test(digest)) throw new TypeError('a closure digest is 64 hex digits')
    return join(this.directory, 'attestations', `${digest}.json`)
  }
}

/** Replaces `path` (mode 0600), durably. */
export function writeFile(path: string, text: string): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    writeSync(fd, text)
    fsyncSync(fd)
  } catch (error) {
    unlinkSync(temporary)
    throw error
  } finally {
    closeSync(fd)
  }
  renameSync(temporary, path)
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/**
 * Reads a file that only its owner may read.
 * @throws {AgentError} KEY_FILE_MODE
 */
export function readSecret(path: string): string | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    assertMode(path, fstatSync(fd), 0o600)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/** Makes the state directory if there is none. @throws {AgentError} KEY_FILE_MODE */
export function makeStateDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  assertMode(directory, lstatSync(directory), 0o700)
}

/**
 * Keeps every other agent off `directory` until disposed of, or until this process ends, however it ends:
 * two agents on one counter would look like a cloned key, and be banned.
 * @throws {AgentError} STATE_INVALID if another agent has it
 */
export function lockState(directory: string): Disposable {
  const file = join(directory, 'lock.sqlite')
  const database = new DatabaseSync(file)
  try {
    chmodSync(file, 0o600)
    database.exec('begin exclusive')
  } catch (cause) {
    database.close()
    throw new AgentError('STATE_INVALID', `another agent uses ${quote(directory)}`, { cause })
  }
  return { [Symbol.dispose]: () => database.close() }
}

/** Makes a socket's directory, which everybody may enter and only its owner change, if there is none. */
export function makePublicDirectory(path: string): void {
  const made = mkdirSync(path, { recursive: true, mode: 0o755 })
  if (made !== undefined) chmodSync(path, 0o755) // whatever the umask
}

/** The first directory on the way to `path` that not everybody may enter, or undefined. */
export function findClosedDirectory(path: string): string | undefined {
  const parent = dirname(path)
  const above = parent === path ? undefined : findClosedDirectory(parent)
  return above ?? ((statSync(path).mode & 0o001) === 0 ? path : undefined)
}

function assertMode(path: string, stats: { mode: number; uid: number }, mode: number): void {
  const owner = process.geteuid?.()
  if ((stats.mode & 0o777) === mode && stats.uid === owner) return
  throw new AgentError(
    'KEY_FILE_MODE',
    `expected ${quote(path)} with mode ${mode.toString(8)} of user ${owner}, ` +
      `saw mode ${(stats.mode & 0o777).toString(8)} of user ${stats.uid}`,
  )
}

function readJson(path: string): Record<string, unknown> | undefined {
  const text = readOptional(path)
  if (text === undefined) return undefined
  try {
    const value = JSON.parse(text) as unknown
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (cause) {
    throw new AgentError('STATE_INVALID', `expected JSON in ${quote(path)}`, { cause })
  }
  throw new AgentError('STATE_INVALID', `expected a JSON object in ${quote(path)}`)
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
