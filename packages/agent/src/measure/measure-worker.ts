// The measurer's thread: requests in, replies out, nothing else.
import { parentPort, workerData } from 'node:worker_threads'
import type { MeasureRequest, MeasurerOptions } from './messages.ts'
import { dropAmbientCapabilities } from '../privileges.ts'
import { Measurer } from './measurer.ts'

if (parentPort === null) throw new TypeError('this file is a worker thread')
const port = parentPort
dropAmbientCapabilities()
const measurer = new Measurer(workerData as MeasurerOptions)
port.on('message', (request: MeasureRequest) => port.postMessage(measurer.answer(request)))
