// What metadata alone say of a store path: the size that its NAR would have, which depends on names, kinds
// and sizes only, and what is not as Nix leaves it. No content is read, so that altered content of the
// same size is not seen.
import type { BigIntStats } from 'node:fs'
import { filesOfStorePath } from '../file-list.ts'
import type { FileList, ListedFile } from '../file-list.ts'
import { fromLatin1 } from '../file-name.ts'
import type { PathInfo } from '../manifest.ts'
import { kindOf, readNames, readTarget, statPath, wrongKind } from '../nar/file-tree.ts'
import type { Kind } from '../nar/file-tree.ts'
import {
  DIRECTORY,
  END,
  ENTRY,
  EXECUTABLE,
  MAGIC,
  NODE,
  paddedBytes,
  REGULAR,
  SYMLINK,
} from '../nar/tokens.ts'
import type { StorePath } from '../store-path.ts'
import { findDeviations, isAsNixLeavesIt } from './deviations.ts'
import type { Deviation } from './deviations.ts'
import { compareMetadata } from './locate.ts'
import type { Mismatch } from './mismatch.ts'

/** What the metadata of a store path show. */
export interface PathSurvey {
  /** In bytes; what `nix-store --dump` would write. */
  readonly narSize: number
  /** In no fixed order. */
  readonly files: readonly SurveyedFile[]
  readonly deviations: readonly Deviation[]
}

/** A regular file, as far as its metadata go. */
export type SurveyedFile = Omit<ListedFile, 'sha256'>

/**
 * Looks at every entry of `root`; yields after each directory.
 *
 * @throws {NixError} STORE_MISSING, STORE_TYPE, STORE_CHANGED, STORE_READ
 */
export function* surveyPath(root: StorePath, owner: number): Generator<void, PathSurvey> {
  const files: SurveyedFile[] = []
  const deviations: Deviation[] = []
  const open: string[] = []
  let narSize = MAGIC.byteLength
  const look = (name: string, kind: Kind, stat: BigIntStats): void => {
    if (kind === 'other') throw wrongKind(root, name)
    if (!isAsNixLeavesIt(stat, owner))
      deviations.push(...findDeviations(root + fromLatin1(name), stat, owner))
    narSize += END.byteLength
    if (kind === 'directory') {
      narSize += DIRECTORY.byteLength
      open.push(name)
    } else if (kind === 'symlink') {
      narSize += SYMLINK.byteLength + paddedBytes(readTarget(root, name).length)
    } else {
      const executable = (stat.mode & 0o100n) !== 0n
      const size = Number(stat.size)
      narSize += (executable ? EXECUTABLE : REGULAR).byteLength + paddedBytes(size)
      files.push({ path: root + fromLatin1(name), size, executable })
    }
  }
  const first = statPath(root, '', 'STORE_MISSING')
  look('', kindOf(first), first)
  for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
    for (const entry of readNames(root, directory)) {
      narSize +=
        ENTRY.byteLength + paddedBytes(entry.name.length) + NODE.byteLength + END.byteLength
      const name = `${directory}/${entry.name}`
      const stat = statPath(root, name)
      look(name, kindOf(stat), stat)
    }
    yield
  }
  return { narSize, files, deviations }
}

/** Where a survey is not what manifest and file list say. */
export function compareSurvey(
  { path, narSize }: PathInfo,
  survey: PathSurvey,
  list: FileList | undefined,
): Mismatch[] {
  const found = list === undefined ? [] : compareFiles(path, survey.files, list)
  if (found.length > 0 || survey.narSize === narSize) return found
  const [expected, seen] = [narSize, survey.narSize].map((size) => `a NAR of ${size} bytes`)
  return [{ path, kind: 'size', expected: expected ?? '', seen: seen ?? '' }]
}

function compareFiles(path: StorePath, files: readonly SurveyedFile[], list: FileList): Mismatch[] {
  const found: Mismatch[] = []
  const seen = new Map(files.map((file) => [file.path, file]))
  for (const expected of filesOfStorePath(list, path)) {
    const file = seen.get(expected.path)
    seen.delete(expected.path)
    const difference = file === undefined ? MISSING : compareMetadata(expected, file)
    if (difference !== undefined) found.push({ path, file: expected.path, ...difference })
  }
  for (const file of seen.keys()) found.push({ path, file, ...UNEXPECTED })
  return found
}

const MISSING = { kind: 'missing', expected: 'a file', seen: 'no file' } as const
const UNEXPECTED = { kind: 'unexpected', expected: 'no file', seen: 'a file' } as const
