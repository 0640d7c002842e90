// The one place where the log grows. A batch is one transaction:
//
//   lock out other writers ► read head ► judge each write ► insert rows and nodes ► move the head by
//   compare-and-swap ► commit (durable) ► sign exactly what was committed ► store the checkpoint ► answer
//
// A checkpoint is a promise about a size that can never be taken back, hence: it is signed after its
// commit, never before; the head only ever moves from what the transaction read; and what this process
// signed last must be a prefix of what it signs next, or the database was rolled back under us and we stop.
// A crash after the commit loses no promise: the signature is deterministic, and opening signs again.
import {
  appendLeaves,
  leafHash,
  nodesNeeded,
  rootAt,
  sameHash,
  signCheckpoint,
  type NoteSigner,
} from '@bagcheck/log'
import type { Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import { crashAt, type CrashPoint } from './crash-point.ts'
import type { Engine } from './engine.ts'
import { storeError } from './failure.ts'
import { planBatch, type Outcome } from './plan.ts'
import { insertRows, readContext, readHead, readNodes, type Head } from './rows.ts'
import type { Tables } from './schema.ts'
import type { Write } from './writes.ts'

/** Commits batches, one at a time. */
export class Sequencer {
  readonly #engine: Engine
  readonly #origin: string
  readonly #signer: NoteSigner
  readonly #crashAt: CrashPoint | undefined
  /** What was signed last; moves only in `#publish`. */
  #signed: Head
  /** The checkpoint of `#signed` while the database has refused it: nobody is answered before it is stored. */
  #unstored: string | undefined

  constructor(options: {
    readonly engine: Engine
    readonly origin: string
    readonly signer: NoteSigner
    readonly signed: Head
    readonly crashAt?: CrashPoint | undefined
  }) {
    this.#engine = options.engine
    this.#origin = options.origin
    this.#signer = options.signer
    this.#signed = options.signed
    this.#crashAt = options.crashAt
  }

  /**
   * Commits what can be committed and answers each write, in order. Never throws: a failed transaction
   * is every write's answer.
   */
  async commit(batch: readonly Write[]): Promise<readonly Outcome[]> {
    try {
      return await this.#commitTogether(batch)
    } catch (cause) {
      const error = storeError(cause)
      // The database refused a row that our checks let through. Nothing was committed; alone, only the
      // offender fails.
      if (error.code === 'STORE_CONFLICT' && batch.length > 1) {
        const outcomes: Outcome[] = []
        for (const write of batch) outcomes.push(...(await this.commit([write])))
        return outcomes
      }
      return batch.map(() => error)
    }
  }

  async #commitTogether(batch: readonly Write[]): Promise<readonly Outcome[]> {
    crashAt('before-transaction', this.#crashAt)
    const { outcomes, head } = await this.#engine.write(async (tx) => {
      const before = await readHead(tx)
      await this.#checkPrefix(tx, before)
      const plan = planBatch(batch, await readContext(tx, before.size, batch))
      if (plan.rows.entries.length === 0) return { outcomes: plan.outcomes, head: before }
      const frontier = await readNodes(
        tx,
        nodesNeeded((read) => rootAt(before.size, read)),
      )
      if (!sameHash(rootAt(before.size, frontier), before.root))
        throw new BrokerError('LOG_CORRUPT', `the nodes do not make the root at ${before.size}`)
      const leaves = plan.rows.entries.map(({ leaf }) => leafHash(leaf))
      const after = appendLeaves(before.size, leaves, frontier)
      await insertRows(tx, plan.rows, after.nodes)
      crashAt('after-insert', this.#crashAt)
      const moved = await tx
        .updateTable('head')
        .set({ size: after.size, root: after.root })
        .where('size', '=', before.size)
        .where('root', '=', before.root)
        .executeTakeFirst()
      if (moved.numUpdatedRows !== 1n)
        throw new BrokerError('LOG_CORRUPT', `the head moved from ${before.size} under the lock`)
      crashAt('before-commit', this.#crashAt)
      return { outcomes: plan.outcomes, head: after }
    })
    crashAt('after-commit', this.#crashAt)
    await this.#publish(head)
    crashAt('after-checkpoint', this.#crashAt)
    return outcomes.map((outcome) =>
      typeof outcome === 'number' ? { index: outcome, treeSize: head.size } : outcome,
    )
  }

  /** Refuses a log that is not a continuation of what was signed last: a restored backup, a fork. */
  async #checkPrefix(tx: Kysely<Tables>, head: Head): Promise<void> {
    const signed = this.#signed
    if (head.size === signed.size && sameHash(head.root, signed.root)) return
    const read = (size: number) => nodesNeeded((readNode) => rootAt(size, readNode))
    const continues =
      head.size > signed.size &&
      sameHash(rootAt(signed.size, await readNodes(tx, read(signed.size))), signed.root)
    if (!continues)
      throw new BrokerError(
        'LOG_CORRUPT',
        `expected a continuation of the log signed at size ${signed.size}, saw size ${head.size}`,
      )
  }

  async #publish(head: Head): Promise<void> {
    const { size, root } = head
    if (size !== this.#signed.size) {
      this.#signed = { size, root }
      this.#unstored = signCheckpoint({ origin: this.#origin, size, root }, this.#signer)
    }
    if (this.#unstored === undefined) return
    await storeCheckpoint(this.#engine, size, this.#unstored)
    this.#unstored = undefined
  }
}

/**
 * Stores a signed checkpoint. Lost in a power failure it is made again, the same to the last bit: by
 * opening, and where only a PostgreSQL server was lost, with the next commit.
 */
export async function storeCheckpoint(engine: Engine, size: number, note: string): Promise<void> {
  await engine.writeRelaxed(async (tx) => {
    await tx
      .insertInto('checkpoint')
      .values({ size, note })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  })
}
