// The reads and writes of one sequencer transaction: a handful of statements whatever the batch holds.
import type { NodeCoordinate, NodeReader, TreeNode } from '@bagcheck/log'
import type { Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import { counterKey, sha256, type Context, type Rows } from './plan.ts'
import type { Tables } from './schema.ts'
import type { Write } from './writes.ts'

/** Size and root of the log. */
export interface Head {
  readonly size: number
  readonly root: Uint8Array
}

// Within every engine's bound on parameters of one statement (SQLite: 32,766).
const ROWS_PER_INSERT = 1_000
// Bodies go in statements of about this many bytes, unless one body alone is larger.
const BYTES_PER_INSERT = 8 * 1024 * 1024

/** @throws {BrokerError} LOG_CORRUPT – there is no head */
export async function readHead(db: Kysely<Tables>): Promise<Head> {
  const head = await db.selectFrom('head').select(['size', 'root']).executeTakeFirst()
  if (head === undefined) throw new BrokerError('LOG_CORRUPT', 'expected a log head, saw none')
  return { size: head.size, root: Uint8Array.from(head.root) }
}

/**
 * Fetches nodes and returns a reader over them.
 * @throws {BrokerError} LOG_CORRUPT – (from the reader) a node is missing
 */
export async function readNodes(
  db: Kysely<Tables>,
  coordinates: readonly NodeCoordinate[],
): Promise<NodeReader> {
  const found = new Map<string, Uint8Array>()
  if (coordinates.length > 0) {
    const rows = await db
      .selectFrom('node')
      .selectAll()
      .where((eb) => eb.or(coordinates.map(({ level, index }) => eb.and({ level, idx: index }))))
      .execute()
    for (const { level, idx, hash } of rows) found.set(`${level}/${idx}`, hash)
  }
  return (level, index) => {
    const hash = found.get(`${level}/${index}`)
    if (hash === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected a node ${level}/${index}, saw none`)
    return hash
  }
}

/** Reads what {@link Context} needs to judge a batch. */
export async function readContext(
  db: Kysely<Tables>,
  size: number,
  batch: readonly Write[],
): Promise<Context> {
  const decisions = batch.filter((write) => write.kind === 'decision')
  const enrolments = batch.filter((write) => write.kind === 'enrolment')
  const attestations = batch.filter((write) => write.kind === 'attestation')
  const nodes = [
    ...decisions.map(({ node }) => node),
    ...enrolments.map(({ node }) => node.id),
    ...batch.filter((write) => write.kind === 'ban').map(({ node }) => node),
  ]
  const needsPolicy = decisions.length > 0 || batch.some(({ kind }) => kind === 'policy')
  const nonces = decisions.map(({ nonce }) => nonce).filter((nonce) => nonce !== null)
  return {
    size,
    policyVersion: needsPolicy ? await readPolicyVersion(db) : null,
    nodes: await readNodeStates(db, nodes),
    nonces: await readNonces(db, nonces),
    counters: await readCounters(db, decisions),
    joinTokens: await readJoinTokens(
      db,
      enrolments.map(({ joinToken }) => joinToken.id),
    ),
    attestations: await readAttestations(
      db,
      attestations.map(({ body }) => sha256(body)),
    ),
  }
}

async function readPolicyVersion(db: Kysely<Tables>): Promise<number | null> {
  const row = await db
    .selectFrom('policy')
    .select('version')
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row?.version ?? null
}

async function readNodeStates(
  db: Kysely<Tables>,
  ids: readonly string[],
): Promise<Context['nodes']> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .selectFrom('node_identity')
    .select(['id', 'expires_at', 'banned_entry'])
    .where('id', 'in', [...new Set(ids)])
    .execute()
  return new Map(
    rows.map((row) => [row.id, { expiresAt: row.expires_at, bannedEntry: row.banned_entry }]),
  )
}

async function readNonces(
  db: Kysely<Tables>,
  nonces: readonly string[],
): Promise<Context['nonces']> {
  if (nonces.length === 0) return new Set()
  const rows = await db
    .selectFrom('decision')
    .select('nonce')
    .where('nonce', 'in', nonces)
    .execute()
  return new Set(rows.map(({ nonce }) => nonce).filter((nonce) => nonce !== null))
}

async function readCounters(
  db: Kysely<Tables>,
  decisions: readonly { node: string; counter: number | null }[],
): Promise<Context['counters']> {
  const used = decisions.filter(({ counter }) => counter !== null)
  if (used.length === 0) return new Set()
  const rows = await db
    .selectFrom('decision')
    .select(['node_id', 'counter'])
    .where((eb) =>
      eb.or(
        used.map(({ node, counter }) =>
          eb.and([eb('node_id', '=', node), eb('counter', '=', counter)]),
        ),
      ),
    )
    .execute()
  return new Set(rows.map(({ node_id, counter }) => counterKey(node_id, counter ?? -1)))
}

async function readJoinTokens(
  db: Kysely<Tables>,
  ids: readonly string[],
): Promise<Context['joinTokens']> {
  if (ids.length === 0) return new Set()
  const rows = await db.selectFrom('join_token').select('id').where('id', 'in', ids).execute()
  return new Set(rows.map(({ id }) => id))
}

async function readAttestations(
  db: Kysely<Tables>,
  envelopes: readonly string[],
): Promise<Context['attestations']> {
  if (envelopes.length === 0) return new Map()
  const rows = await db
    .selectFrom('attestation')
    .select(['envelope_sha256', 'entry_idx'])
    .where('envelope_sha256', 'in', envelopes)
    .execute()
  return new Map(rows.map((row) => [row.envelope_sha256, row.entry_idx]))
}

/** Inserts everything that a batch adds, but the head. */
export async function insertRows(
  tx: Kysely<Tables>,
  rows: Rows,
  nodes: readonly TreeNode[],
): Promise<void> {
  await insert(tx, 'entry', rows.entries)
  await insert(
    tx,
    'node',
    nodes.map(({ level, index, hash }) => ({ level, idx: index, hash })),
  )
  await insertBodies(tx, rows.bodies)
  await insert(tx, 'decision', rows.decisions)
  await insert(tx, 'node_identity', rows.nodes)
  await insert(tx, 'join_token', rows.joinTokens)
  await insert(tx, 'attestation', rows.attestations)
  await insert(tx, 'policy', rows.policies)
  for (const { id, entry, at, reason } of rows.bans) {
    await tx
      .updateTable('node_identity')
      .set({ banned_entry: entry, banned_at: at, ban_reason: reason })
      .where('id', '=', id)
      .execute()
  }
}

async function insert<T extends keyof Tables>(
  tx: Kysely<Tables>,
  table: T,
  rows: readonly Tables[T][] | readonly object[],
): Promise<void> {
  for (let start = 0; start < rows.length; start += ROWS_PER_INSERT) {
    const values = rows.slice(start, start + ROWS_PER_INSERT)
    // The rows are Insertable<Tables[T]> at every call; Kysely cannot see that for a table it is not told.
    await tx
      .insertInto(table)
      .values(values as never)
      .execute()
  }
}

async function insertBodies(
  tx: Kysely<Tables>,
  bodies: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  let values: Tables['body'][] = []
  let bytes = 0
  const flush = async () => {
    if (values.length === 0) return
    // The same bytes may be there already: one manifest under two attestations.
    await tx
      .insertInto('body')
      .values(values)
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    values = []
    bytes = 0
  }
  for (const [digest, body] of bodies) {
    if (bytes + body.length > BYTES_PER_INSERT || values.length === ROWS_PER_INSERT) await flush()
    values.push({ sha256: digest, bytes: body })
    bytes += body.length
  }
  await flush()
}
