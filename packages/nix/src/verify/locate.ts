// Finds out where a store path differs from what it must be, so that a file can be named and not only a
// path: every regular file against the file list, or else against what the ledger's last full pass read, then
// every entry against the ledger's last good look.
import { fromLatin1 } from '../file-name.ts'
import { filesOfStorePath } from '../file-list.ts'
import type { FileList, ListedFile } from '../file-list.ts'
import type { PathInfo } from '../manifest.ts'
import { hasFileHashes, listFiles } from './file-hashes.ts'
import type { PathScan } from './scan.ts'
import { readSnapshot } from './snapshot.ts'
import type { Snapshot, SnapshotEntry } from './snapshot.ts'
import type { Mismatch } from './mismatch.ts'
import type { StorePath } from '../store-path.ts'

/** What a ledger knows of a path that was good. */
export interface LastLook {
  readonly snapshot: Snapshot
  readonly fileHashes: Uint8Array | undefined
}

/** The differences of a scan (with files hashed) whose NAR hash is wrong; at least one. */
export function locateMismatches(
  entry: PathInfo,
  scan: PathScan,
  list: FileList | undefined,
  last: LastLook | undefined,
): Mismatch[] {
  const { path } = entry
  const seen = new Map(
    readSnapshot(scan.snapshot).map((e) => [path + fromLatin1(e.name), e] as const),
  )
  const found: Mismatch[] = []
  const listed = list === undefined ? known(path, last) : filesOfStorePath(list, path)
  if (listed !== undefined) found.push(...compareFiles(entry, scan, seen, listed))
  if (last !== undefined) {
    const named = new Set(found.map((mismatch) => mismatch.file))
    const more = compareEntries(entry, seen, last.snapshot, listed === undefined)
    found.push(...more.filter((mismatch) => !named.has(mismatch.file)))
  }
  if (found.length > 0) return found
  return [{ path, kind: 'nar', expected: entry.narHash, seen: scan.narHash }]
}

/** The files that a path had when it was good, if their hashes are known. */
function known(path: StorePath, last: LastLook | undefined): readonly ListedFile[] | undefined {
  if (last === undefined || !hasFileHashes(last.snapshot, last.fileHashes)) return undefined
  return listFiles(path, last.snapshot, last.fileHashes)
}

function compareFiles(
  { path }: PathInfo,
  { snapshot, fileHashes = new Uint8Array() }: PathScan,
  seen: ReadonlyMap<string, SnapshotEntry>,
  listed: readonly ListedFile[],
): Mismatch[] {
  const found: Mismatch[] = []
  const now = listFiles(path, snapshot, fileHashes)
  const files = new Map(now.map((file) => [file.path, file]))
  for (const expected of listed) {
    const file = files.get(expected.path)
    const difference =
      file === undefined ? absence(expected, seen.get(expected.path)) : compare(expected, file)
    if (difference !== undefined) found.push({ path, file: expected.path, ...difference })
  }
  const expected = new Set(listed.map((file) => file.path))
  for (const file of now)
    if (!expected.has(file.path))
      found.push({
        path,
        file: file.path,
        kind: 'unexpected',
        expected: 'no file',
        seen: `sha256 ${file.sha256}`,
      })
  return found
}

type Difference = Pick<Mismatch, 'kind' | 'expected' | 'seen'>

function absence(expected: ListedFile, seen: SnapshotEntry | undefined): Difference {
  if (seen !== undefined) return { kind: 'type', expected: 'regular', seen: seen.kind }
  return { kind: 'missing', expected: `sha256 ${expected.sha256}`, seen: 'no file' }
}

function compare(expected: ListedFile, seen: ListedFile): Difference | undefined {
  if (expected.size === seen.size && expected.sha256 !== seen.sha256)
    return {
      kind: 'content',
      expected: `sha256 ${expected.sha256}`,
      seen: `sha256 ${seen.sha256}`,
    }
  return compareMetadata(expected, seen)
}

/** The difference between two files as far as their metadata show one. */
export function compareMetadata(
  expected: Omit<ListedFile, 'sha256'>,
  seen: Omit<ListedFile, 'sha256'>,
): Difference | undefined {
  if (expected.size !== seen.size)
    return { kind: 'size', expected: `${expected.size} bytes`, seen: `${seen.size} bytes` }
  if (expected.executable !== seen.executable)
    return {
      kind: 'executable',
      expected: expected.executable ? 'executable' : 'not executable',
      seen: seen.executable ? 'executable' : 'not executable',
    }
  return undefined
}

/** What the file list does not hold: names, kinds and symlinks, against the last good look. */
function compareEntries(
  { path }: PathInfo,
  seen: ReadonlyMap<string, SnapshotEntry>,
  last: Snapshot,
  withoutList: boolean,
): Mismatch[] {
  const found: Mismatch[] = []
  const known = new Set<string>()
  for (const before of readSnapshot(last)) {
    const file = path + fromLatin1(before.name)
    known.add(file)
    const now = seen.get(file)
    if (now === undefined)
      found.push({ path, file, kind: 'missing', expected: before.kind, seen: 'nothing' })
    else if (now.kind !== before.kind)
      found.push({ path, file, kind: 'type', expected: before.kind, seen: now.kind })
    else if (now.target !== before.target)
      found.push({
        path,
        file,
        kind: 'symlink',
        expected: fromLatin1(before.target ?? ''),
        seen: fromLatin1(now.target ?? ''),
      })
  }
  for (const [file, { kind }] of seen)
    if (!known.has(file) && (withoutList || kind !== 'regular'))
      found.push({ path, file, kind: 'unexpected', expected: 'nothing', seen: kind })
  return found
}
