import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { NixError, quote } from './error.ts'
import { makeFileList } from './file-list.ts'
import type { FileList, ListedFile } from './file-list.ts'
import { narHashFromDigest, parseSha256 } from './hash.ts'
import type { ClosureManifest, PathInfo } from './manifest.ts'
import { readNar } from './nar/reader.ts'
import type { StorePath } from './store-path.ts'

/** How to build a file list from archives. */
export interface NarFileListOptions {
  readonly onProgress?: (progress: { readonly paths: number; readonly totalPaths: number }) => void
  readonly signal?: AbortSignal
  /** Most archives that are read at once; default 4. */
  readonly concurrency?: number
}

const DEFAULT_CONCURRENCY = 4

/**
 * The file list of a closure, from its archives instead of a store: where a binary cache is at hand and
 * no Nix. Archives are read as streams and never kept; each must be what the manifest says.
 *
 * @param openNar Opens the archive of a path, as `BinaryCache.openNar` does.
 * @throws {NixError} CONTENT_MISMATCH – an archive is not what the manifest says (`detail.path`); what
 * `readNar` and `openNar` throw.
 */
export async function buildFileListFromNars(
  manifest: ClosureManifest,
  openNar: (entry: PathInfo) => AsyncIterable<Uint8Array>,
  options: NarFileListOptions = {},
): Promise<FileList> {
  const { onProgress, concurrency = DEFAULT_CONCURRENCY } = options
  if (concurrency < 1) throw new TypeError('at least one archive is read at a time')
  const stop = new AbortController()
  const signals = [stop.signal, ...(options.signal === undefined ? [] : [options.signal])]
  const signal = AbortSignal.any(signals)
  const files: ListedFile[] = []
  const waiting = manifest.entries.toSorted((a, b) => a.narSize - b.narSize) // the largest is taken first
  let paths = 0
  const work = async (): Promise<void> => {
    for (let entry = waiting.pop(); entry !== undefined; entry = waiting.pop()) {
      signal.throwIfAborted()
      const found = await hashFiles(entry, openNar(entry), signal).catch((error: unknown) => {
        throw namingPath(error, entry.path)
      })
      for (const file of found) files.push(file)
      onProgress?.({ paths: ++paths, totalPaths: manifest.entries.length })
    }
  }
  const workers = Array.from({ length: concurrency }, async () => {
    try {
      await work()
    } catch (error) {
      stop.abort(error) // the others end with their next piece
      throw error
    }
  })
  await Promise.all(workers)
  return makeFileList(files)
}

async function hashFiles(
  { path, narHash, narSize }: PathInfo,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<ListedFile[]> {
  const narDigest = createHash('sha256')
  const files: ListedFile[] = []
  const open: string[] = []
  let name: string | undefined
  let file:
    | { readonly size: number; readonly executable: boolean; left: number; hash: Hash }
    | undefined
  const finish = (): void => {
    if (file === undefined || file.left > 0) return
    const { size, executable, hash } = file
    files.push({
      path: joinPath(path, open, name),
      sha256: parseSha256(hash.digest('hex')),
      size,
      executable,
    })
    file = undefined
  }
  for await (const event of readNar(hashed(chunks, narDigest, signal), { narSize })) {
    switch (event.type) {
      case 'directory':
        if (name !== undefined) open.push(name)
        name = undefined
        break
      case 'entry':
        name = event.name
        break
      case 'end':
        open.pop()
        break
      case 'regular':
        file = { ...event, left: event.size, hash: createHash('sha256') }
        finish()
        break
      case 'chunk':
        if (file === undefined) break // the reader gives chunks to files only
        file.hash.update(event.bytes)
        file.left -= event.bytes.length
        finish()
        break
      case 'symlink':
        break
    }
  }
  const seen = narHashFromDigest(narDigest.digest())
  if (seen === narHash) return files
  throw new NixError('CONTENT_MISMATCH', `expected ${quote(path)} with ${narHash}, got ${seen}`, {
    detail: { path },
  })
}

/** Of a thousand archives, one is wrong. What another one ended this with names that already. */
function namingPath(error: unknown, path: StorePath): unknown {
  if (!(error instanceof NixError) || 'path' in error.detail) return error
  const { code, message, detail } = error
  return new NixError(code, `${path}: ${message}`, { cause: error, detail: { ...detail, path } })
}

function joinPath(path: StorePath, open: readonly string[], name: string | undefined): string {
  return [path, ...open, ...(name === undefined ? [] : [name])].join('/')
}

async function* hashed(
  chunks: AsyncIterable<Uint8Array>,
  hash: Hash,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of chunks) {
    signal.throwIfAborted()
    hash.update(chunk)
    yield chunk
  }
}
