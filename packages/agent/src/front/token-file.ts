// One file that holds a token, replaced whole or removed. Written without any privilege: the directory belongs to
// the agent's user (or to root, or to the file's owner), and its group comes to the file by the set-group-id bit:
//
//   /run/bagcheck-tokens/orders   2750 bagcheck-agent:orders
//   /run/bagcheck-tokens/orders/api.token   0440 bagcheck-agent:orders
//
// So the agent need not be in the workload's group, nor change owners. As root it sets the owner itself. A
// directory that others may enter, that a group may write to, or that is reached over a link is refused: who can
// write there could have us replace a file elsewhere, or keep the token that we think removed. All steps go
// through the descriptor of the directory that was checked, so that it cannot be exchanged in between.
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import { createHash, randomBytes } from 'node:crypto'
import { AgentError, quote } from '../error.ts'

/** A file for tokens, as configured. */
export interface TokenFilePlace {
  readonly path: string
  /** Whose the file is to be. Null leaves it to the directory. */
  readonly owner: { readonly uid: number; readonly gid: number } | null
  /** Nothing for others: 0400, 0440, 0600 or 0640. */
  readonly mode: number
}

/** Replaces the file with `token`. @throws {AgentError} TOKEN_FILE_PATH; what the file system throws */
export function writeTokenFile(place: TokenFilePlace, token: string): void {
  withDirectory(place, (directory) => {
    const name = basename(place.path)
    sweep(directory, name)
    const temporary = `${directory}/.${name}.${randomBytes(6).toString('hex')}`
    const fd = openSync(temporary, 'wx', 0o600)
    try {
      try {
        setOwner(fd, place)
        writeSync(fd, token)
        fsyncSync(fd)
      } finally {
        closeSync(fd)
      }
      // Never follows what stands there: a link is replaced, not written through.
      renameSync(temporary, `${directory}/${name}`)
    } catch (error) {
      unlinkSync(temporary)
      throw error
    }
    const own = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      fsyncSync(own)
    } finally {
      closeSync(own)
    }
  })
}

/** Removes the file, if it is there. @throws {AgentError} TOKEN_FILE_PATH; what the file system throws */
export function removeTokenFile(place: TokenFilePlace): void {
  withDirectory(place, (directory) => {
    const name = basename(place.path)
    sweep(directory, name)
    unlinkIfThere(`${directory}/${name}`)
  })
}

/** Digest of what is in the file; undefined if there is none. @throws {AgentError} TOKEN_FILE_PATH; what the file system throws */
export function sha256Of(place: TokenFilePlace): string | undefined {
  let digest: string | undefined
  withDirectory(place, (directory) => {
    try {
      const fd = openSync(`${directory}/${basename(place.path)}`, READ_PLAIN)
      try {
        if (fstatSync(fd).isFile())
          digest = createHash('sha256').update(readFileSync(fd)).digest('hex')
      } finally {
        closeSync(fd)
      }
    } catch (error) {
      if (!/^(ENOENT|ELOOP)$/.test((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
  })
  return digest
}

const READ_PLAIN = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** What a killed agent left half written. */
function sweep(directory: string, name: string): void {
  const prefix = `.${name}.`
  for (const entry of readdirSync(directory))
    if (entry.startsWith(prefix) && /^[0-9a-f]{12}$/.test(entry.slice(prefix.length)))
      unlinkIfThere(`${directory}/${entry}`)
}

function withDirectory(place: TokenFilePlace, act: (directory: string) => void): void {
  const path = dirname(place.path)
  const allowed = new Set([0, process.geteuid?.() ?? 0])
  if (place.owner !== null) allowed.add(place.owner.uid)
  let fd: number
  try {
    if (realpathSync(path) !== path) throw refused(path, 'expected no link on the way to it')
    for (let above = dirname(path); ; above = dirname(above)) {
      const { mode, uid } = statSync(above)
      // Others may write in a directory like /tmp, but move nothing that is not theirs.
      if (!allowed.has(uid) || ((mode & 0o022) !== 0 && (mode & 0o1000) === 0))
        throw refused(above, 'expected a directory above that nobody else may change')
      if (above === dirname(above)) break
    }
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (cause) {
    if (cause instanceof AgentError) throw cause
    throw new AgentError('TOKEN_FILE_PATH', `expected a directory at ${quote(path)}`, { cause })
  }
  try {
    const { mode, uid } = fstatSync(fd)
    if (!allowed.has(uid)) throw refused(path, `it belongs to user ${uid}`)
    if ((mode & 0o007) !== 0) throw refused(path, 'others may enter it')
    if ((mode & 0o020) !== 0) throw refused(path, 'its group may write there')
    act(`/proc/self/fd/${fd}`)
  } finally {
    closeSync(fd)
  }
}

function setOwner(fd: number, { owner, mode, path }: TokenFilePlace): void {
  const { uid, gid } = fstatSync(fd)
  if (owner !== null && (owner.uid !== uid || owner.gid !== gid)) {
    try {
      fchownSync(fd, owner.uid, owner.gid)
    } catch (cause) {
      throw new AgentError(
        'TOKEN_FILE_PATH',
        `cannot give ${quote(path)} to ${owner.uid}:${owner.gid}; it would be ${uid}:${gid}`,
        { cause },
      )
    }
  }
  fchmodSync(fd, mode)
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function refused(path: string, why: string): AgentError {
  return new AgentError('TOKEN_FILE_PATH', `no tokens below ${quote(path)}: ${why}`)
}
