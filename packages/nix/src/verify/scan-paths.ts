// Looks at many store paths: small work at once on this thread, large work on worker threads, largest path
// first, because one path is one serial hash and the last to start decides when all is done.
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { NixError } from '../error.ts'
import type { PathInfo } from '../manifest.ts'
import { replyTo } from './reply.ts'
import type { Reply, Request } from './reply.ts'
import type { PathScan } from './scan.ts'
import type { PathSurvey } from './survey.ts'
import { availableThreads, withThreads } from './threads.ts'

/** How to look at paths. */
export interface PathsOptions {
  readonly owner: number
  /** Worker threads; 0 for none. Default: one per processor. */
  readonly workers?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What came of one path. */
export type Outcome<T> =
  | { readonly entry: PathInfo; readonly found: T }
  | { readonly entry: PathInfo; readonly error: NixError }

// Below this a thread takes longer to start than the work does.
const INLINE_BYTES = 16 << 20

/**
 * Reads `entries` in full and reports each outcome as it comes, in no fixed order.
 *
 * @throws the signal's reason, when it fires
 */
export function scanPaths(
  entries: readonly PathInfo[],
  options: PathsOptions & { readonly listFiles: boolean },
  onOutcome: (outcome: Outcome<PathScan>) => void,
): Promise<void> {
  const { listFiles, owner } = options
  return overPaths(entries, ({ path }) => ({ scan: path, listFiles, owner }), options, onOutcome)
}

/** As {@link scanPaths}, of metadata alone. */
export function surveyPaths(
  entries: readonly PathInfo[],
  options: PathsOptions,
  onOutcome: (outcome: Outcome<PathSurvey>) => void,
): Promise<void> {
  const { owner } = options
  return overPaths(entries, ({ path }) => ({ survey: path, owner }), options, onOutcome)
}

type RequestOf = (entry: PathInfo) => Request

async function overPaths<T>(
  entries: readonly PathInfo[],
  requestOf: RequestOf,
  options: PathsOptions,
  onOutcome: (outcome: Outcome<T>) => void,
): Promise<void> {
  const queue = [...entries].sort((a, b) => b.narSize - a.narSize)
  const bytes = queue.reduce((sum, entry) => sum + entry.narSize, 0)
  const workers = Math.min(options.workers ?? availableParallelism(), queue.length)
  const count = bytes < INLINE_BYTES ? 0 : availableThreads(workers)
  if (count === 0) {
    for (const entry of queue) {
      options.signal?.throwIfAborted()
      onOutcome(outcomeOf(entry, replyTo(requestOf(entry)) as Reply<T>))
      await setImmediate() // other work goes on between paths
    }
    return
  }
  try {
    await withThreads(count, (threads) =>
      Promise.all(threads.map((thread) => feed(thread, queue, requestOf, options, onOutcome))),
    )
  } catch (error) {
    options.signal?.throwIfAborted()
    throw error
  }
}

/** Gives `thread` the next path as often as it is done with one, until the queue is empty. */
async function feed<T>(
  thread: Worker,
  queue: PathInfo[],
  requestOf: RequestOf,
  { signal }: PathsOptions,
  onOutcome: (outcome: Outcome<T>) => void,
): Promise<void> {
  for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) {
    thread.postMessage(requestOf(entry))
    // `once` rejects when the thread fails or the signal fires.
    const [reply] = await once(thread, 'message', signal === undefined ? {} : { signal })
    onOutcome(outcomeOf(entry, reply as Reply<T>))
  }
}

function outcomeOf<T>(entry: PathInfo, reply: Reply<T>): Outcome<T> {
  if ('found' in reply) return { entry, found: reply.found }
  const error = new NixError(reply.code, reply.message, { detail: reply.detail })
  return { entry, error }
}
