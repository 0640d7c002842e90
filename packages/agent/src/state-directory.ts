// Directories and files that only their owner may read: how they are made, checked, replaced and locked. Modes
// and owners are checked and never mended: whoever could read a file so far may have read it.
//
// Every file is replaced whole: written beside, fsynced, renamed, directory fsynced. A crash leaves the old.
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { AgentError, quote } from './error.ts'

/** Replaces `path`, durably. */
export function writeFile(path: string, text: string, mode = 0o600): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    if (mode !== 0o600) fchmodSync(fd, mode)
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
 * @param waitMs for one that is just ending
 * @throws {AgentError} STATE_INVALID if another agent has it
 */
export function lockState(directory: string, waitMs = 0): Disposable {
  const file = join(directory, 'lock.sqlite')
  const database = new DatabaseSync(file, { timeout: waitMs })
  try {
    chmodSync(file, 0o600)
    database.exec('begin exclusive')
  } catch (cause) {
    database.close()
    throw new AgentError('STATE_INVALID', `another agent uses ${quote(directory)}`, { cause })
  }
  return { [Symbol.dispose]: () => database.close() }
}

/** The text of a file, undefined if there is none. */
export function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
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
