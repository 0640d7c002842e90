// The thread of unit-events.ts. It waits in poll(2), so it looks for commands itself.
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import {
  closeProcessConnector,
  datagramBuffer,
  readDatagram,
  waitForEvents,
  type ProcessConnector,
} from './process-connector.ts'
import { parseProcessEvent, type ProcessEvent } from './process-event.ts'
import type { WatchCommand, WatchedUnitChanged } from './unit-events.ts'
import { WatchedUnits } from './watched-units.ts'

/** How late a command can be. */
const COMMAND_DELAY_MS = 50
/** Events that come close together wake the thread once: a host that builds something has hundreds a second. */
const REST_MS = 5
/** Commands are looked for between so many events, however many come. */
const BATCH = 256
/** Events are remembered for so long, because a unit is watched a moment after it was measured. */
const REMEMBERED_MS = 2000
const MAX_REMEMBERED = 16_384

if (parentPort === null) throw new TypeError('this file is a worker thread')
const port = parentPort
const connector = workerData as ProcessConnector
const units = new WatchedUnits()
const { bytes, view } = datagramBuffer()
let recent: { readonly atMs: number; readonly event: ProcessEvent }[] = []
const tell = (change: WatchedUnitChanged): void => port.postMessage(change)

const never = new Int32Array(new SharedArrayBuffer(4))
while (obey())
  if (waitForEvents(connector, COMMAND_DELAY_MS) && readBatch()) Atomics.wait(never, 0, 0, REST_MS)
closeProcessConnector(connector)
port.close()

/** Carries out what was asked meanwhile; false if that is to stop. */
function obey(): boolean {
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: WatchCommand } | undefined
    if (received === undefined) return true
    const { message } = received
    if ('stop' in message) return false
    const since = recent.filter(({ atMs }) => atMs >= message.sinceMs).map(({ event }) => event)
    const change = units.watch(message.watch, message.pids, since)
    if (change !== undefined) tell({ unit: message.watch, change })
  }
}

/** True if all that came was read. */
function readBatch(): boolean {
  const atMs = Date.now()
  if (recent.length > MAX_REMEMBERED || (recent[0]?.atMs ?? atMs) < atMs - 2 * REMEMBERED_MS)
    recent = recent.filter((one) => one.atMs >= atMs - REMEMBERED_MS).slice(-MAX_REMEMBERED / 2)
  for (let count = 0; count < BATCH; count += 1) {
    const read = readDatagram(connector, bytes)
    if (read === 'none') return true
    if (read === 'lost') {
      for (const unit of units.takeAll()) tell({ unit, change: 'lost' })
      continue
    }
    const event = parseProcessEvent(view, read.length)
    if (event === undefined) continue
    // Rather later than it was: what came after a measurement must not seem to have come before it.
    recent.push({ atMs: Date.now(), event })
    const change = units.take(event)
    if (change !== undefined) tell(change)
  }
  return false
}
