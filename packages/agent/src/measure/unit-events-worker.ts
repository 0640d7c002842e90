// The thread of unit-events.ts. It waits in poll(2), so it looks for commands itself.
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import {
  closeProcessConnector,
  datagramBuffer,
  readDatagram,
  waitForEvents,
  type ProcessConnector,
} from './process-connector.ts'
import { parseProcessEvent } from './process-event.ts'
import type { UnitChanged, WatchCommand } from './unit-events.ts'
import { WatchedUnits } from './watched-units.ts'

/** How late a command can be. A unit that changes before it is watched is found by its next measurement. */
const COMMAND_DELAY_MS = 50
/** Commands are looked for between so many events, however many come. */
const BATCH = 256

if (parentPort === null) throw new TypeError('this file is a worker thread')
const port = parentPort
const connector = workerData as ProcessConnector
const units = new WatchedUnits()
const { bytes, view } = datagramBuffer()
const tell = (change: UnitChanged): void => port.postMessage(change)

while (obey()) if (waitForEvents(connector, COMMAND_DELAY_MS)) readBatch()
closeProcessConnector(connector)
port.close()

/** Carries out what was asked meanwhile; false if that is to stop. */
function obey(): boolean {
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: WatchCommand } | undefined
    if (received === undefined) return true
    const { message } = received
    if ('stop' in message) return false
    if ('watch' in message) units.watch(message.watch, message.pids)
    else units.forget(message.forget)
  }
}

function readBatch(): void {
  for (let count = 0; count < BATCH; count += 1) {
    const read = readDatagram(connector, bytes)
    if (read === 'none') return
    if (read === 'lost') {
      for (const unit of units.takeAll()) tell({ unit, change: 'lost' })
      continue
    }
    const event = parseProcessEvent(view, read.length)
    const change = event === undefined ? undefined : units.take(event)
    if (change !== undefined) tell(change)
  }
}
