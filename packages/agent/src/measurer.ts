// Puts the measurer together: first sights, measuring threads, and who may ask. It has no network and parses
// nothing but what the kernel, PID 1 and `bagcheck exec` say and the five questions of its front.
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { AgentError } from './error.ts'
import type { MeasurerSettings } from './config.ts'
import { describe, type Log } from './log.ts'
import { FirstSights } from './measure/first-sights.ts'
import { readBootId } from './measure/host.ts'
import { isRunning } from './measure/instance.ts'
import { MeasurerPool } from './measure/pool.ts'
import type { ProcessConnector } from './measure/process-connector.ts'
import { assertProcfs } from './measure/proc-file.ts'
import { serveFront } from './measure/serve.ts'
import { NO_UNIT_CHANGES, UnitEvents } from './measure/unit-events.ts'
import { peerUser, sharedMemoryDevice } from './peer.ts'
import { lockState, makeStateDirectory, readOptional, writeFile } from './state-directory.ts'
import { listenAt } from './unix-socket.ts'

/** The measurer of an agent that was killed takes a moment to notice. */
const LOCK_WAIT_MS = 5000

/** A measurer that is ready to serve fronts. */
export interface RunningMeasurer extends AsyncDisposable {
  /** Resolves when `front` has gone. */
  serve(front: Socket): Promise<void>
  /** Serves whoever connects at `path` as the user `uid`, and nobody else. */
  listen(path: string, uid: number): Promise<void>
}

/**
 * @param connector where the kernel tells what processes do; undefined: only renewals measure anew
 * @throws {AgentError} PROC_NOT_PROCFS, KEY_FILE_MODE, STATE_INVALID
 */
export function startMeasurer(
  settings: MeasurerSettings,
  log: Log,
  connector?: ProcessConnector,
): RunningMeasurer {
  assertProcfs()
  using resources = new DisposableStack()
  makeStateDirectory(settings.stateDir)
  resources.use(lockState(settings.stateDir, LOCK_WAIT_MS))
  const pool = new MeasurerPool(
    { ...settings.options, sharedMemoryDevice: sharedMemoryDevice() },
    firstSightsIn(join(settings.stateDir, 'first-sights.json')),
  )
  const events =
    connector === undefined
      ? undefined
      : new UnitEvents(connector, (cause) =>
          log('warn', 'no events of processes any more', { cause: String(cause) }),
        )
  const fronts = { pool, places: settings.options, changes: events ?? NO_UNIT_CHANGES, log }
  const server = createServer()
  const held = resources.move()
  return {
    serve: (front) => serveFront(front, fronts),
    listen: (path, uid) => {
      server.on('connection', (socket) => {
        try {
          const asks = peerUser(socket)
          if (asks !== uid)
            throw new AgentError('PEER_UNKNOWN', `expected user ${uid}, saw user ${asks}`)
          void serveFront(socket, fronts) // it says itself how it ended
        } catch (error) {
          log('warn', 'not the front', describe(error))
          socket.destroy()
        }
      })
      return listenAt(server, path)
    },
    [Symbol.asyncDispose]: async () => {
      server.close()
      await pool[Symbol.asyncDispose]()
      await events?.[Symbol.asyncDispose]()
      held.dispose()
    },
  }
}

/** First sights as they were when a measurer last ran in this boot. */
function firstSightsIn(file: string): FirstSights {
  const store = {
    bootId: readBootId(),
    text: readOptional(file),
    save: (text: string) => writeFile(file, text),
  }
  return new FirstSights(store, isRunning)
}
