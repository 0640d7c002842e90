// Reads the whole log at start and refuses one that does not add up: every leaf hashes into every stored
// node, the nodes into the head, and the checkpoint signed last is a prefix of it. What an attacker with
// access to the database alone cannot fake is the signature: a log rewritten throughout still fails there.
// A whole database put back to an older state, checkpoints included, cannot be seen from inside; whoever
// kept a later checkpoint sees it.
import {
  appendLeaves,
  emptyRoot,
  leafHash,
  LogError,
  nodesNeeded,
  openCheckpoint,
  rootAt,
  sameHash,
  type Checkpoint,
  type TreeNode,
} from '@bagcheck/log'
import { sql, type Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import { readHead, readNodes, type Head } from './rows.ts'
import type { Tables, Types } from './schema.ts'

const LEAVES_PER_READ = 1_024
/** Of a tree of 2^53 - 1 leaves. */
const MAX_LEVEL = 52

/**
 * Returns the head of a log that adds up. Takes time and one read per entry, memory for a few thousand.
 * Needs one consistent view of the tables: call it in a transaction.
 * @throws {BrokerError} LOG_CORRUPT – anything is missing, altered, too much, or signed by another key
 */
export async function verifyLog(
  tx: Kysely<Tables>,
  types: Pick<Types, 'hashText'>,
  vkey: string,
): Promise<Head> {
  const head = await readHead(tx)
  // The newest complete subtree of each level: all that appending reads.
  const newest: (Uint8Array | undefined)[] = []
  let size = 0
  let root = emptyRoot()
  for (;;) {
    const leaves = await readLeaves(tx, size)
    if (leaves.length === 0) break
    const appended = appendLeaves(size, leaves, (level) => {
      const hash = newest[level]
      if (hash === undefined) throw new TypeError(`no node of level ${level} yet`)
      return hash
    })
    for (const { level, hash } of appended.nodes) newest[level] = hash
    await compareNodes(tx, types, appended.nodes)
    ;({ size, root } = appended)
  }
  if (size !== head.size || !sameHash(root, head.root))
    throw corrupt(`entries that make the head of size ${head.size}`, `${size} that do not`)
  await checkNothingBeyond(tx, size)
  await checkCheckpoint(tx, head, vkey)
  return head
}

async function readLeaves(tx: Kysely<Tables>, from: number): Promise<Uint8Array[]> {
  const rows = await tx
    .selectFrom('entry')
    .select(['idx', 'leaf'])
    .where('idx', '>=', from)
    .orderBy('idx')
    .limit(LEAVES_PER_READ)
    .execute()
  return rows.map(({ idx, leaf }, i) => {
    if (idx !== from + i) throw corrupt(`entry ${from + i}`, `entry ${idx}`)
    return leafHash(leaf)
  })
}

/** Compares the complete subtrees that a run of leaves closed, level by level, with what is stored. */
async function compareNodes(
  tx: Kysely<Tables>,
  types: Pick<Types, 'hashText'>,
  nodes: readonly TreeNode[],
): Promise<void> {
  for (const [level, computed] of Map.groupBy(nodes, (node) => node.level)) {
    const text = await readRun(tx, types, level, computed)
    const expected = Buffer.concat(computed.map(({ hash }) => hash))
    // Bytes that are not hexadecimal digits would end the decoding early.
    if (text?.length === 2 * expected.length && Buffer.from(text, 'hex').equals(expected)) continue
    await nameFirstDifference(tx, level, computed)
  }
}

/** The hashes of a run as one text, a quarter of the cost of a row for each; undefined unless all are there. */
async function readRun(
  tx: Kysely<Tables>,
  { hashText }: Pick<Types, 'hashText'>,
  level: number,
  computed: readonly TreeNode[],
): Promise<string | undefined> {
  const first = computed[0]?.index ?? 0
  const end = first + computed.length
  const query = sql<{ count: number; shortest: number; longest: number; hashes: string }>`
    select count(*) as count, min(length(hash)) as shortest, max(length(hash)) as longest,
      string_agg(${sql.raw(hashText)}, '') as hashes
    from (select idx, hash from node
      where level = ${level} and idx >= ${first} and idx < ${end} order by idx) as run`
  const row = (await query.execute(tx)).rows[0]
  // The key is unique: as many rows as there are indices are one for each.
  const whole = row?.count === computed.length && row.shortest === 32 && row.longest === 32
  return whole ? row.hashes : undefined
}

/** @throws {BrokerError} LOG_CORRUPT – always: it is called where something differs */
async function nameFirstDifference(
  tx: Kysely<Tables>,
  level: number,
  computed: readonly TreeNode[],
): Promise<never> {
  const first = computed[0]?.index ?? 0
  const stored = await tx
    .selectFrom('node')
    .select(['idx', 'hash'])
    .where('level', '=', level)
    .where('idx', '>=', first)
    .where('idx', '<', first + computed.length)
    .orderBy('idx')
    .execute()
  for (const [i, { index, hash }] of computed.entries()) {
    const seen = stored[i]
    if (seen?.idx !== index || !sameHash(seen.hash, hash))
      throw corrupt(`the hash of node ${level}/${index}`, seen === undefined ? 'none' : 'another')
  }
  throw corrupt(`the hashes of level ${level} from ${first}`, 'others')
}

/** A subtree that the log does not have yet would be believed when the log gets there. */
async function checkNothingBeyond(tx: Kysely<Tables>, size: number): Promise<void> {
  const levels = Array.from({ length: MAX_LEVEL + 1 }, (_, level) => level)
  const extra = await tx
    .selectFrom('node')
    .select(['level', 'idx'])
    .where((eb) =>
      eb.or([
        eb('level', '<', 0),
        eb('level', '>', MAX_LEVEL),
        ...levels.map((level) =>
          eb.and([eb('level', '=', level), eb('idx', '>=', Math.floor(size / 2 ** level))]),
        ),
      ]),
    )
    .limit(1)
    .executeTakeFirst()
  if (extra !== undefined) throw corrupt(`no node ${extra.level}/${extra.idx}`, 'one')
}

async function checkCheckpoint(tx: Kysely<Tables>, head: Head, vkey: string): Promise<void> {
  const row = await tx
    .selectFrom('checkpoint')
    .select(['size', 'note'])
    .orderBy('size', 'desc')
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) return // nothing was ever signed
  const checkpoint = open(row.note, vkey)
  if (checkpoint.size !== row.size || checkpoint.size > head.size)
    throw corrupt(`a log of the ${checkpoint.size} entries that were signed`, `${head.size}`)
  const nodes = await readNodes(
    tx,
    nodesNeeded((read) => rootAt(checkpoint.size, read)),
  )
  if (!sameHash(rootAt(checkpoint.size, nodes), checkpoint.root))
    throw corrupt(`the root that was signed at size ${checkpoint.size}`, 'another')
}

function open(note: string, vkey: string): Checkpoint {
  try {
    return openCheckpoint(note, [vkey])
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    const message = `expected a checkpoint signed by this log's key: ${cause.message}`
    throw new BrokerError('LOG_CORRUPT', message, { cause })
  }
}

function corrupt(expected: string, seen: string): BrokerError {
  return new BrokerError('LOG_CORRUPT', `expected ${expected}, saw ${seen}`)
}
