// Files that commands read and write. Writing is atomic (temporary file, fsync, rename, fsync of the
// directory), so that a reader never sees half a file and a crash leaves the old one or the new one.
import { constants } from 'node:fs'
import { mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { NixError } from '@bagcheck/nix'
import { CliError } from './error.ts'

/** Reads a whole file of at most `maxBytes`. @throws {CliError} FILE_UNREADABLE */
export async function readInput(file: string, maxBytes: number): Promise<Buffer> {
  try {
    const { size } = await stat(file)
    if (size > maxBytes)
      throw new Error(`it has ${size} bytes, more than the ${maxBytes} that are read`)
    return await readFile(file)
  } catch (error) {
    throw new CliError('FILE_UNREADABLE', `${file} cannot be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

/**
 * What `parse` makes of a file of at most `maxBytes`. What it finds wrong is said of the file by name: a command may
 * have been given several.
 * @throws {CliError} FILE_UNREADABLE
 * @throws {NixError} what `parse` throws
 */
export async function parseInput<T>(
  file: string,
  maxBytes: number,
  parse: (bytes: Uint8Array) => T,
): Promise<T> {
  const bytes = await readInput(file, maxBytes)
  try {
    return parse(bytes)
  } catch (cause) {
    if (!(cause instanceof NixError)) throw cause
    const { code, detail, message } = cause
    throw new NixError(code, `${file}: ${message}`, { cause, detail })
  }
}

/** Largest key, envelope or other small document that is read. */
export const MAX_SMALL_BYTES: number = 1024 * 1024

export async function readSmallText(file: string): Promise<string> {
  return (await readInput(file, MAX_SMALL_BYTES)).toString('utf8')
}

/**
 * What a reading comes to, or undefined where the file is not there. A file that is there and cannot be
 * read is an error: whoever takes it for missing writes over it or decides without it.
 * @throws {CliError} FILE_UNREADABLE
 */
export async function ifThere<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } }
    if (code === 'ENOENT' || cause?.code === 'ENOENT') return undefined
    if (error instanceof CliError) throw error
    throw new CliError('FILE_UNREADABLE', (error as Error).message, { cause: error })
  }
}

/** Writes a file atomically. @throws {CliError} FILE_UNWRITABLE */
export async function writeOutput(
  file: string,
  content: string | Uint8Array,
  mode = 0o644,
): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`
  try {
    await mkdir(dirname(file), { recursive: true })
    const handle = await open(temporary, 'w', mode)
    try {
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
    await syncDirectory(dirname(file))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined) // what matters is the first error
    throw new CliError(
      'FILE_UNWRITABLE',
      `${file} cannot be written: ${(error as Error).message}`,
      {
        cause: error,
      },
    )
  }
}

/**
 * Makes a directory of mode 0700, or takes an empty one that is there. Those above it are never made: a
 * mistyped path must not get keys.
 * @throws {CliError} FILE_EXISTS – there is something in it; FILE_UNWRITABLE
 */
export async function makeNewDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { mode: 0o700 })
  } catch (error) {
    const entries = await readdir(directory).catch(() => undefined)
    if (entries?.length === 0) return
    if (entries !== undefined)
      throw new CliError('FILE_EXISTS', `${directory} is there and not empty; name a new directory`)
    const { code, message } = error as NodeJS.ErrnoException
    const hint = code === 'ENOENT' ? `; make ${dirname(directory)} first` : ''
    throw new CliError('FILE_UNWRITABLE', `${directory} cannot be made: ${message}${hint}`)
  }
}

/**
 * Writes a secret: mode 0600, never over a file that is there, and into a directory that is there.
 * @throws {CliError} FILE_EXISTS, FILE_UNWRITABLE
 */
export async function writeSecret(file: string, content: string): Promise<void> {
  const handle = await open(
    file,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  ).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST')
      throw new CliError('FILE_EXISTS', `${file} is there already; keys are never overwritten`)
    const hint = error.code === 'ENOENT' ? `; make ${dirname(file)} first` : ''
    throw new CliError('FILE_UNWRITABLE', `${file} cannot be written: ${error.message}${hint}`)
  })
  try {
    await handle.writeFile(content)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await syncDirectory(dirname(file))
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
