// Files that hold secrets: 0600, owned by the user that the broker runs as, never followed through a
// symbolic link. A wrong mode stops the broker instead of being mended, because whoever could read the
// file so far still has what was in it.
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { BrokerError, quote } from './error.ts'

const MAX_SECRET_BYTES = 64 * 1024

/**
 * Reads a secret file.
 * @throws {BrokerError} KEY_FILE_INVALID – missing, no regular file, too large; KEY_FILE_OWNER –
 * another user's; KEY_FILE_MODE – readable or writable by others
 */
export function readSecretFile(file: string): string {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    throw new BrokerError('KEY_FILE_INVALID', `expected a readable file ${quote(file)}`, { cause })
  }
  try {
    const { mode, uid, size } = fstatSync(fd)
    if ((mode & constants.S_IFMT) !== constants.S_IFREG || size > MAX_SECRET_BYTES)
      throw new BrokerError('KEY_FILE_INVALID', `expected a regular, small file ${quote(file)}`)
    if (uid !== process.geteuid?.())
      throw new BrokerError(
        'KEY_FILE_OWNER',
        `expected ${quote(file)} to belong to uid ${process.geteuid?.()}, saw ${uid}`,
      )
    if ((mode & 0o177) !== 0)
      throw new BrokerError(
        'KEY_FILE_MODE',
        `expected mode 0600 of ${quote(file)}, saw ${(mode & 0o7777).toString(8).padStart(4, '0')}; ` +
          'chmod 600, and make a new key if somebody else may have read it',
      )
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/**
 * Reads a secret, making it first where it is missing. Written whole under another name, synced, and
 * only then linked to its own: a crash leaves no half secret, and of two starts one wins.
 */
export function loadOrCreateSecret(file: string, create: () => string): string {
  if (!exists(file)) {
    const temporary = `${file}.${process.pid}.new`
    writeNew(temporary, create())
    try {
      linkSync(temporary, file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    } finally {
      unlinkSync(temporary)
    }
    syncDirectory(dirname(file))
  }
  return readSecretFile(file)
}

/**
 * Makes the state directory (0700) or checks that only its owner can write to it.
 * @throws {BrokerError} STATE_DIR
 */
export function openStateDir(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const { uid, mode } = statSync(dir)
  if (uid !== process.geteuid?.() || (mode & 0o022) !== 0)
    throw new BrokerError(
      'STATE_DIR',
      `expected ${quote(dir)} to belong to uid ${process.geteuid?.()} and to be writable by it alone, ` +
        `saw uid ${uid}, mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`,
    )
}

function exists(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false }) !== undefined
}

function writeNew(file: string, text: string): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  const fd = openSync(file, flags, 0o600)
  try {
    writeSync(fd, text)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function syncDirectory(dir: string): void {
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
