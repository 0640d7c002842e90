// Hard links that reach out of what was verified. A file of a store has one name, or several: in its own
// closure, and one in `.links`, which `nix-store --optimise` makes. A file with another name that neither
// explains can be written, where somebody may, on a mount on which the store is not read-only.
//
// Content and ctime betray such a write at the next look, so that a stray link is told and is no mismatch.
// A file with a name in `.links` may have further names that nobody looked for: finding all of them means
// walking the whole file system.
import { lstatSync, readdirSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { dirname, join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { fromLatin1 } from '../file-name.ts'
import { narHashDigest } from '../hash.ts'
import { hashNar } from '../nar/hash.ts'
import { encodeNix32 } from '../nix32.ts'
import type { StorePath } from '../store-path.ts'
import { NameCursor, placeOf } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/** A file that has names which neither the closure nor `.links` explains. */
export interface StrayLink {
  readonly path: StorePath
  readonly file: string
  /** How many names the file has. */
  readonly names: number
  /** How many of them were found. */
  readonly found: number
}

/** A file with several names; small, because in an optimised store nearly every file is one. */
interface Candidate {
  readonly path: StorePath
  readonly snapshot: Snapshot
  /** Of the first name that was met, in the snapshot. */
  readonly index: number
  readonly names: number
  found: number
}

// Up to so much, the file's hash is computed, which is its name in `.links`; beyond, it is cheaper to look
// at all of `.links`.
const HASHED_FILES = 1000
const HASHED_BYTES = 64 << 20
const PIECE = 1024
const LOOK = { bigint: true, throwIfNoEntry: false } as const

/** Collects the files with several names while a pass goes on, and judges them when all were seen. */
export class LinkCount {
  readonly #files = new Map<bigint, Candidate>()

  /** Counts files of `path`: pairs of an entry's index in `snapshot` and the number of its names. */
  add(path: StorePath, snapshot: Snapshot, linked: readonly number[] | Uint32Array): void {
    for (let pair = 0; pair < linked.length; pair += 2) {
      const index = linked[pair] ?? 0
      const names = linked[pair + 1] ?? 1
      const { device, inode } = placeOf(snapshot, index)
      const key = (device << 64n) | BigInt.asUintN(64, inode)
      const known = this.#files.get(key)
      if (known === undefined) this.#files.set(key, { path, snapshot, index, names, found: 1 })
      else known.found++
    }
  }

  /** Those with names that nothing explains. */
  async findStray(signal: AbortSignal | undefined): Promise<StrayLink[]> {
    const open = [...this.#files.values()].filter(({ names, found }) => found < names)
    const bytes = open.reduce((sum, candidate) => sum + place(candidate).sizeBytes, 0)
    const few = open.length <= HASHED_FILES && bytes <= HASHED_BYTES
    const optimised = few ? await findByHash(open, signal) : await findByInode(open, signal)
    const stray = open.filter((candidate) => !optimised.has(candidate))
    return withFiles(stray).map(([file, { path, names, found }]) => ({ path, file, names, found }))
  }
}

const place = ({ snapshot, index }: Candidate): ReturnType<typeof placeOf> =>
  placeOf(snapshot, index)

/** Each with the name that was met first. */
function withFiles(candidates: readonly Candidate[]): [file: string, Candidate][] {
  const bySnapshot = Map.groupBy(candidates, ({ snapshot }) => snapshot)
  return [...bySnapshot].flatMap(([snapshot, members]) => {
    const names = new NameCursor(snapshot, '')
    const ordered = members.toSorted((a, b) => a.index - b.index)
    return ordered.map((candidate): [string, Candidate] => [
      candidate.path + fromLatin1(names.nameOf(candidate.index)),
      candidate,
    ])
  })
}

/** Those whose name in `.links`, the hash of their NAR, is theirs. */
async function findByHash(
  open: readonly Candidate[],
  signal: AbortSignal | undefined,
): Promise<Set<Candidate>> {
  const optimised = new Set<Candidate>()
  for (const [file, candidate] of withFiles(open)) {
    const { narHash } = await hashNar(file, signal === undefined ? {} : { signal })
    const name = encodeNix32(narHashDigest(narHash))
    if (isAt(candidate, lookAt(join(linksOf(candidate.path), name)))) optimised.add(candidate)
  }
  return optimised
}

/** Those that a walk of `.links` meets. */
async function findByInode(
  open: readonly Candidate[],
  signal: AbortSignal | undefined,
): Promise<Set<Candidate>> {
  const optimised = new Set<Candidate>()
  const byInode = new Map(open.map((candidate) => [place(candidate).inode, candidate]))
  for (const directory of new Set(open.map(({ path }) => linksOf(path)))) {
    for (const [index, name] of namesIn(directory).entries()) {
      const stat = lookAt(join(directory, name))
      const candidate = stat === undefined ? undefined : byInode.get(stat.ino)
      if (candidate !== undefined && isAt(candidate, stat)) optimised.add(candidate)
      if (index % PIECE !== PIECE - 1) continue
      await setImmediate()
      signal?.throwIfAborted()
    }
  }
  return optimised
}

function isAt(candidate: Candidate, stat: BigIntStats | undefined): boolean {
  const { device, inode } = place(candidate)
  return stat?.ino === inode && stat.dev === device
}

function linksOf(path: StorePath): string {
  return join(dirname(path), '.links')
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return [] // a store that was never optimised has none
  }
}

function lookAt(file: string): BigIntStats | undefined {
  try {
    return lstatSync(file, LOOK)
  } catch {
    return undefined // not ours to read: then nothing explains the link
  }
}
