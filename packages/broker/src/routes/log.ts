import type { LogEntryResponse } from '@bagcheck/api'
import { LogError, openCheckpoint, parseTilePath, type TileCoordinate } from '@bagcheck/log'
import type { Broker } from '../broker.ts'
import type { Handler } from '../app.ts'
import { BrokerError, quote } from '../error.ts'
import { content, IMMUTABLE, json } from './answer.ts'

const TEXT = 'text/plain; charset=utf-8'

export const checkpoint: Handler = async ({ broker }) =>
  content(await broker.store.checkpoint(), TEXT)

export const logEntry: Handler = async ({ broker, params }) => {
  const text = params['index'] ?? ''
  const index = /^(0|[1-9][0-9]{0,14})$/.test(text) ? Number(text) : -1
  const note = await broker.store.checkpoint()
  const { size } = openCheckpoint(note, broker.root.log.keys)
  const entry = index >= 0 && index < size ? await broker.store.entry(index) : undefined
  if (entry === undefined) throw new BrokerError('NOT_FOUND', `no log entry ${quote(text)}`)
  const [body, proof] = await Promise.all([
    broker.store.body({ entryIndex: index, part: 'envelope', sha256: entry.bodySha256 }),
    broker.store.inclusionProof(index, size),
  ])
  const answer: LogEntryResponse = {
    index,
    kind: entry.kind,
    ref: entry.ref,
    leaf: base64(entry.leaf),
    body: Buffer.from(body ?? []).toString(),
    proof: proof.map(base64),
    checkpoint: note,
  }
  return json(answer)
}

export const tile: Handler = async ({ broker, params }) => {
  const path = `tile/${params['path'] ?? ''}`
  const found = await readTile(broker, parsePath(path))
  if (found === undefined) throw new BrokerError('NOT_FOUND', `no ${quote(path)} in this log`)
  return content(new Uint8Array(found), 'application/octet-stream', IMMUTABLE)
}

function readTile(
  { store }: Broker,
  { level, index, width }: TileCoordinate,
): Promise<Uint8Array | undefined> {
  return level === 'entries' ? store.entryBundle(index, width) : store.tile(level, index, width)
}

function parsePath(path: string): TileCoordinate {
  try {
    return parseTilePath(path)
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    throw new BrokerError('NOT_FOUND', cause.message, { cause })
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
