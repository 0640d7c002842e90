// Paths of a file system that is mounted, or unpacked, below a directory of this one. Absolute symlinks in it
// mean that root and not ours: /mnt/run -> /run must not show this machine's /run. The walk is not atomic;
// whoever can rename directories below the root while it runs can lead it elsewhere.
import { lstat, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { NixError, quote } from '../error.ts'

const MAX_LINKS = 40 // as Linux

/**
 * Where `path`, absolute in the file system below `root`, is in ours. Symlinks are followed, the last
 * component only with `followLast`. Components that do not exist are taken as written.
 *
 * @throws {NixError} SYSTEM_LINK – more than 40 symlinks.
 */
export async function locateWithin(
  root: string,
  path: string,
  followLast: boolean,
): Promise<string> {
  const pending = path.split('/').reverse()
  const done: string[] = []
  let links = 0
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === '' || name === '.') continue
    if (name === '..') {
      done.pop() // ".." of the root is the root
      continue
    }
    const here = join(root, ...done, name)
    const last = pending.every((rest) => rest === '' || rest === '.')
    const target = last && !followLast ? undefined : await readLink(here)
    if (target === undefined) {
      done.push(name)
      continue
    }
    if (++links > MAX_LINKS)
      throw new NixError('SYSTEM_LINK', `expected at most ${MAX_LINKS} symlinks in ${quote(path)}`)
    if (target.startsWith('/')) done.length = 0
    pending.push(...target.split('/').reverse())
  }
  return join(root, ...done)
}

/** The target of the symlink `file`; undefined when it is none, or nothing. */
export async function readLink(file: string): Promise<string | undefined> {
  try {
    if (!(await lstat(file)).isSymbolicLink()) return undefined
    return await readlink(file)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new NixError('SYSTEM_LINK', `expected ${quote(file)} to be readable, got ${code}`, {
      cause: error,
    })
  }
}
