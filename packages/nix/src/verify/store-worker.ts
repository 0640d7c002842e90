// A worker thread: looks at store paths, or for entries that moved, as it is asked.
import { parentPort } from 'node:worker_threads'
import { findMoved } from './moved.ts'
import type { MovedRequest } from './moved.ts'
import { finish, replyTo } from './reply.ts'
import type { Request } from './reply.ts'

parentPort?.on('message', (request: Request | MovedRequest) => {
  parentPort?.postMessage('snapshots' in request ? findMoved(request) : finish(replyTo(request)))
})
