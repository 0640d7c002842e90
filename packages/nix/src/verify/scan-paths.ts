// Scans many store paths: small work at once on this thread, large work on worker threads, largest path
// first, because one path is one serial hash and the last to start decides when all is done.
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { NixError } from '../error.ts'
import type { PathInfo } from '../manifest.ts'
import { replyToScan } from './scan.ts'
import type { PathScan, ScanReply, ScanRequest } from './scan.ts'
import { availableThreads, withThreads } from './threads.ts'

/** How to scan. */
export interface ScanOptions {
  readonly listFiles: boolean
  readonly owner: number
  /** Worker threads; 0 for none. Default: one per processor. */
  readonly workers?: number
  readonly signal?: AbortSignal
}

/** What came of one path. */
export type ScanOutcome =
  | { readonly entry: PathInfo; readonly scan: PathScan }
  | { readonly entry: PathInfo; readonly error: NixError }

// Below this a thread takes longer to start than the work does.
const INLINE_BYTES = 16 << 20

/**
 * Scans `entries` and reports each outcome as it comes, in no fixed order.
 *
 * @throws the signal's reason, when it fires
 */
export async function scanPaths(
  entries: readonly PathInfo[],
  options: ScanOptions,
  onOutcome: (outcome: ScanOutcome) => void,
): Promise<void> {
  const queue = [...entries].sort((a, b) => b.narSize - a.narSize)
  const bytes = queue.reduce((sum, entry) => sum + entry.narSize, 0)
  const workers = Math.min(options.workers ?? availableParallelism(), queue.length)
  const count = bytes < INLINE_BYTES ? 0 : availableThreads(workers)
  if (count === 0) {
    for (const entry of queue) {
      options.signal?.throwIfAborted()
      onOutcome(outcomeOf(entry, replyToScan(requestOf(entry, options))))
      await setImmediate() // other work goes on between paths
    }
    return
  }
  try {
    await withThreads(count, (threads) =>
      Promise.all(threads.map((thread) => feed(thread, queue, options, onOutcome))),
    )
  } catch (error) {
    options.signal?.throwIfAborted()
    throw error
  }
}

/** Gives `thread` the next path as often as it is done with one, until the queue is empty. */
async function feed(
  thread: Worker,
  queue: PathInfo[],
  options: ScanOptions,
  onOutcome: (outcome: ScanOutcome) => void,
): Promise<void> {
  const { signal } = options
  for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) {
    thread.postMessage(requestOf(entry, options))
    // `once` rejects when the thread fails or the signal fires.
    const [reply] = await once(thread, 'message', signal === undefined ? {} : { signal })
    onOutcome(outcomeOf(entry, reply as ScanReply))
  }
}

function requestOf(entry: PathInfo, { listFiles, owner }: ScanOptions): ScanRequest {
  return { path: entry.path, listFiles, owner }
}

function outcomeOf(entry: PathInfo, reply: ScanReply): ScanOutcome {
  if ('scan' in reply) return { entry, scan: reply.scan }
  const error = new NixError(reply.code, reply.message, { detail: reply.detail })
  return { entry, error }
}
