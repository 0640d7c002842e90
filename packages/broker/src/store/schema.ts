// The tables, the same in SQLite and PostgreSQL. Indices and sizes are 64-bit integers there and safe
// integers here; digests of bodies are lower-case hex; hashes of the tree are 32 raw bytes; times are
// seconds since the epoch.
//
//   head        one row: size and root of the log; advances by compare-and-swap alone
//   entry       what the leaves are; `leaf` is the bytes whose Merkle leaf hash is node (0, idx)
//   node        every complete subtree, written once
//   body        what entries commit to (envelopes, evidence, manifests), by entry and part
//   checkpoint  what was signed, by size
//   the others  what entries mean, for look-ups; each row points to its entry
import { sql, type Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import type { AuthorityState } from './authority-states.ts'

/** What a log entry is about. */
export type EntryKind =
  | 'decision'
  | 'attestation'
  | 'policy'
  | 'enrolment'
  | 'ban'
  | 'observation'
  | 'authority'

/** The tables as Kysely sees them. */
export interface Tables {
  schema_version: { version: number }
  head: { id: number; size: number; root: Uint8Array }
  entry: { idx: number; kind: EntryKind; ref: string; leaf: Uint8Array; body_sha256: string }
  node: { level: number; idx: number; hash: Uint8Array }
  body: { id: number; bytes: Uint8Array }
  checkpoint: { size: number; note: string }
  decision: {
    entry_idx: number
    id: string
    allow: number
    node_id: string
    nonce: string | null
    counter: number | null
    role: string | null
    audience: string
    unit: string
    issued_at: number
    expires_at: number | null
    code: string | null
    evidence_sha256: string
  }
  node_identity: {
    id: string
    jwk: string
    class: string
    enrolled_entry: number
    enrolled_at: number
    expires_at: number
    banned_entry: number | null
    banned_at: number | null
    ban_reason: string | null
  }
  join_token: { id: string; used_at: number; node_id: string; body_sha256: string }
  attestation: {
    entry_idx: number
    closure_digest: string
    root: string
    signer_key: string
    assertion: string
    envelope_sha256: string
    manifest_sha256: string
    files_sha256: string
    submitted_at: number
  }
  policy: {
    version: number
    sha256: string
    envelope_sha256: string
    entry_idx: number
    installed_at: number
  }
  authority: {
    id: string
    kind: string
    state: AuthorityState
    expires_at: number
    prepared_entry: number
    activated_entry: number | null
    tainted_entry: number | null
    removed_entry: number | null
  }
}

/** How one engine writes what the other writes differently. */
export interface Types {
  readonly integer: string
  readonly bytes: string
  /** Appended to `create table`. */
  readonly options: string
  /** An expression for the hash of a `node`, as text of 64 digits in upper case. */
  readonly hashText: string
  /** Appended instead where the rows are little more than their key. */
  readonly keyed: string
}

/** What an entry commits to, beside its leaf. The order is part of the schema: only ever append. */
export const BODY_PARTS = [
  'envelope',
  'evidence',
  'manifest',
  'files',
  'policy',
  'join-token',
] as const

/** One of {@link BODY_PARTS}. */
export type BodyPart = (typeof BODY_PARTS)[number]

/**
 * The key of a body. By entry and not by digest: bodies then lie in the order in which they were written,
 * and a commit adds to the end of one table instead of changing two pages of an index at random.
 */
export function bodyId(entryIndex: number, part: BodyPart): number {
  return entryIndex * 8 + BODY_PARTS.indexOf(part)
}

// Statements of version n + 1, run once. Never edited once released: a change is a further element.
const migrations: readonly ((types: Types) => readonly string[])[] = [
  ({ integer, bytes, options, keyed }) => [
    `create table head (
      id ${integer} primary key check (id = 1),
      size ${integer} not null,
      root ${bytes} not null
    ) ${options}`,
    `create table entry (
      idx ${integer} primary key,
      kind text not null,
      ref text not null,
      leaf ${bytes} not null,
      body_sha256 text not null
    ) ${options}`,
    `create table node (
      level ${integer} not null,
      idx ${integer} not null,
      hash ${bytes} not null,
      primary key (level, idx)
    ) ${keyed}`,
    `create table body (id ${integer} primary key, bytes ${bytes} not null) ${options}`,
    `create table checkpoint (size ${integer} primary key, note text not null) ${options}`,
    `create table decision (
      entry_idx ${integer} primary key,
      id text not null unique,
      allow ${integer} not null,
      node_id text not null,
      nonce text unique,
      counter ${integer},
      role text,
      audience text not null,
      unit text not null,
      issued_at ${integer} not null,
      expires_at ${integer},
      code text,
      evidence_sha256 text not null,
      unique (node_id, counter)
    ) ${options}`,
    `create table node_identity (
      id text primary key,
      jwk text not null,
      class text not null,
      enrolled_entry ${integer} not null unique,
      enrolled_at ${integer} not null,
      expires_at ${integer} not null,
      banned_entry ${integer},
      banned_at ${integer},
      ban_reason text
    ) ${options}`,
    `create table join_token (
      id text primary key,
      used_at ${integer} not null,
      node_id text not null,
      body_sha256 text not null
    ) ${options}`,
    `create table attestation (
      entry_idx ${integer} primary key,
      closure_digest text not null,
      root text not null,
      signer_key text not null,
      assertion text not null unique,
      envelope_sha256 text not null,
      manifest_sha256 text not null,
      files_sha256 text not null,
      submitted_at ${integer} not null
    ) ${options}`,
    'create index attestation_closure on attestation (closure_digest)',
    `create table policy (
      version ${integer} primary key,
      sha256 text not null,
      envelope_sha256 text not null,
      entry_idx ${integer} not null unique,
      installed_at ${integer} not null
    ) ${options}`,
  ],
  // Few rows, for ever: two for each day of each broker.
  ({ integer, options }) => [
    `create table authority (
      id text primary key,
      kind text not null,
      state text not null,
      expires_at ${integer} not null,
      prepared_entry ${integer} not null unique,
      activated_entry ${integer},
      tainted_entry ${integer},
      removed_entry ${integer}
    ) ${options}`,
  ],
]

/** The version of the schema that this code reads and writes. */
export const SCHEMA_VERSION: number = migrations.length

/**
 * Brings the schema to {@link SCHEMA_VERSION} inside the caller's transaction.
 * @throws {BrokerError} STORE_SCHEMA – the database was written by a newer version
 */
export async function migrate(tx: Kysely<Tables>, types: Types): Promise<void> {
  await sql
    .raw(
      `create table if not exists schema_version (version ${types.integer} not null) ${types.options}`,
    )
    .execute(tx)
  const row = await tx.selectFrom('schema_version').select('version').executeTakeFirst()
  const version = row?.version ?? 0
  if (version > SCHEMA_VERSION)
    throw new BrokerError(
      'STORE_SCHEMA',
      `expected a schema of version ${SCHEMA_VERSION} or older, saw version ${version}`,
    )
  for (const statements of migrations.slice(version)) {
    for (const statement of statements(types)) await sql.raw(statement).execute(tx)
  }
  if (row === undefined)
    await tx.insertInto('schema_version').values({ version: SCHEMA_VERSION }).execute()
  else if (version < SCHEMA_VERSION)
    await tx.updateTable('schema_version').set({ version: SCHEMA_VERSION }).execute()
}
