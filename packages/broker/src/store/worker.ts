// The thread that owns what must not be shared: the writing connection, the log's signing key and the
// sequencer. The main thread sends writes and gets answers; see `log-client.ts`.
//
// Group commit without a delay: whatever arrived while the last transaction ran is the next batch.
import { setImmediate } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { emptyRoot, formatVkey, parseNoteKey, signCheckpoint } from '@bagcheck/log'
import { BrokerError, type BrokerErrorCode } from '../error.ts'
import type { CrashPoint } from './crash-point.ts'
import { openEngine, type Engine, type EngineConfig } from './engine.ts'
import { storeError } from './failure.ts'
import { migrate } from './schema.ts'
import { Sequencer, storeCheckpoint } from './sequencer.ts'
import { verifyLog } from './verify-log.ts'
import type { Committed, Write } from './writes.ts'

/** What the worker is started with. */
export interface WorkerOptions {
  readonly engine: EngineConfig
  readonly origin: string
  /** The secret key line of a signed note. */
  readonly logKey: string
  readonly testingOnlyCrashAt?: CrashPoint | undefined
}

/** A write and the number under which it is answered. */
export interface QueuedWrite {
  readonly id: number
  readonly write: Write
}

/** From the main thread. */
export type Request =
  | { readonly type: 'writes'; readonly writes: readonly QueuedWrite[] }
  | { readonly type: 'close' }

/** An error on its way between threads. */
export interface ErrorMessage {
  readonly code: BrokerErrorCode
  readonly message: string
  readonly detail: Readonly<Record<string, unknown>> | undefined
}

/** To the main thread: once `ready` or `failed`, then answers. */
export type Reply =
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly error: ErrorMessage }
  | { readonly type: 'answers'; readonly answers: readonly Answer[] }

/** What became of one write. */
export type Answer = { readonly id: number } & (
  | { readonly committed: Committed }
  | { readonly error: ErrorMessage }
)

/** Writes in one transaction: enough to share a disk flush, few enough to bound its length. */
const MAX_BATCH = 256

const port = parentPort
if (port === null) throw new TypeError('worker.ts runs in a worker thread')
const send = (reply: Reply) => port.postMessage(reply)

const queue: QueuedWrite[] = []
let closing = false
let running = false

const opened = await open(workerData as WorkerOptions)
if (opened !== undefined) {
  port.on('message', (request: Request) => {
    if (request.type === 'close') closing = true
    else queue.push(...request.writes)
    if (!running) void run(opened) // never rejects: `commit` answers failures
  })
  send({ type: 'ready' })
}

async function run({ engine, sequencer }: NonNullable<typeof opened>): Promise<void> {
  running = true
  while (queue.length > 0) {
    const batch = queue.splice(0, MAX_BATCH)
    const outcomes = await sequencer.commit(batch.map(({ write }) => write))
    const answers = batch.map(({ id }, i): Answer => {
      const outcome = outcomes[i]
      if (outcome === undefined) throw new TypeError('a write without an outcome')
      return outcome instanceof BrokerError
        ? { id, error: messageOf(outcome) }
        : { id, committed: outcome }
    })
    send({ type: 'answers', answers })
    // SQLite never gives the event loop a turn; this one delivers what arrived meanwhile.
    await setImmediate()
  }
  running = false
  if (closing) {
    await engine.close()
    port?.close()
  }
}

async function open(
  options: WorkerOptions,
): Promise<{ engine: Engine; sequencer: Sequencer } | undefined> {
  let engine: Engine | undefined
  try {
    const signer = parseNoteKey(options.logKey)
    const { origin } = options
    engine = openEngine(options.engine, 'write')
    const { types } = engine
    await engine.write(async (tx) => {
      await migrate(tx, types)
      await tx
        .insertInto('head')
        .values({ id: 1, size: 0, root: emptyRoot() })
        .onConflict((conflict) => conflict.doNothing())
        .execute()
    })
    // In a snapshot and not under the writers' lock: another broker goes on while we read.
    const signed = await engine.db
      .transaction()
      .setIsolationLevel('repeatable read')
      .execute((tx) => verifyLog(tx, types, formatVkey(signer)))
    // What a crash after a commit left unsigned is signed now.
    await storeCheckpoint(engine, signed.size, signCheckpoint({ origin, ...signed }, signer))
    const crashAt = options.testingOnlyCrashAt
    return { engine, sequencer: new Sequencer({ engine, origin, signer, signed, crashAt }) }
  } catch (cause) {
    await engine?.close().catch(() => undefined) // the first failure is the one to report
    send({ type: 'failed', error: messageOf(storeError(cause)) })
    port?.close()
    return undefined
  }
}

function messageOf(error: BrokerError): ErrorMessage {
  return { code: error.code, message: error.message, detail: error.detail }
}
