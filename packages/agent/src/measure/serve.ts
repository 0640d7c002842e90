// One connection of the front to the measurer: questions in, answers out. An unknown or malformed question
// ends the connection and nothing else.
import type { Socket } from 'node:net'
import { Channel } from '../channel.ts'
import { AgentError, type AgentErrorCode } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { findMainProcesses, type UnitPlaces } from './find-units.ts'
import { assertInstance, readInstance } from './instance.ts'
import { settledOf } from './messages.ts'
import type { MeasurerPool } from './pool.ts'
import {
  MAX_ANSWER_BYTES,
  MAX_QUESTION_BYTES,
  MAX_QUESTIONS,
  parseAnswer,
  parseQuestion,
  type Answer,
  type Question,
} from './protocol.ts'
import type { UnitChanges } from './unit-events.ts'

/** What answering takes. */
export interface FrontsContext {
  readonly pool: MeasurerPool
  /** Where units are looked for. */
  readonly places: UnitPlaces
  /** Changes of units that were measured, where the kernel tells them. */
  readonly changes: UnitChanges
  readonly log: Log
}

/** Answers on `socket` until it ends. */
export function serveFront(socket: Socket, context: FrontsContext): Promise<void> {
  const { changes, log } = context
  return new Promise((resolve) => {
    let waiting = 0
    const limits = { maxFrameBytes: MAX_QUESTION_BYTES, maxUnsentBytes: 2 * MAX_ANSWER_BYTES }
    const channel = new Channel(socket, limits, {
      frame: (frame) => {
        const question = parseQuestion(frame)
        if (waiting >= MAX_QUESTIONS)
          throw new AgentError('MEASURER_PROTOCOL', `expected at most ${MAX_QUESTIONS} questions`)
        waiting += 1
        void answer(question, context).then((said) => {
          waiting -= 1
          channel.send(said)
        })
      },
      end: (error) => {
        unsubscribe()
        if (error !== undefined) log('warn', 'the front was cut off', describe(error))
        resolve()
      },
    })
    const unsubscribe = changes.subscribe((notice) => channel.send({ event: 'changed', ...notice }))
  })
}

async function answer(question: Question, context: FrontsContext): Promise<Answer> {
  const { pool, places, changes, log } = context
  const { id } = question
  try {
    switch (question.ask) {
      case 'instance':
        return { id, ok: true, instance: readInstance(question.pid) }
      case 'check':
        assertInstance(question.instance)
        return { id, ok: true }
      case 'find':
        return bounded({
          ...{ id, ok: true },
          instances: await findMainProcesses(question.unit, places),
        })
      case 'measure': {
        const unitEvents = changes.isRunning ? 'process-connector' : 'none'
        const measurement = settledOf(await pool.measure(question.instance), unitEvents)
        changes.watch(measurement)
        return bounded({ id, ok: true, measurement })
      }
      case 'hash':
        return { id, ok: true, hashes: await pool.hash(question.instance, question.request) }
    }
  } catch (error) {
    if (!(error instanceof AgentError) || error.code === 'MEASUREMENT_FAILED')
      log('error', 'the measurer failed', describe(error))
    return { id, ok: false, ...problemOf(error) }
  }
}

/** An answer that the front takes: any other ends the connection, and with it the questions about all units. */
function bounded(answered: Answer): Answer {
  try {
    parseAnswer({ ...answered })
  } catch (cause) {
    throw new AgentError('MEASUREMENT_LIMIT', 'expected facts within the bounds of an answer', {
      cause,
    })
  }
  if (JSON.stringify(answered).length <= MAX_ANSWER_BYTES / 3) return answered // UTF-8 at its longest
  throw new AgentError('MEASUREMENT_LIMIT', 'expected facts that fit into one answer')
}

/** A mistake of ours tells the front nothing but where to look. */
function problemOf(error: unknown): { code: AgentErrorCode; message: string } {
  if (error instanceof AgentError) return { code: error.code, message: error.message }
  return { code: 'MEASUREMENT_FAILED', message: 'the measurer failed: its log says how' }
}
