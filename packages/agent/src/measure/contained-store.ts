// The store that a container brings in its own layers. Nothing of the host's Nix vouches for it: of every store
// path that is asked for the NAR hash is told, read through the container's first process and below the very
// directory that was measured. What was read once is not read again while nothing of its metadata moves.
//
// Attacker: whoever made the image, and the container's processes where its root file system is writable.
// A path whose entries they own or can write to is told as such: it may be another a moment later.
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  type BigIntStats,
} from 'node:fs'
import { dumpNar, narHashFromDigest, NixError, type NarHash, type StorePath } from '@bagcheck/nix'
import { AgentError } from '../error.ts'
import type { HashRequest, PathHash } from './messages.ts'
import { mountsBelow } from './mounts.ts'
import { readMounts, readStore, sameStore } from './surroundings.ts'

const O_PATH = 0o10000000
/** Most entries of one store path. */
const MAX_ENTRIES = 500_000
/** Store paths remembered: some closures. */
const MAX_REMEMBERED = 20_000
/** Longer than a tick of the clock that stamps files. */
const SETTLED_MS = 100
/** One request keeps a measuring thread no longer than this and one store path; whoever asks goes on. */
const SLICE_MS = 3000

interface Remembered {
  readonly metadata: string
  readonly narHash: NarHash
  readonly hashedAtMs: number
}

/** Hashes the stores of containers; holds what was hashed. */
export class ContainedStores {
  readonly #remembered = new Map<string, Remembered>()

  /**
   * The first of the paths that are asked for, at least one of them.
   * @throws {AgentError} MEASUREMENT_UNSTABLE if the container sees another store than the one that was
   *   measured; PROCESS_GONE, PROC_UNREADABLE, MEASUREMENT_LIMIT
   */
  hash(request: HashRequest, pid: number, storeDir: string): PathHash[] {
    const mounts = readMounts(pid)
    const store = readStore(pid, storeDir, mounts)
    if (store === null || !sameStore(store, request.store))
      throw new AgentError(
        'MEASUREMENT_UNSTABLE',
        `process ${pid} sees another store than was measured`,
      )
    const now = Date.now()
    // What lies below hides what was to be read: the measurement tells of it too.
    if (mountsBelow(mounts, storeDir).length > 0)
      return request.paths.map((path) => unread(path, now, 'something is mounted below the store'))
    const fd = openSync(
      `/proc/${pid}/root${storeDir}`,
      O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    )
    try {
      const startedAtMs = Date.now()
      const done: PathHash[] = []
      for (const path of request.paths) {
        const at = `/proc/self/fd/${fd}${path.slice(storeDir.length)}`
        const key = `${store.place} ${store.directory} ${path}`
        done.push(this.#hashPath(path, at, key, request))
        if (Date.now() - startedAtMs > SLICE_MS) break
      }
      return done
    } finally {
      closeSync(fd)
    }
  }

  #hashPath(path: StorePath, at: string, key: string, request: HashRequest): PathHash {
    try {
      const before = readMetadata(at, new Set([0, request.owner]))
      const known = this.#remembered.get(key)
      const now = Date.now()
      const ageMs = known === undefined ? Infinity : now - known.hashedAtMs
      const isFresh = ageMs >= 0 && ageMs < request.maxAgeMs // of the future: the clock was set back since
      if (isFresh && known !== undefined && known.metadata === before.digest)
        return { path, ...result(known), deviation: before.deviation, read: false }
      const hash = createHash('sha256')
      for (const chunk of dumpNar(at)) hash.update(chunk)
      const narHash = narHashFromDigest(hash.digest())
      const { digest } = readMetadata(at, new Set([0, request.owner]))
      if (digest !== before.digest) return unread(path, now, 'it changed while it was read')
      const fresh = { metadata: digest, narHash, hashedAtMs: now }
      if (now - before.newestMs > SETTLED_MS) this.#remember(key, fresh)
      return { path, ...result(fresh), deviation: before.deviation, read: true }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (error instanceof NixError || code === 'ENOENT' || code === 'ENOTDIR')
        return unread(path, Date.now(), 'it is not there, or moves')
      throw error
    }
  }

  #remember(key: string, value: Remembered): void {
    this.#remembered.delete(key)
    this.#remembered.set(key, value)
    const oldest = this.#remembered.keys().next().value
    if (this.#remembered.size > MAX_REMEMBERED && oldest !== undefined)
      this.#remembered.delete(oldest)
  }
}

const result = ({ narHash, hashedAtMs }: Remembered) => ({ narHash, hashedAtMs })

const unread = (path: StorePath, hashedAtMs: number, deviation: string): PathHash => ({
  ...{ path, narHash: null, hashedAtMs, read: true, deviation },
})

/** Everything about a tree but its content: changes with every change of that. */
function readMetadata(
  root: string,
  owners: ReadonlySet<number>,
): { digest: string; deviation: string | null; newestMs: number } {
  const hash = createHash('sha256')
  let deviation: string | null = null
  let newestMs = 0
  let entries = 0
  // One code unit per byte, as names are bytes.
  const queue = ['']
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const at = Buffer.from(`${root}${name}`, 'latin1')
    const stats = lstatSync(at, { bigint: true })
    const target = stats.isSymbolicLink() ? readlinkSync(at, 'latin1') : ''
    const { dev, ino, mode, uid, gid, size, mtimeNs, ctimeNs } = stats
    hash.update(
      `${name}\0${dev}/${ino}/${mode}/${uid}/${gid}/${size}/${mtimeNs}/${ctimeNs}\0${target}\0`,
    )
    deviation ??= deviationOf(stats, name, owners)
    newestMs = Math.max(newestMs, Number(stats.ctimeMs))
    entries += 1
    if (entries > MAX_ENTRIES)
      throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_ENTRIES} entries of a path`)
    if (stats.isDirectory())
      for (const entry of readdirSync(at, 'latin1').toSorted()) queue.push(`${name}/${entry}`)
  }
  return { digest: hash.digest('hex'), deviation, newestMs }
}

/** Who but root can alter an entry, or what right it gives; no NAR hash shows that. */
function deviationOf(stats: BigIntStats, name: string, owners: ReadonlySet<number>): string | null {
  const mode = Number(stats.mode) & 0o7777
  const where = name === '' ? 'it' : name.slice(0, 200)
  if (!owners.has(Number(stats.uid))) return `${where} belongs to user ${stats.uid}`
  if (stats.isSymbolicLink()) return null
  if ((mode & 0o022) !== 0 || (!stats.isDirectory() && (mode & 0o7000) !== 0))
    return `${where} has mode ${mode.toString(8)}`
  return null
}
