// The broker's memory: one log, and tables that say what its entries mean. Writes go through the worker
// and commit in groups; reads go straight to the database. Nothing is cached here: with several brokers
// on one PostgreSQL each sees what the others committed.
import { LogError, parseNoteKey } from '@bagcheck/log'
import { openEngine, type Engine, type EngineConfig } from './engine.ts'
import type { CrashPoint } from './crash-point.ts'
import { storeError } from './failure.ts'
import { LogClient } from './log-client.ts'
import * as log from './log-reads.ts'
import * as records from './record-reads.ts'
import type { Head } from './rows.ts'

/** How long a write waits for its answer unless told. */
export const WRITE_TIMEOUT_MS = 10_000

/** What {@link openStore} needs. */
export interface StoreOptions {
  readonly engine: EngineConfig
  /** The log's origin, which is also the name of its key. */
  readonly origin: string
  /** The log's secret key, a signed-note key line. */
  readonly logKey: string
  /** See {@link WRITE_TIMEOUT_MS}. */
  readonly timeoutMs?: number
  /** Kills this process at that point of the first commit. */
  readonly testingOnlyCrashAt?: CrashPoint | undefined
}

/** Whether the store works, and how far it is. */
export interface Health {
  readonly size: number
  /** Writes that wait for an answer. */
  readonly waiting: number
}

/** An open store; from {@link openStore}. Reads throw STORE_UNAVAILABLE or STORE_TIMEOUT when they cannot. */
export type Store = Awaited<ReturnType<typeof openStore>>

/**
 * Opens the database, makes what is missing, and verifies the whole log before anything else.
 * @throws {BrokerError} LOG_CORRUPT – the log does not add up or another key signed it; STORE_SCHEMA – a
 * newer version wrote it; STORE_UNAVAILABLE, STORE_FULL, STORE_TIMEOUT
 * @throws {LogError} NOTE_KEY – the key is malformed; CHECKPOINT_ORIGIN – it is another log's
 */
export async function openStore(options: StoreOptions) {
  const { engine: config, origin, logKey, testingOnlyCrashAt } = options
  const { name } = parseNoteKey(logKey)
  if (name !== origin)
    throw new LogError('CHECKPOINT_ORIGIN', `expected a log key named ${origin}, saw ${name}`)
  const client = await LogClient.start(
    { engine: config, origin, logKey, testingOnlyCrashAt },
    options.timeoutMs ?? WRITE_TIMEOUT_MS,
  )
  const engine = await openReader(config, client)
  const { db } = engine

  const close = async (): Promise<void> => {
    // The writer last: SQLite copies the WAL into its file when the last connection closes that may write.
    await engine.close()
    await client.close()
  }
  return {
    commitDecision: client.commitDecision.bind(client),
    commitAttestation: client.commitAttestation.bind(client),
    commitPolicy: client.commitPolicy.bind(client),
    commitEnrolment: client.commitEnrolment.bind(client),
    banNode: client.banNode.bind(client),
    commitAuthority: client.commitAuthority.bind(client),

    head: (): Promise<Head> => coded(log.head(db)),
    checkpoint: () => coded(log.checkpoint(db)),
    entry: (index: number) => coded(log.entry(db, index)),
    entriesFrom: (index: number, limit?: number) => coded(log.entriesFrom(db, index, limit)),
    body: (reference: log.BodyReference) => coded(log.body(db, reference)),
    inclusionProof: (index: number, size: number) => coded(log.prove(db, index, size)),
    consistencyProof: (from: number, to: number) => coded(log.proveConsistency(db, from, to)),
    tile: (level: number, index: number, width: number) => coded(log.tile(db, level, index, width)),
    entryBundle: (index: number, width: number) => coded(log.entryBundle(db, index, width)),

    nodes: () => coded(records.nodes(db)),
    node: (id: string) => coded(records.node(db, id)),
    attestation: (closureDigest: string) => coded(records.attestation(db, closureDigest)),
    attestations: (closureDigest?: string) => coded(records.attestations(db, closureDigest)),
    installedPolicy: () => coded(records.installedPolicy(db)),
    policy: (version: number) => coded(records.policy(db, version)),
    authorities: (after?: number) => coded(records.authorities(db, after)),
    decision: (id: string) => coded(records.decision(db, id)),
    successesFrom: (index: number) => coded(records.successesFrom(db, index)),
    nodeSuccesses: () => coded(records.nodeSuccesses(db)),
    decisions: (query?: records.DecisionQuery) => coded(records.decisions(db, query)),

    /** Writes that wait for an answer. */
    get waiting(): number {
      return client.waiting
    },
    /** @throws {BrokerError} STORE_UNAVAILABLE, STORE_TIMEOUT – the store does not work */
    health: async (): Promise<Health> => {
      client.checkAlive()
      const { size } = await coded(log.head(db))
      return { size, waiting: client.waiting }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function openReader(config: EngineConfig, client: LogClient): Promise<Engine> {
  try {
    return openEngine(config, 'read')
  } catch (cause) {
    await client.close()
    throw storeError(cause)
  }
}

async function coded<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    throw storeError(cause)
  }
}
