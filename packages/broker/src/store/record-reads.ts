// What entries mean: nodes, attestations, the installed policy, decisions. Bodies are read apart, by digest.
import type { Kysely, Selectable } from 'kysely'
import { BrokerError } from '../error.ts'
import type { AuthorityState } from './authority-states.ts'
import type { Tables } from './schema.ts'
import type { DecisionRecord } from './writes.ts'

/** A node that was enrolled; times in seconds since the epoch. */
export interface StoredNode {
  readonly id: string
  readonly jwk: Readonly<Record<string, unknown>>
  readonly nodeClass: string
  /** The log entries of its enrolment and of its ban. */
  readonly enrolledEntry: number
  readonly enrolledAt: number
  readonly expiresAt: number
  readonly ban: { readonly entry: number; readonly at: number; readonly reason: string } | null
  /** The join token that it used; its envelope is a body. */
  readonly joinToken: { readonly id: string; readonly bodySha256: string }
}

/** An attestation; envelope, manifest and file list are bodies. */
export interface StoredAttestation {
  readonly entryIndex: number
  readonly closureDigest: string
  readonly root: string
  readonly signerKey: string
  readonly envelopeSha256: string
  readonly manifestSha256: string
  readonly filesSha256: string
  readonly submittedAt: number
}

/** A policy; its JSON (`sha256`) and its envelope are bodies. */
export interface StoredPolicy {
  readonly version: number
  readonly sha256: string
  readonly envelopeSha256: string
  readonly entryIndex: number
  readonly installedAt: number
}

/** A decision; its evidence is a body, its envelope the body of its entry. */
export interface StoredDecision extends DecisionRecord {
  readonly entryIndex: number
  readonly evidenceSha256: string
}

/** An authority: where it stands, and the log entries that brought it there. */
export interface StoredAuthority {
  readonly id: string
  readonly state: AuthorityState
  readonly entries: {
    readonly prepared: number
    readonly activated: number | null
    readonly tainted: number | null
    readonly removed: number | null
  }
}

/**
 * Which decisions, `limit` at most: those after an entry, oldest first, or, without `after`, the newest
 * first.
 */
export interface DecisionQuery {
  readonly after?: number | undefined
  /** Only entries with a lesser log index. */
  readonly before?: number | undefined
  readonly limit?: number | undefined
  readonly allow?: boolean | undefined
  readonly kind?: 'decision' | 'observation' | undefined
  readonly role?: string | undefined
  readonly unit?: string | undefined
}

/** Decisions in one answer at most. */
export const MAX_DECISIONS = 1_000

/** Every node, in order of enrolment. */
export async function nodes(db: Kysely<Tables>): Promise<StoredNode[]> {
  const rows = await selectNodes(db).orderBy('enrolled_entry').execute()
  return rows.map(toNode)
}

/** One node, or undefined. */
export async function node(db: Kysely<Tables>, id: string): Promise<StoredNode | undefined> {
  const row = await selectNodes(db).where('node_identity.id', '=', id).executeTakeFirst()
  return row && toNode(row)
}

