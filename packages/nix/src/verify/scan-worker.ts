// A worker thread: scans the store paths it is sent, one after the other.
import { parentPort } from 'node:worker_threads'
import { replyToScan } from './scan.ts'
import type { ScanRequest } from './scan.ts'

parentPort?.on('message', (request: ScanRequest) => parentPort?.postMessage(replyToScan(request)))
