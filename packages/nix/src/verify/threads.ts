// Worker threads for verification. A thread that has run for a second is a third faster than a new one,
// because its code is compiled; so threads are kept for a while after use, without holding the process.
import { accessSync, constants } from 'node:fs'
import { Worker } from 'node:worker_threads'

const IDLE_MS = 10_000

// The same module before and after the build. Where neither can be read beside this one, as in a bundle that
// left it out, or by a process that has become somebody else since it was started, all work is done on the
// caller's thread.
const workerFile = (): URL | undefined =>
  [
    new URL('./store-worker.ts', import.meta.url),
    new URL('./store-worker.js', import.meta.url),
  ].find(isReadable)

const idle: { readonly thread: Worker; readonly timer: NodeJS.Timeout }[] = []

/** How many threads can be had of `wanted`: all or, where the worker's code is missing, none. */
export function availableThreads(wanted: number): number {
  return workerFile() === undefined ? 0 : wanted
}

/** Starts threads that {@link withThreads} will want soon, so that they are there when it does. */
export function startThreads(count: number): void {
  for (let missing = availableThreads(count) - idle.length; missing > 0; missing--) putBack(start())
}

/** Runs `work` with `count` threads. When it throws, the threads are ended, whatever they are at. */
export async function withThreads<T>(
  count: number,
  work: (threads: readonly Worker[]) => Promise<T>,
): Promise<T> {
  const threads = Array.from({ length: count }, borrow)
  try {
    const result = await work(threads)
    for (const thread of threads) putBack(thread)
    return result
  } catch (error) {
    await Promise.all(threads.map((thread) => thread.terminate()))
    throw error
  }
}

function borrow(): Worker {
  const kept = idle.pop()
  if (kept === undefined) return start()
  clearTimeout(kept.timer)
  kept.thread.removeAllListeners('error')
  kept.thread.ref()
  return kept.thread
}

function start(): Worker {
  const file = workerFile()
  if (file === undefined) throw new TypeError('ask availableThreads first')
  return new Worker(file)
}

function putBack(thread: Worker): void {
  thread.unref()
  const drop = (): void => {
    const index = idle.findIndex((kept) => kept.thread === thread)
    if (index >= 0) clearTimeout(idle.splice(index, 1)[0]?.timer)
    void thread.terminate() // nobody waits for an idle thread
  }
  thread.once('error', drop)
  idle.push({ thread, timer: setTimeout(drop, IDLE_MS).unref() })
}

function isReadable(url: URL): boolean {
  try {
    accessSync(url, constants.R_OK)
    return true
  } catch {
    return false // not there, or not for us: either way there is no thread
  }
}
