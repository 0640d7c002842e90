// Reads below /proc. These files have no size, their reads can fail at any moment because the process
// ends, and their content is partly chosen by the process: every read is bounded.
import { closeSync, openSync, readlinkSync, readSync, statfsSync } from 'node:fs'
import { AgentError } from '../error.ts'

/** `f_type` of procfs, <linux/magic.h>. */
const PROC_SUPER_MAGIC = 0x9fa0
const CHUNK_BYTES = 64 * 1024
/** What is read comes here first. A measurement reads some hundred files, and a buffer for each would wake V8's
 * collector again and again. */
const scratch = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/**
 * Checks that /proc is procfs: whoever could mount something else there could tell us anything.
 * @throws {AgentError} PROC_NOT_PROCFS
 */
export function assertProcfs(path = '/proc'): void {
  const { type } = statfsSync(path)
  if (type === PROC_SUPER_MAGIC) return
  throw new AgentError('PROC_NOT_PROCFS', `expected procfs at ${path}, saw type ${type}`)
}

/**
 * The whole content of a /proc file.
 * @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE; MEASUREMENT_LIMIT if it is larger than `maxBytes`
 */
export function readProcFile(path: string, maxBytes: number): Buffer {
  return asProcError(path, () => {
    const fd = openSync(path, 'r')
    try {
      const chunks: Buffer[] = []
      let total = 0
      let filled = 0
      for (;;) {
        // The kernel gives a page at a time of a file of any length.
        const read = readSync(fd, scratch, filled, CHUNK_BYTES - filled, null)
        total += read
        filled += read
        if (total > maxBytes)
          throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${maxBytes} bytes in ${path}`)
        if (read > 0 && filled < CHUNK_BYTES / 2) continue
        chunks.push(Buffer.from(scratch.subarray(0, filled)))
        filled = 0
        if (read === 0) break
      }
      return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)
    } finally {
      closeSync(fd)
    }
  })
}

/** Like {@link readProcFile}, as text; bytes that are not UTF-8 become U+FFFD. */
export function readProcText(path: string, maxBytes: number): string {
  return readProcFile(path, maxBytes).toString('utf8')
}

/** Target of a magic link, as the kernel prints it: a name for people. */
export function readProcLink(path: string): string {
  return asProcError(path, () => readlinkSync(path))
}

/** Runs `read` and turns its system errors into coded ones. */
export function asProcError<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof AgentError) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH')
      throw new AgentError('PROCESS_GONE', `${path}: the process is gone`, { cause: error })
    throw new AgentError('PROC_UNREADABLE', `cannot read ${path}: ${code ?? String(error)}`, {
      cause: error,
    })
  }
}
