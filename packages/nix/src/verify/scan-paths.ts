// Looks at many store paths: small work on this thread alone, large work on worker threads as well, largest path
// first, because one path is one serial hash and the last to start decides when all is done. This thread takes part,
// because one that only waited would be one more to start.
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { NixError } from '../error.ts'
import type { PathInfo } from '../manifest.ts'
import type { StorePath } from '../store-path.ts'
import { replyTo } from './reply.ts'
import type { Reply, Request } from './reply.ts'
import type { PathScan } from './scan.ts'
import type { Settlement } from './settle.ts'
import { placeOf } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'
import type { PathSurvey } from './survey.ts'
import { availableThreads, withThreads } from './threads.ts'

/** How to look at paths. */
export interface PathsOptions {
  readonly owner: number
  /** Threads at work, this one among them. Default: one per processor. */
  readonly parallelism?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What came of one path. */
export type Outcome<T, E = PathInfo> =
  | { readonly entry: E; readonly found: T }
  | { readonly entry: E; readonly error: NixError }

/** A path in which something moved, and what the ledger knows of it. */
export interface MovedPath {
  readonly path: StorePath
  readonly snapshot: Snapshot
  readonly fileHashes: Uint8Array
  readonly moved: Uint32Array
}

/** Below this a thread takes longer to start than the work does. */
export const INLINE_BYTES: number = 16 << 20

/**
 * Reads `entries` in full and reports each outcome as it comes, in no fixed order.
 *
 * @throws the signal's reason, when it fires
 */
export function scanPaths(
  entries: readonly PathInfo[],
  options: PathsOptions & { readonly hashFiles: (entry: PathInfo) => boolean },
  onOutcome: (outcome: Outcome<PathScan>) => void,
): Promise<void> {
  const { hashFiles, owner } = options
  const request = (entry: PathInfo): Request => ({
    scan: entry.path,
    hashFiles: hashFiles(entry),
    owner,
  })
  return overPaths(entries, narSizeOf, request, options, onOutcome)
}

/** As {@link scanPaths}, of what moved in each path. */
export function settlePaths<E extends MovedPath>(
  paths: readonly E[],
  options: PathsOptions,
  onOutcome: (outcome: Outcome<Settlement, E>) => void,
): Promise<void> {
  const { owner } = options
  const request = ({ path, snapshot, fileHashes, moved }: E): Request => ({
    settle: path,
    ...{ snapshot, fileHashes, moved, owner },
  })
  return overPaths(paths, movedBytesOf, request, options, onOutcome)
}

/** As {@link scanPaths}, of metadata alone. */
export function surveyPaths(
  entries: readonly PathInfo[],
  options: PathsOptions,
  onOutcome: (outcome: Outcome<PathSurvey>) => void,
): Promise<void> {
  const { owner } = options
  const request = ({ path }: PathInfo): Request => ({ survey: path, owner })
  return overPaths(entries, narSizeOf, request, options, onOutcome)
}

const narSizeOf = ({ narSize }: PathInfo): number => narSize

function movedBytesOf({ snapshot, moved }: MovedPath): number {
  return moved.reduce((sum, index) => sum + placeOf(snapshot, index).sizeBytes, 0)
}

async function overPaths<T, E>(
  entries: readonly E[],
  bytesOf: (entry: E) => number,
  requestOf: (entry: E) => Request,
  options: PathsOptions,
  onOutcome: (outcome: Outcome<T, E>) => void,
): Promise<void> {
  const sizes = new Map(entries.map((entry) => [entry, bytesOf(entry)]))
  const sizeOf = (entry: E): number => sizes.get(entry) ?? 0
  const queue = [...entries].sort((a, b) => sizeOf(b) - sizeOf(a))
  const bytes = queue.reduce((sum, entry) => sum + sizeOf(entry), 0)
  const { parallelism = availableParallelism(), signal } = options
  const wanted = Math.max(Math.min(parallelism, queue.length) - 1, 0)
  // Where one thread fails nobody waits for the others, and this one cannot be ended from outside.
  const failed = new AbortController()
  const stop = AbortSignal.any(signal === undefined ? [failed.signal] : [failed.signal, signal])
  // Takes the next path as often as the one before is done, until none is left.
  const work = async (ask: (request: Request) => Promise<unknown>): Promise<void> => {
    try {
      for (let entry = queue.shift(); entry !== undefined; entry = queue.shift())
        onOutcome(outcomeOf(entry, (await ask(requestOf(entry))) as Reply<T>))
    } catch (error) {
      failed.abort()
      throw error
    }
  }
  try {
    await withThreads(bytes < INLINE_BYTES ? 0 : availableThreads(wanted), (threads) =>
      Promise.all([
        work((request) => answerHere(request, stop)),
        ...threads.map((thread) => work((request) => askThread(thread, request, stop))),
      ]),
    )
  } catch (error) {
    signal?.throwIfAborted()
    throw error
  }
}

async function askThread(thread: Worker, request: Request, stop: AbortSignal): Promise<unknown> {
  thread.postMessage(request)
  // `once` rejects when the thread fails or the signal fires.
  const [reply] = await once(thread, 'message', { signal: stop })
  return reply
}

/** On this thread, where other work goes on between pieces. */
async function answerHere(request: Request, stop: AbortSignal): Promise<unknown> {
  using work = replyTo(request) // when it is given up, it closes the file that it is in
  for (;;) {
    stop.throwIfAborted()
    const step = work.next()
    if (step.done === true) return step.value
    await setImmediate()
  }
}

function outcomeOf<T, E>(entry: E, reply: Reply<T>): Outcome<T, E> {
  if ('found' in reply) return { entry, found: reply.found }
  const error = new NixError(reply.code, reply.message, { detail: reply.detail })
  return { entry, error }
}
