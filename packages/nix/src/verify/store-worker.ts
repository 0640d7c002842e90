// A worker thread: scans store paths, or looks for entries that moved, as it is asked.
import { parentPort } from 'node:worker_threads'
import { findMoved } from './moved.ts'
import type { MovedRequest } from './moved.ts'
import { replyToScan } from './scan.ts'
import type { ScanRequest } from './scan.ts'

parentPort?.on('message', (request: ScanRequest | MovedRequest) => {
  parentPort?.postMessage('snapshots' in request ? findMoved(request) : replyToScan(request))
})
