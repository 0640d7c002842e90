// The reads and writes of one commit: a handful of statements of fixed texts, whatever the batch holds.
import type { NodeCoordinate, NodeReader, TreeNode } from '@bagcheck/log'
import type { Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import type { Statement, Transaction } from './engine.ts'
import { assertionOf, counterKey, type Context, type Rows } from './plan.ts'
import type { Tables } from './schema.ts'
import type { Write } from './writes.ts'

/** Size and root of the log. */
export interface Head {
  readonly size: number
  readonly root: Uint8Array
}

// Bodies go in statements of about this many bytes, unless one body alone is larger.
const BYTES_PER_INSERT = 8 * 1024 * 1024

const HEAD = same('head', 'select size, root from head where id = 1')

const MOVE_HEAD: Statement = {
  name: 'move head',
  sqlite: `update head set size = ?, root = ? where id = 1 and size = ? and root = ?
    returning size`,
  postgres: `update head set size = $1, root = $2 where id = 1 and size = $3 and root = $4
    returning size`,
}

const POLICY_VERSION = same('policy version', 'select max(version) as version from policy')

const NODES: Statement = {
  name: 'nodes of the tree',
  sqlite: `select node.level, node.idx, node.hash from json_each(?) as wanted
    join node on node.level = wanted.value ->> 0 and node.idx = wanted.value ->> 1`,
  postgres: `select node.level, node.idx, node.hash
    from unnest($1::bigint[], $2::bigint[]) as wanted (level, idx)
    join node on node.level = wanted.level and node.idx = wanted.idx`,
}

const NODE_STATES: Statement = {
  name: 'node identities',
  sqlite: `select id, expires_at, banned_entry from node_identity
    where id in (select value ->> 0 from json_each(?))`,
  postgres: 'select id, expires_at, banned_entry from node_identity where id = any($1::text[])',
}

const NONCES: Statement = {
  name: 'nonces',
  sqlite: 'select nonce from decision where nonce in (select value ->> 0 from json_each(?))',
  postgres: 'select nonce from decision where nonce = any($1::text[])',
}

const COUNTERS: Statement = {
  name: 'counters',
  sqlite: `select node_id, counter from json_each(?) as wanted
    join decision on node_id = wanted.value ->> 0 and counter = wanted.value ->> 1`,
  postgres: `select decision.node_id, decision.counter
    from unnest($1::text[], $2::bigint[]) as wanted (node_id, counter)
    join decision on decision.node_id = wanted.node_id and decision.counter = wanted.counter`,
}

const JOIN_TOKENS: Statement = {
  name: 'join tokens',
  sqlite: 'select id from join_token where id in (select value ->> 0 from json_each(?))',
  postgres: 'select id from join_token where id = any($1::text[])',
}

const ATTESTATIONS: Statement = {
  name: 'attestations',
  sqlite: `select assertion, entry_idx from attestation
    where assertion in (select value ->> 0 from json_each(?))`,
  postgres: 'select assertion, entry_idx from attestation where assertion = any($1::text[])',
}

const AUTHORITIES: Statement = {
  name: 'authorities',
  sqlite: 'select * from authority where id in (select value ->> 0 from json_each(?))',
  postgres: 'select * from authority where id = any($1::text[])',
}

const AUTHORITY_CHANGE: Statement = {
  name: 'authority',
  sqlite: `update authority set state = ?, activated_entry = ?, tainted_entry = ?, removed_entry = ?
    where id = ?`,
  postgres: `update authority
    set state = $1, activated_entry = $2, tainted_entry = $3, removed_entry = $4 where id = $5`,
}

const BAN: Statement = {
  name: 'ban',
  sqlite: 'update node_identity set banned_entry = ?, banned_at = ?, ban_reason = ? where id = ?',
  postgres:
    'update node_identity set banned_entry = $1, banned_at = $2, ban_reason = $3 where id = $4',
}

function same(name: string, text: string): Statement {
  return { name, sqlite: text, postgres: text }
}

/** @throws {BrokerError} LOG_CORRUPT – there is no head */
export async function readHead(db: Kysely<Tables>): Promise<Head> {
  return headOf(await db.selectFrom('head').select(['size', 'root']).executeTakeFirst())
}

/** As {@link readHead}, in a commit. */
export async function readHeadIn(tx: Transaction): Promise<Head> {
  const [row] = await tx.query<Tables['head']>(HEAD)
  return headOf(row)
}

function headOf(row: Pick<Tables['head'], 'size' | 'root'> | undefined): Head {
  if (row === undefined) throw new BrokerError('LOG_CORRUPT', 'expected a log head, saw none')
  return { size: row.size, root: Uint8Array.from(row.root) }
}

/** Moves the head by compare-and-swap. @throws {BrokerError} LOG_CORRUPT – it is not at `from` */
export async function moveHead(tx: Transaction, from: Head, to: Head): Promise<void> {
  const moved = await tx.query(MOVE_HEAD, to.size, to.root, from.size, from.root)
  if (moved.length !== 1)
    throw new BrokerError('LOG_CORRUPT', `the head moved from ${from.size} under the lock`)
}

/**
 * Fetches nodes and returns a reader over them.
 * @throws {BrokerError} LOG_CORRUPT – (from the reader) a node is missing
 */
export async function readNodes(
  db: Kysely<Tables>,
  coordinates: readonly NodeCoordinate[],
): Promise<NodeReader> {
  if (coordinates.length === 0) return readerOf([])
  const rows = await db
    .selectFrom('node')
    .selectAll()
    .where((eb) => eb.or(coordinates.map(({ level, index }) => eb.and({ level, idx: index }))))
    .execute()
  return readerOf(rows)
}

/** As {@link readNodes}, in a commit. */
export async function readNodesIn(
  tx: Transaction,
  coordinates: readonly NodeCoordinate[],
): Promise<NodeReader> {
  if (coordinates.length === 0) return readerOf([])
  const keys = coordinates.map(({ level, index }) => [level, index])
  return readerOf(await tx.lookup<Tables['node']>(NODES, keys))
}

function readerOf(rows: readonly Tables['node'][]): NodeReader {
  const found = new Map(rows.map(({ level, idx, hash }) => [`${level}/${idx}`, hash]))
  return (level, index) => {
    const hash = found.get(`${level}/${index}`)
    if (hash === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected a node ${level}/${index}, saw none`)
    return hash
  }
}

/** Reads what {@link Context} needs to judge a batch, all but the size of the log. */
export async function readContext(
  tx: Transaction,
  batch: readonly Write[],
): Promise<Omit<Context, 'size'>> {
  const decisions = batch.filter((write) => write.kind === 'decision')
  const enrolments = batch.filter((write) => write.kind === 'enrolment')
  const attestations = batch.filter((write) => write.kind === 'attestation')
  const steps = batch.filter((write) => write.kind === 'authority')
  const authorities = new Set([
    ...steps.flatMap(({ id, supersedes }) => [id, ...supersedes]),
    ...decisions.flatMap(({ expect: { authority } }) => authority ?? []),
  ])
  const nodes = new Set([
    ...decisions.map(({ node }) => node),
    ...enrolments.map(({ node }) => node.id),
    ...batch.filter((write) => write.kind === 'ban').map(({ node }) => node),
  ])
  const needsPolicy = decisions.length > 0 || batch.some(({ kind }) => kind === 'policy')
  const lookup = async <Row extends object>(
    statement: Statement,
    keys: readonly (readonly (string | number | null)[])[],
  ): Promise<Row[]> => {
    // A denial may have no nonce and no counter.
    const whole = keys.filter((key): key is readonly (string | number)[] => !key.includes(null))
    return whole.length === 0 ? [] : await tx.lookup<Row>(statement, whole)
  }
  const [versions, states, nonces, counters, joinTokens, known, authorityRows] = await Promise.all([
    needsPolicy ? tx.query<{ version: number | null }>(POLICY_VERSION) : [],
    lookup<Tables['node_identity']>(
      NODE_STATES,
      [...nodes].map((id) => [id]),
    ),
    lookup<{ nonce: string }>(
      NONCES,
      decisions.map(({ nonce }) => [nonce]),
    ),
    lookup<{ node_id: string; counter: number }>(
      COUNTERS,
      decisions.map(({ node, counter }) => [node, counter]),
    ),
    lookup<{ id: string }>(
      JOIN_TOKENS,
      enrolments.map(({ joinToken }) => [joinToken.id]),
    ),
    lookup<Tables['attestation']>(
      ATTESTATIONS,
      attestations.map((write) => [assertionOf(write)]),
    ),
    lookup<Tables['authority']>(
      AUTHORITIES,
      [...authorities].map((id) => [id]),
    ),
  ])
  return {
    policyVersion: versions[0]?.version ?? null,
    nodes: new Map(
      states.map((row) => [row.id, { expiresAt: row.expires_at, bannedEntry: row.banned_entry }]),
    ),
    nonces: new Set(nonces.map(({ nonce }) => nonce)),
    counters: new Set(counters.map(({ node_id, counter }) => counterKey(node_id, counter))),
    joinTokens: new Set(joinTokens.map(({ id }) => id)),
    attestations: new Map(known.map((row) => [row.assertion, row.entry_idx])),
    // Copies: the plan changes them.
    authorities: new Map(authorityRows.map((row) => [row.id, { ...row }])),
  }
}

/** Inserts everything that a batch adds, but the head. */
export async function insertRows(
  tx: Transaction,
  rows: Rows,
  nodes: readonly TreeNode[],
): Promise<void> {
  await Promise.all([
    tx.insert('entry', rows.entries),
    tx.insert(
      'node',
      nodes.map(({ level, index, hash }) => ({ level, idx: index, hash })),
    ),
    ...inGroups(rows.bodies).map((bodies) => tx.insert('body', bodies)),
    tx.insert('decision', rows.decisions),
    tx.insert('node_identity', rows.nodes),
    tx.insert('join_token', rows.joinTokens),
    tx.insert('attestation', rows.attestations),
    tx.insert('policy', rows.policies),
    tx.insert('authority', rows.authorities),
    ...rows.authorityChanges.map((row) =>
      tx.query(
        AUTHORITY_CHANGE,
        row.state,
        row.activated_entry,
        row.tainted_entry,
        row.removed_entry,
        row.id,
      ),
    ),
    ...rows.bans.map(({ id, entry, at, reason }) => tx.query(BAN, entry, at, reason, id)),
  ])
}

function inGroups(bodies: readonly Tables['body'][]): Tables['body'][][] {
  const groups: Tables['body'][][] = []
  let room = 0
  for (const body of bodies) {
    if (body.bytes.length > room) {
      groups.push([])
      room = BYTES_PER_INSERT
    }
    groups.at(-1)?.push(body)
    room -= body.bytes.length
  }
  return groups
}
