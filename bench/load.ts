// Two ways to put load on something: as fast as so many callers can, and at a fixed rate.

/** One request. */
export type Action = (index: number) => Promise<void>

/** `concurrency` callers, each with its next request as soon as the last is answered. Returns requests per second. */
export async function saturate(
  action: Action,
  { concurrency, seconds }: { concurrency: number; seconds: number },
): Promise<number> {
  const start = performance.now()
  const end = start + seconds * 1000
  let started = 0
  let finished = 0
  const caller = async (): Promise<void> => {
    while (performance.now() < end) {
      await action(started++)
      // What is answered after the end was paid for with time that is not counted.
      if (performance.now() <= end) finished += 1
    }
  }
  await Promise.all(Array.from({ length: concurrency }, caller))
  return finished / seconds
}

/**
 * Starts requests at a fixed rate whatever becomes of those before, so that a stall is charged to all that
 * it delays. Returns milliseconds from when each was due.
 */
export async function paced(
  action: Action,
  { perSecond, seconds }: { perSecond: number; seconds: number },
): Promise<number[]> {
  const total = Math.floor(perSecond * seconds)
  const start = performance.now()
  const pending: Promise<number>[] = []
  const one = async (index: number): Promise<number> => {
    await action(index)
    return performance.now() - (start + (index * 1000) / perSecond)
  }
  while (pending.length < total) {
    const due = Math.floor(((performance.now() - start) * perSecond) / 1000) + 1
    while (pending.length < Math.min(due, total)) pending.push(one(pending.length))
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return await Promise.all(pending)
}
