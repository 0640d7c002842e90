// Measures a unit that may just be starting. A program that asks within its first moments is answered once
// the record of its launch is there. Between the questions no measuring thread is kept: however long a unit
// makes its start last, the others are measured.
import { AgentError } from '../error.ts'

/** Longest wait for one start; `bagcheck exec` takes some ten milliseconds where nothing hampers it. */
const START_WAIT_MS = 2000
/** Each pause is twice the one before: a handful of questions, and no start is waited for twice over. */
const FIRST_PAUSE_MS = 10

/**
 * What `measure` resolves to once the unit has started.
 * @throws {AgentError} UNIT_STARTING if it did not start in time; whatever else `measure` throws, at once
 */
export async function awaitStart<T>(
  measure: () => Promise<T>,
  pause: (milliseconds: number) => Promise<unknown>,
): Promise<T> {
  let leftMs = START_WAIT_MS
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs *= 2) {
    try {
      return await measure()
    } catch (error) {
      const starting = error instanceof AgentError && error.code === 'UNIT_STARTING'
      if (!starting || leftMs <= 0) throw error
    }
    await pause(Math.min(pauseMs, leftMs))
    leftMs -= pauseMs
  }
}
