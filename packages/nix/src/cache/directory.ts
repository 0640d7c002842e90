// A binary cache in a directory, as `nix copy --to file://…` makes it.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { NixError, quote } from '../error.ts'
import type { CacheStorage } from './storage.ts'

/** The files of the cache in `directory`. */
export function directoryStorage(directory: string, signal?: AbortSignal): CacheStorage {
  return {
    async read(name, maxBytes) {
      const file = join(directory, name)
      try {
        signal?.throwIfAborted()
        await using handle = await openFile(file)
        const stat = await handle.stat()
        // One byte more than may be: a file that is too long, or grows meanwhile, shows itself.
        const buffer = Buffer.alloc(Math.min(stat.size, maxBytes) + 1)
        let size = 0
        for (;;) {
          const { bytesRead } = await handle.read(buffer, size, buffer.length - size)
          size += bytesRead
          if (bytesRead === 0) break
          if (size === buffer.length)
            throw new NixError('CACHE_LIMIT', `expected ${quote(file)} to end`, {
              detail: { file },
            })
        }
        return buffer.subarray(0, size)
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
        throw readError(file, cause, signal)
      }
    },
    async *stream(name) {
      const file = join(directory, name)
      if (name.includes('?'))
        throw new NixError('CACHE_RESPONSE', `expected no query in ${quote(name)}`)
      try {
        await using handle = await openFile(file)
        signal?.throwIfAborted() // a stream that is made then fails before anyone listens
        const stream = handle.createReadStream({ autoClose: false, signal })
        yield* stream as AsyncIterable<Buffer>
      } catch (cause) {
        throw readError(file, cause, signal)
      }
    },
  }
}

/** Not blocking: nobody may ever write to what could be a pipe. */
async function openFile(file: string): Promise<FileHandle> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  if ((await handle.stat()).isFile()) return handle
  await handle.close()
  throw new NixError('CACHE_RESPONSE', `expected a file at ${quote(file)}`)
}

function readError(file: string, cause: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted === true) return signal.reason
  if (cause instanceof NixError) return cause
  const reason = (cause as NodeJS.ErrnoException).code ?? String(cause)
  const message = `expected to read ${quote(file)}: ${reason}`
  return new NixError('CACHE_UNREACHABLE', message, { cause, detail: { file } })
}
