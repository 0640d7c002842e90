// Finds the entries whose metadata is no longer what a snapshot holds. A look at one entry is one lstat of
// 2 to 3 µs, nearly all of it in the kernel, so large closures are shared between threads: every thread gets
// the whole request and takes the next piece by a counter that all share.
//
// Every entry is looked at. A directory's times tell of names that come and go in it, never of what is
// written to a file, so that they spare no look.
import { once } from 'node:events'
import { lstatSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { fsPath } from '../file-name.ts'
import type { StorePath } from '../store-path.ts'
import { countEntries, isUnmoved, NameCursor } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'
import { availableThreads, withThreads } from './threads.ts'

/** What to look at; crosses to worker threads. */
export interface MovedRequest {
  readonly snapshots: readonly { readonly path: StorePath; readonly snapshot: Snapshot }[]
  /** The number of the next piece that nobody has taken. */
  readonly next: Int32Array<SharedArrayBuffer>
}

/** Entries that moved: the path's position in the request, their indexes in its snapshot. */
export type Moved = readonly MovedPiece[]

interface MovedPiece {
  readonly position: number
  /** In order. */
  readonly indexes: readonly number[]
}

const PIECE = 1024
// Below this, one thread is done before another has what it needs.
const SHARED_ENTRIES = 8192
const LOOK = { bigint: true, throwIfNoEntry: false } as const

/**
 * Looks at every snapshot, on up to `parallelism` threads, this one among them. Resolves to the entries that
 * moved, in order, by the position of their path.
 */
export async function findMovedEntries(
  snapshots: MovedRequest['snapshots'],
  parallelism: number,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<number, Uint32Array>> {
  const next = new Int32Array(new SharedArrayBuffer(4))
  const request: MovedRequest = { snapshots, next }
  const entries = snapshots.reduce((sum, { snapshot }) => sum + countEntries(snapshot), 0)
  const helpers = entries < SHARED_ENTRIES ? 0 : availableThreads(Math.max(parallelism - 1, 0))
  return withThreads(helpers, async (threads) => {
    const replies = threads.map((thread) => {
      thread.postMessage(request)
      return once(thread, 'message')
    })
    const pieces: MovedPiece[] = []
    for (const piece of takePieces(request)) {
      if (piece.indexes.length > 0) pieces.push(piece)
      await setImmediate() // other work goes on between pieces
      signal?.throwIfAborted()
    }
    for (const [found] of await Promise.all(replies))
      for (const piece of found as Moved) pieces.push(piece)
    const byPosition = Map.groupBy(pieces, ({ position }) => position)
    return new Map(
      [...byPosition].map(([position, found]) => [
        position,
        Uint32Array.from(found.flatMap(({ indexes }) => indexes)).sort(),
      ]),
    )
  })
}

/** What one thread finds in the pieces that it gets. */
export function findMoved(request: MovedRequest): Moved {
  return [...takePieces(request)].filter(({ indexes }) => indexes.length > 0)
}

/** Yields what moved in piece after piece. */
function* takePieces({ snapshots, next }: MovedRequest): Generator<MovedPiece, void> {
  let first = 0 // number of the first piece of the path
  let mine = Atomics.add(next, 0, 1)
  for (const [position, { path, snapshot }] of snapshots.entries()) {
    const count = countEntries(snapshot)
    const past = first + Math.ceil(count / PIECE)
    if (mine < past) {
      const cursor = new NameCursor(snapshot, path) // decodes all names: not for a path that others look at
      while (mine < past) {
        const start = (mine - first) * PIECE
        const end = Math.min(start + PIECE, count)
        yield { position, indexes: movedIn(snapshot, cursor, start, end) }
        mine = Atomics.add(next, 0, 1)
      }
    }
    first = past
  }
}

function movedIn(snapshot: Snapshot, cursor: NameCursor, start: number, end: number): number[] {
  const moved: number[] = []
  for (let index = start; index < end; index++) {
    const file = cursor.nameOf(index)
    const stat = lookAt(cursor.ascii ? file : fsPath(file))
    // One that is missing is no reason to stop: it may be back when the others are judged.
    if (stat === undefined || !isUnmoved(snapshot, index, stat)) moved.push(index)
  }
  return moved
}

function lookAt(file: string | Buffer): BigIntStats | undefined {
  try {
    return lstatSync(file, LOOK)
  } catch {
    return undefined // such as ENOTDIR; whoever reads it next says what is wrong
  }
}
