// The state directory, 0700, owned by the agent's user:
//   node.key          the node's private key, PKCS #8 PEM, 0600
//   join.json         the join token, while the node is being enrolled with it
//   node.json         what the broker called the node
//   counter.json      high-water mark of the evidence counter
//   policy.json       highest policy version seen
//   denials.json      the newest denials, for people
//   token-files.json  whose token is in which token file, and no token
//   attestations/     manifests and file lists by closure digest, as the broker sent them
//   ledger.sqlite     what of the store was verified when
//   lock.sqlite       locked while an agent uses the directory
//
// The counter is reserved in blocks before use: a crash skips numbers, and none is used twice. A number
// that is used twice tells the broker that the key was cloned.
import { mkdirSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { AgentError, quote } from '../error.ts'
import { makeStateDirectory, readOptional, writeFile } from '../state-directory.ts'

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

/** Files of the state directory. One process uses it at a time, see lockState in state-directory.ts. */
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

  /** What {@link writeDenials} wrote. */
  readDenials(): string | undefined {
    return readOptional(join(this.directory, 'denials.json'))
  }

  writeDenials(text: string): void {
    writeFile(join(this.directory, 'denials.json'), text)
  }

  /** What {@link writeTokenFiles} wrote. */
  readTokenFiles(): string | undefined {
    return readOptional(join(this.directory, 'token-files.json'))
  }

  writeTokenFiles(text: string): void {
    writeFile(join(this.directory, 'token-files.json'), text)
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

/** The first directory on the way to `path` that not everybody may enter, or undefined. */
export function findClosedDirectory(path: string): string | undefined {
  const parent = dirname(path)
  const above = parent === path ? undefined : findClosedDirectory(parent)
  return above ?? ((statSync(path).mode & 0o001) === 0 ? path : undefined)
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
