// What anyone may read of the log: checkpoint, entries, proofs and tiles. Everything here is committed
// and never changes, so these reads need no lock.
import {
  consistencyProof,
  encodeEntryBundle,
  encodeHashTile,
  inclusionProof,
  leafHash,
  LogError,
  nodesNeeded,
  TILE_WIDTH,
  type NodeReader,
} from '@bagcheck/log'
import { sql, type Kysely } from 'kysely'
import { BrokerError } from '../error.ts'
import { sha256 } from './plan.ts'
import { readHead, readNodes, type Head } from './rows.ts'
import { bodyId, type BodyPart, type EntryKind, type Tables } from './schema.ts'

/** An entry; its envelope is the body of part `envelope`, with `bodySha256`. */
export interface StoredEntry {
  readonly index: number
  readonly kind: EntryKind
  /** What it is about: a decision's id, a closure digest, a policy version, a node's id. */
  readonly ref: string
  readonly leaf: Uint8Array
  readonly leafHash: Uint8Array
  readonly bodySha256: string
}

/** Size and root of the log as committed; the checkpoint may be a moment behind. */
export async function head(db: Kysely<Tables>): Promise<Head> {
  return readHead(db)
}

/** The signed checkpoint of the largest size. @throws {BrokerError} LOG_CORRUPT – there is none */
export async function checkpoint(db: Kysely<Tables>): Promise<string> {
  const row = await db
    .selectFrom('checkpoint')
    .select('note')
    .orderBy('size', 'desc')
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) throw new BrokerError('LOG_CORRUPT', 'expected a checkpoint, saw none')
  return row.note
}

/** One entry, or undefined beyond the end. */
export async function entry(db: Kysely<Tables>, index: number): Promise<StoredEntry | undefined> {
  checkIndex(index)
  const row = await db.selectFrom('entry').selectAll().where('idx', '=', index).executeTakeFirst()
  if (row === undefined) return undefined
  const { idx, kind, ref, leaf, body_sha256: bodySha256 } = row
  return { index: idx, kind, ref, leaf, leafHash: leafHash(leaf), bodySha256 }
}

/** An entry with its envelope's bytes as they are stored, or null where there are none. */
export interface EnvelopedEntry extends Pick<StoredEntry, 'index' | 'kind' | 'leaf'> {
  readonly envelope: Uint8Array | null
}

const ENTRIES_PER_READ = 512
/** See {@link bodyId}. */
const ENVELOPE_ID = sql<number>`entry.idx * 8`

/** Entries from an index on, in order, {@link ENTRIES_PER_READ} at most; none beyond the end. */
export async function entriesFrom(
  db: Kysely<Tables>,
  from: number,
  limit: number = ENTRIES_PER_READ,
): Promise<EnvelopedEntry[]> {
  checkIndex(from)
  const rows = await db
    .selectFrom('entry')
    .leftJoin('body', (join) => join.on('body.id', '=', ENVELOPE_ID))
    .select(['entry.idx', 'entry.kind', 'entry.leaf', 'body.bytes'])
    .where('entry.idx', '>=', from)
    .orderBy('entry.idx')
    .limit(limit)
    .execute()
  return rows.map(({ idx: index, kind, leaf, bytes: envelope }) => ({
    index,
    kind,
    leaf,
    envelope,
  }))
}

/** Which body, and what its sha256 must be. */
export interface BodyReference {
  readonly entryIndex: number
  readonly part: BodyPart
  /** Lower-case hex. */
  readonly sha256: string
}

/**
 * What an entry commits to, or undefined when it was never kept or is gone.
 * @throws {BrokerError} LOG_CORRUPT – the stored bytes have another digest
 */
export async function body(
  db: Kysely<Tables>,
  { entryIndex, part, sha256: digest }: BodyReference,
): Promise<Uint8Array | undefined> {
  const row = await db
    .selectFrom('body')
    .select('bytes')
    .where('id', '=', bodyId(entryIndex, part))
    .executeTakeFirst()
  if (row !== undefined && sha256(row.bytes) !== digest)
    throw new BrokerError('LOG_CORRUPT', `expected a body with sha256 ${digest}, saw another`)
  return row?.bytes
}

/**
 * The proof that entry `index` is in the log of `size` entries.
 * @throws {BrokerError} LOG_RANGE – not index < size ≤ the log's size
 */
export function prove(db: Kysely<Tables>, index: number, size: number): Promise<Uint8Array[]> {
  return computeFromNodes(db, size, (read) => inclusionProof(index, size, read))
}

/**
 * The proof that the log of `from` entries is a prefix of that of `to` entries.
 * @throws {BrokerError} LOG_RANGE – not 1 ≤ from ≤ to ≤ the log's size
 */
export function proveConsistency(
  db: Kysely<Tables>,
  from: number,
  to: number,
): Promise<Uint8Array[]> {
  return computeFromNodes(db, to, (read) => consistencyProof(from, to, read))
}

/**
 * A tile of hashes, `width` 1 … 256 of them, or undefined when the log does not fill it that far.
 * @see https://c2sp.org/tlog-tiles
 */
export async function tile(
  db: Kysely<Tables>,
  level: number,
  index: number,
  width: number,
): Promise<Uint8Array | undefined> {
  const range = rangeOfTile(index, width)
  // A level beyond what 2^53 leaves can fill, as 8 is, would only look for what cannot be there.
  if (range === undefined || !Number.isInteger(level) || level < 0 || level > 6) return undefined
  const rows = await db
    .selectFrom('node')
    .select('hash')
    .where('level', '=', level * 8)
    .where('idx', '>=', range.first)
    .where('idx', '<', range.end)
    .orderBy('idx')
    .execute()
  return rows.length === width ? encodeHashTile(rows.map(({ hash }) => hash)) : undefined
}

/** A bundle of entries, likewise. */
export async function entryBundle(
  db: Kysely<Tables>,
  index: number,
  width: number,
): Promise<Uint8Array | undefined> {
  const range = rangeOfTile(index, width)
  if (range === undefined) return undefined
  const rows = await db
    .selectFrom('entry')
    .select('leaf')
    .where('idx', '>=', range.first)
    .where('idx', '<', range.end)
    .orderBy('idx')
    .execute()
  return rows.length === width ? encodeEntryBundle(rows.map(({ leaf }) => leaf)) : undefined
}

async function computeFromNodes(
  db: Kysely<Tables>,
  size: number,
  compute: (read: NodeReader) => Uint8Array[],
): Promise<Uint8Array[]> {
  const needed = inRange(() => nodesNeeded(compute))
  const { size: committed } = await readHead(db)
  if (size > committed)
    throw new BrokerError('LOG_RANGE', `expected a size up to ${committed}, saw ${size}`)
  return compute(await readNodes(db, needed))
}

function inRange<T>(compute: () => T): T {
  try {
    return compute()
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    throw new BrokerError('LOG_RANGE', cause.message, { cause })
  }
}

function rangeOfTile(index: number, width: number): { first: number; end: number } | undefined {
  const first = index * TILE_WIDTH
  const fits = Number.isInteger(width) && width >= 1 && width <= TILE_WIDTH
  return fits && index >= 0 && Number.isSafeInteger(first + width)
    ? { first, end: first + width }
    : undefined
}

function checkIndex(index: number): void {
  if (!Number.isSafeInteger(index) || index < 0)
    throw new BrokerError('LOG_RANGE', `expected an index, saw ${index}`)
}
