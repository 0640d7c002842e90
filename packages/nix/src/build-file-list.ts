import { NixError, quote } from './error.ts'
import { makeFileList } from './file-list.ts'
import type { FileList, ListedFile } from './file-list.ts'
import type { ClosureManifest } from './manifest.ts'
import { listFiles } from './verify/file-hashes.ts'
import { scanPaths } from './verify/scan-paths.ts'

/** How to build a file list. */
export interface BuildFileListOptions {
  readonly onProgress?: (progress: { readonly paths: number; readonly totalPaths: number }) => void
  readonly signal?: AbortSignal
  /** Threads at work on large closures, this one among them. Default: one per processor. */
  readonly parallelism?: number
}

/**
 * The file list of a closure, hashed from the store. The same bytes are compared with the manifest's NAR
 * hashes, so the list and the manifest are about one content.
 *
 * @throws {NixError} CONTENT_MISMATCH – a path is not what the manifest says (`detail.path`);
 * STORE_MISSING, STORE_TYPE, STORE_CHANGED, STORE_READ
 */
export async function buildFileList(
  manifest: ClosureManifest,
  options: BuildFileListOptions = {},
): Promise<FileList> {
  const { parallelism, signal, onProgress } = options
  const files: ListedFile[] = []
  let paths = 0
  // What deviates from the owner is for verification to judge.
  const scanOptions = { hashFiles: () => true, owner: 0, parallelism, signal }
  await scanPaths(manifest.entries, scanOptions, (outcome) => {
    if ('error' in outcome) throw outcome.error
    const { entry, found: scan } = outcome
    if (scan.narHash !== entry.narHash || scan.narSize !== entry.narSize) {
      const message = `expected ${quote(entry.path)} with ${entry.narHash}, got ${scan.narHash}`
      throw new NixError('CONTENT_MISMATCH', message, { detail: { path: entry.path } })
    }
    const { path, snapshot, fileHashes = new Uint8Array() } = scan
    for (const file of listFiles(path, snapshot, fileHashes)) files.push(file)
    onProgress?.({ paths: ++paths, totalPaths: manifest.entries.length })
  })
  return makeFileList(files)
}