/** The newest attestation of a closure, or undefined. */
export async function attestation(
  db: Kysely<Tables>,
  closureDigest: string,
): Promise<StoredAttestation | undefined> {
  const row = await db
    .selectFrom('attestation')
    .selectAll()
    .where('closure_digest', '=', closureDigest)
    .orderBy('entry_idx', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && toAttestation(row)
}

/** Every attestation, of one closure or of all, oldest first. */
export async function attestations(
  db: Kysely<Tables>,
  closureDigest?: string,
): Promise<StoredAttestation[]> {
  const all = db.selectFrom('attestation').selectAll().orderBy('entry_idx')
  const query = closureDigest === undefined ? all : all.where('closure_digest', '=', closureDigest)
  return (await query.execute()).map(toAttestation)
}

/** The policy of the highest version, or undefined before the first. */
export async function installedPolicy(db: Kysely<Tables>): Promise<StoredPolicy | undefined> {
  const row = await db
    .selectFrom('policy')
    .selectAll()
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && toPolicy(row)
}

/** The policy of one version, or undefined. */
export async function policy(
  db: Kysely<Tables>,
  version: number,
): Promise<StoredPolicy | undefined> {
  const row = await db
    .selectFrom('policy')
    .selectAll()
    .where('version', '=', version)
    .executeTakeFirst()
  return row && toPolicy(row)
}

/** Authorities that an entry after `after` is about, or all, oldest first. */
export async function authorities(
  db: Kysely<Tables>,
  after: number = -1,
): Promise<StoredAuthority[]> {
  const rows = await db
    .selectFrom('authority')
    .selectAll()
    .where((eb) =>
      eb.or([
        eb('prepared_entry', '>', after),
        eb('activated_entry', '>', after),
        eb('tainted_entry', '>', after),
        eb('removed_entry', '>', after),
      ]),
    )
    .orderBy('prepared_entry')
    .execute()
  return rows.map((row) => ({
    id: row.id,
    state: row.state,
    entries: {
      prepared: row.prepared_entry,
      activated: row.activated_entry,
      tainted: row.tainted_entry,
      removed: row.removed_entry,
    },
  }))
}

/** One decision, or undefined. */
export async function decision(
  db: Kysely<Tables>,
  id: string,
): Promise<StoredDecision | undefined> {
  const row = await db.selectFrom('decision').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toDecision(row)
}

/** Decisions, as {@link DecisionQuery} orders them. @throws {BrokerError} LOG_RANGE – no index or limit */
export async function decisions(
  db: Kysely<Tables>,
  query: DecisionQuery = {},
): Promise<StoredDecision[]> {
  const { after, before, limit = 100, allow, kind, role, unit } = query
  for (const [what, value, least] of [
    ['after', after ?? 0, -1],
    ['before', before ?? 0, 0],
    ['limit', limit, 1],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least)
      throw new BrokerError('LOG_RANGE', `expected ${what} of ${least} or more, saw ${value}`)
  }
  let select = db.selectFrom('decision').selectAll()
  if (after !== undefined) select = select.where('entry_idx', '>', after)
  if (before !== undefined) select = select.where('entry_idx', '<', before)
  if (allow !== undefined) select = select.where('allow', '=', allow ? 1 : 0)
  if (kind !== undefined)
    select = select.where(({ exists, selectFrom }) =>
      exists(
        selectFrom('entry')
          .select('entry.idx')
          .whereRef('entry.idx', '=', 'decision.entry_idx')
          .where('entry.kind', '=', kind),
      ),
    )
  if (role !== undefined) select = select.where('role', '=', role)
  if (unit !== undefined) select = select.where('unit', '=', unit)
  const rows = await select
    .orderBy('entry_idx', after === undefined ? 'desc' : 'asc')
    .limit(Math.min(limit, MAX_DECISIONS))
    .execute()
  return rows.map(toDecision)
}

/** The last successes among decisions: by node, and by role and unit. */
export interface Successes {
  readonly nodes: readonly (readonly [node: string, at: number])[]
  readonly roles: readonly (readonly [role: string, unit: string, at: number])[]
}

/** The last successes among the decisions from entry `index` on. */
export async function successesFrom(db: Kysely<Tables>, index: number): Promise<Successes> {
  const allowed = db.selectFrom('decision').where('entry_idx', '>=', index).where('allow', '=', 1)
  const nodes = await allowed
    .select(({ fn }) => ['node_id', fn.max('issued_at').as('at')])
    .groupBy('node_id')
    .execute()
  const roles = await allowed
    .select(({ fn }) => ['role', 'unit', fn.max('issued_at').as('at')])
    .groupBy(['role', 'unit'])
    .execute()
  return {
    nodes: nodes.map(({ node_id, at }) => [node_id, Number(at)]),
    roles: roles.map(({ role, unit, at }) => [role ?? '', unit, Number(at)]),
  }
}

/** The last success of every node that had one, each by the index of its counters, which only go up. */
export async function nodeSuccesses(
  db: Kysely<Tables>,
): Promise<(readonly [node: string, at: number])[]> {
  const rows = await db
    .selectFrom('node_identity')
    .select(({ selectFrom }) => [
      'id',
      selectFrom('decision')
        .select('issued_at')
        .whereRef('node_id', '=', 'node_identity.id')
        .where('allow', '=', 1)
        .where('counter', 'is not', null)
        .orderBy('counter', 'desc')
        .limit(1)
        .as('at'),
    ])
    .execute()
  return rows.flatMap(({ id, at }) => (at === null ? [] : [[id, at] as const]))
}

function selectNodes(db: Kysely<Tables>) {
  return db
    .selectFrom('node_identity')
    .innerJoin('join_token', 'join_token.node_id', 'node_identity.id')
    .selectAll('node_identity')
    .select(['join_token.id as token_id', 'join_token.body_sha256 as token_body'])
}

function toNode(
  row: Selectable<Tables['node_identity']> & { token_id: string; token_body: string },
): StoredNode {
  const { banned_entry: entry, banned_at: at, ban_reason: reason } = row
  return {
    id: row.id,
    jwk: JSON.parse(row.jwk),
    nodeClass: row.class,
    enrolledEntry: row.enrolled_entry,
    enrolledAt: row.enrolled_at,
    expiresAt: row.expires_at,
    // Any one of the three bans: a row changed by hand must not lift it.
    ban:
      entry === null && at === null && reason === null
        ? null
        : { entry: entry ?? -1, at: at ?? 0, reason: reason ?? '' },
    joinToken: { id: row.token_id, bodySha256: row.token_body },
  }
}

function toAttestation(row: Selectable<Tables['attestation']>): StoredAttestation {
  return {
    entryIndex: row.entry_idx,
    closureDigest: row.closure_digest,
    root: row.root,
    signerKey: row.signer_key,
    envelopeSha256: row.envelope_sha256,
    manifestSha256: row.manifest_sha256,
    filesSha256: row.files_sha256,
    submittedAt: row.submitted_at,
  }
}

function toPolicy(row: Selectable<Tables['policy']>): StoredPolicy {
  return {
    version: row.version,
    sha256: row.sha256,
    envelopeSha256: row.envelope_sha256,
    entryIndex: row.entry_idx,
    installedAt: row.installed_at,
  }
}

function toDecision(row: Selectable<Tables['decision']>): StoredDecision {
  return {
    id: row.id,
    allow: row.allow === 1,
    node: row.node_id,
    nonce: row.nonce,
    counter: row.counter,
    role: row.role,
    audience: row.audience,
    unit: row.unit,
    issuedAt: row.issued_at,
    expiresAt: row.expires_at,
    code: row.code,
    entryIndex: row.entry_idx,
    evidenceSha256: row.evidence_sha256,
  }
}
