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
  type Appended,
  type NodeCoordinate,
  type NodeReader,
  type NoteSigner,
} from '@bagcheck/log'
import { BrokerError } from '../error.ts'
import { crashAt, type CrashPoint } from './crash-point.ts'
import type { Engine, Statement, Transaction } from './engine.ts'
import { storeError } from './failure.ts'
import { planBatch, type Outcome } from './plan.ts'
import { insertRows, moveHead, readContext, readHeadIn, readNodesIn, type Head } from './rows.ts'
import type { Write } from './writes.ts'

// Asynchronous in PostgreSQL, where each statement can say so for itself.
const CHECKPOINT: Statement = {
  name: 'checkpoint',
  sqlite: 'insert into checkpoint (size, note) values (?, ?) on conflict do nothing',
  postgres: `with relaxed as (select set_config('synchronous_commit', 'off', true))
    insert into checkpoint (size, note) select $1::bigint, $2::text from relaxed
    on conflict do nothing`,
}

/** Commits batches, one at a time. */
export class Sequencer {
  readonly #engine: Engine
  readonly #origin: string
  readonly #signer: NoteSigner
  readonly #crashAt: CrashPoint | undefined
  /** What was signed last; moves only in `#publish`. */
  #signed: Head
  /** The complete subtrees that the tree of `#signed` consists of, once known. */
  #frontier: NodeReader | undefined
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
    const { outcomes, head, frontier } = await this.#engine.commit(async (tx) => {
      // Asked for at once; the head is judged first.
      const [before, context] = await Promise.all([readHeadIn(tx), readContext(tx, batch)])
      const frontier = await this.#frontierOf(tx, before)
      const plan = planBatch(batch, { ...context, size: before.size })
      if (plan.rows.entries.length === 0) return { outcomes: plan.outcomes, head: before, frontier }
      const leaves = plan.rows.entries.map(({ leaf }) => leafHash(leaf))
      const after = appendLeaves(before.size, leaves, frontier)
      await insertRows(tx, plan.rows, after.nodes)
      crashAt('after-insert', this.#crashAt)
      await moveHead(tx, before, after)
      crashAt('before-commit', this.#crashAt)
      return { outcomes: plan.outcomes, head: after, frontier: grown(frontier, after) }
    })
    crashAt('after-commit', this.#crashAt)
    this.#frontier = frontier
    await this.#publish(head)
    crashAt('after-checkpoint', this.#crashAt)
    return outcomes.map((outcome) =>
      typeof outcome === 'number' ? { index: outcome, treeSize: head.size } : outcome,
    )
  }

  /**
   * The subtrees that make up the tree at `head`, checked against its root. Refuses a log that is not a
   * continuation of what was signed last: a restored backup, a fork.
   */
  async #frontierOf(tx: Transaction, head: Head): Promise<NodeReader> {
    const signed = this.#signed
    const unmoved = head.size === signed.size && sameHash(head.root, signed.root)
    // We computed this very root from these nodes.
    if (unmoved && this.#frontier !== undefined) return this.#frontier
    if (head.size < signed.size) throw notContinued(signed, head)
    const needed = (size: number): NodeCoordinate[] => nodesNeeded((read) => rootAt(size, read))
    const read = await readNodesIn(tx, [...needed(signed.size), ...needed(head.size)])
    if (!sameHash(rootAt(signed.size, read), signed.root)) throw notContinued(signed, head)
    if (!sameHash(rootAt(head.size, read), head.root))
      throw new BrokerError('LOG_CORRUPT', `the nodes do not make the root at ${head.size}`)
    return read
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

/** The subtrees of the larger tree, from those of the smaller and the new ones; no others are kept. */
function grown(frontier: NodeReader, { size, nodes }: Appended): NodeReader {
  const added = new Map(nodes.map(({ level, index, hash }) => [`${level}/${index}`, hash]))
  const kept = new Map<string, Uint8Array>()
  rootAt(size, (level, index) => {
    const hash = added.get(`${level}/${index}`) ?? frontier(level, index)
    kept.set(`${level}/${index}`, hash)
    return hash
  })
  return (level, index) => {
    const hash = kept.get(`${level}/${index}`)
    if (hash === undefined) throw new TypeError(`node ${level}/${index} is not of the frontier`)
    return hash
  }
}

function notContinued(signed: Head, seen: Head): BrokerError {
  return new BrokerError(
    'LOG_CORRUPT',
    `expected a continuation of the log signed at size ${signed.size}, saw size ${seen.size}`,
  )
}

/**
 * Stores a signed checkpoint. Lost in a power failure it is made again, the same to the last bit: by
 * opening, and where only a PostgreSQL server was lost, with the next commit.
 */
export async function storeCheckpoint(engine: Engine, size: number, note: string): Promise<void> {
  await engine.relaxed(CHECKPOINT, size, note)
}
