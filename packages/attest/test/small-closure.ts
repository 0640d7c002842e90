import {
  buildManifest,
  makeStorePath,
  narHashFromDigest,
  parseFileList,
  sha256Hex,
} from '@bagcheck/nix'
import type { ClosureManifest, FileList, StorePath } from '@bagcheck/nix'

const digest = (text: string): Uint8Array => new Uint8Array(Buffer.from(sha256Hex(text), 'hex'))

/** A store path with a made-up hash. */
export function inventPath(name: string): StorePath {
  return makeStorePath('source', digest(name), name)
}

/** A closure of two paths with one file each, on paper only. */
export function smallClosure(root = 'service-1.0'): { manifest: ClosureManifest; files: FileList } {
  const rootPath = inventPath(root)
  const library = inventPath('library-2.1')
  const manifest = buildManifest(rootPath, [
    {
      path: rootPath,
      narHash: narHashFromDigest(digest(root)),
      narSize: 400,
      references: [library],
    },
    {
      path: library,
      narHash: narHashFromDigest(digest('l')),
      narSize: 4000,
      references: [library],
    },
  ])
  return { manifest, files: listOf([`${rootPath}/bin/service`, `${library}/lib/library.so`]) }
}

/** A file list that names the paths. */
export function listOf(paths: readonly string[]): FileList {
  const lines = paths.toSorted().map((path) => `${path} ${sha256Hex(path)} 4 0444\n`)
  return parseFileList(new Uint8Array(Buffer.from(lines.join(''))))
}
