import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateNoteKey, openCheckpoint, verifyInclusion, type Checkpoint } from '@bagcheck/log'
import { startPostgres } from '@bagcheck/testkit'
import { sql, type Kysely } from 'kysely'
import { openEngine, type EngineConfig } from '../../src/store/engine.ts'
import type { Tables } from '../../src/store/schema.ts'
import { openStore, type Store, type StoreOptions } from '../../src/store/store.ts'
import type {
  AttestationInput,
  AuthorityInput,
  BanInput,
  DecisionInput,
  EnrolmentInput,
  PolicyInput,
} from '../../src/store/writes.ts'

export const ORIGIN = 'log.test'
/** A TEST key. */
export const logKey = generateNoteKey(ORIGIN, (bytes) => new Uint8Array(bytes).fill(9))
export const NOW = 1_800_000_000

/** Makes fresh databases of one kind. */
export interface Databases extends AsyncDisposable {
  fresh(): Promise<EngineConfig>
}

/** What the whole suite runs on. */
export const engines: readonly { name: string; open: () => Promise<Databases> }[] = [
  { name: 'SQLite', open: sqliteDatabases },
  { name: 'PostgreSQL', open: postgresDatabases },
]

async function sqliteDatabases(): Promise<Databases> {
  const directory = await mkdtemp(join(tmpdir(), 'bagcheck-store-'))
  let count = 0
  return {
    fresh: async () => ({ sqlite: { file: join(directory, `${count++}.sqlite`) } }),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

async function postgresDatabases(): Promise<Databases> {
  const server = await startPostgres()
  const url = await server.createDatabase('test')
  let count = 0
  return {
    // A schema of its own in one database: a tenth of the time of a database.
    async fresh() {
      const schema = `test${count++}`
      await server.query(`create schema ${schema}`, 'test')
      return { postgres: { url: `${url}&options=-csearch_path%3D${schema}` } }
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

/** Opens a store with the TEST key. */
export function open(engine: EngineConfig, options: Partial<StoreOptions> = {}): Promise<Store> {
  return openStore({ engine, origin: ORIGIN, logKey: logKey.secretKey, ...options })
}

/** A store with one node, `node-1`, and policy version 1: entries 0 and 1. */
export async function openWithNode(engine: EngineConfig): Promise<Store> {
  const store = await open(engine)
  await store.commitEnrolment(enrolment(1))
  await store.commitPolicy(policy(1))
  return store
}

/** Changes the tables behind the store's back. */
export async function tamper<T>(
  engine: EngineConfig,
  work: (db: Kysely<Tables>) => Promise<T>,
): Promise<T> {
  const { db, close } = openEngine(engine, 'write')
  try {
    return await work(db)
  } finally {
    await close()
  }
}

/** As {@link tamper}, with statements. */
export function tamperSql(engine: EngineConfig, ...statements: string[]): Promise<void> {
  return tamper(engine, async (db) => {
    for (const statement of statements) await sql.raw(statement).execute(db)
  })
}

/** A decision on `node-1` that nothing forbids; everything unique comes from `i`. */
export function decision(i: number, changes: Partial<DecisionInput> = {}): DecisionInput {
  return {
    id: `decision-${i}`,
    allow: true,
    node: 'node-1',
    nonce: `nonce-${i}`,
    counter: i,
    role: 'orders',
    audience: 'https://api.test',
    unit: 'orders.service',
    issuedAt: NOW,
    expiresAt: NOW + 300,
    code: null,
    evidence: Buffer.from(`evidence ${i}`),
    expect: { policyVersion: 1 },
    ...logged(`decision ${i}`),
    ...changes,
  }
}

/** A denial on `node-1` that took neither nonce nor counter. */
export function denial(i: number, changes: Partial<DecisionInput> = {}): DecisionInput {
  const denied = { allow: false, nonce: null, counter: null, expiresAt: null, code: 'NO_ROLE' }
  return decision(i, { ...denied, ...changes })
}

export function enrolment(i: number, changes: Partial<EnrolmentInput> = {}): EnrolmentInput {
  return {
    node: {
      id: `node-${i}`,
      jwk: { kty: 'EC', crv: 'P-256', x: `x${i}`, y: `y${i}` },
      nodeClass: 'demo',
      enrolledAt: NOW,
      expiresAt: NOW + 86_400,
    },
    joinToken: { id: `token-${i}`, envelope: Buffer.from(`join token ${i}`) },
    ...logged(`enrolment ${i}`),
    ...changes,
  }
}

export function policy(version: number): PolicyInput {
  const json = Buffer.from(`{"version":${version}}`)
  return { version, json, installedAt: NOW + version, ...logged(`policy ${version}`) }
}

export function ban(node: string, reason = 'cloned key'): BanInput {
  return { node, reason, bannedAt: NOW, ...logged(`ban ${node}`) }
}

/** A step of an authority that lives for a day. */
export function authority(
  id: string,
  action: AuthorityInput['action'],
  changes: Partial<AuthorityInput> = {},
): AuthorityInput {
  return {
    ...{ id, authorityKind: 'x509', action, at: NOW, expiresAt: NOW + 86_400, supersedes: [] },
    ...logged(`${action} ${id}`),
    ...changes,
  }
}

export function attestation(i: number, changes: Partial<AttestationInput> = {}): AttestationInput {
  return {
    closureDigest: `closure-${i}`,
    root: `/nix/store/${i}`,
    statementSha256: `statement ${i}`,
    signerKey: 'ci-main',
    manifest: Buffer.from(`manifest ${i}`),
    files: Buffer.from(`files ${i}`),
    submittedAt: NOW,
    ...logged(`attestation ${i}`),
    ...changes,
  }
}

function logged(text: string): { leaf: Uint8Array; body: Uint8Array } {
  return { leaf: Buffer.from(`leaf of ${text}`), body: Buffer.from(`envelope of ${text}`) }
}

/** The store's checkpoint, its signature verified. */
export async function checkpointOf(store: Store): Promise<Checkpoint> {
  return openCheckpoint(await store.checkpoint(), [logKey.vkey])
}

/** Proves every entry to the signed checkpoint, which covers all; returns their refs. */
export async function proveAll(store: Store): Promise<string[]> {
  const { size, root } = await checkpointOf(store)
  const refs: string[] = []
  for (let index = 0; index < size; index++) {
    const entry = await store.entry(index)
    if (entry === undefined) throw new Error(`no entry ${index}`)
    const proof = await store.inclusionProof(index, size)
    verifyInclusion({ leafHash: entry.leafHash, index, size, root, proof })
    refs.push(entry.ref)
  }
  return refs
}
