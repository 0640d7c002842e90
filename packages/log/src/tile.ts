// C2SP tlog-tiles: the tree as static files. A tile of level L holds up to 256 hashes of tree level 8·L.
//
//   tile path   = "tile/" L "/" N [ ".p/" W ]         L = 0 … 63, W = 1 … 255
//   bundle path = "tile/entries/" N [ ".p/" W ]
//   N           = *( "x" 3DIGIT "/" ) 3DIGIT          1234067 is x001/x234/067
//   tile        = 1*256( hash[32] )
//   bundle      = 1*256( uint16( length ) entry[length] )
//
// Paths come from clients, tiles from servers; neither is trusted. What a tile proves is decided by the
// roots computed from it.
import { LogError, quote } from './error.ts'
import { HASH_BYTES, nodeHash } from './hashing.ts'
import { checkSize, type NodeCoordinate, type NodeReader } from './tree.ts'

/** Hashes or entries in a full tile. */
export const TILE_WIDTH = 256

/** An entry's length is a uint16. */
export const MAX_ENTRY_BYTES = 65_535

/** Which tile; `level` is `entries` for a bundle of entries, `width` 1 … 256. */
export interface TileCoordinate {
  readonly level: number | 'entries'
  readonly index: number
  readonly width: number
}

/** @throws {LogError} TILE_PATH – a level, index or width that no tile has */
export function formatTilePath(tile: TileCoordinate): string {
  const { level, index, width } = tile
  const levelFits = level === 'entries' || (Number.isInteger(level) && level >= 0 && level <= 63)
  if (!levelFits || !Number.isInteger(width) || width < 1 || width > TILE_WIDTH)
    throw new LogError('TILE_PATH', `expected a tile, saw level ${level}, width ${width}`)
  const digits = String(checkSize(index))
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0')
  const groups = padded.match(/.{3}/g) ?? []
  const path = groups.map((group, i) => (i === groups.length - 1 ? group : `x${group}`)).join('/')
  return `tile/${level}/${path}${width === TILE_WIDTH ? '' : `.p/${width}`}`
}

/** @throws {LogError} TILE_PATH – not exactly what {@link formatTilePath} writes */
export function parseTilePath(path: string): TileCoordinate {
  const match =
    /^tile\/(entries|0|[1-9][0-9]?)\/((?:x[0-9]{3}\/){0,5}[0-9]{3})(?:\.p\/([1-9][0-9]{0,2}))?$/.exec(
      path,
    )
  const [, level, groups, width] = match ?? []
  if (level !== undefined && groups !== undefined) {
    const tile: TileCoordinate = {
      level: level === 'entries' ? level : Number(level),
      index: Number(groups.replaceAll(/[x/]/g, '')),
      width: width === undefined ? TILE_WIDTH : Number(width),
    }
    // Writing it again finds what the pattern lets through: needless x000, a full width, a level of 64.
    if (Number.isSafeInteger(tile.index) && inRange(tile) && formatTilePath(tile) === path)
      return tile
  }
  throw new LogError('TILE_PATH', `expected a tile path, saw ${quote(path)}`)
}

/**
 * The tile as it stands in a tree of `size` leaves; its width is what that tree fills.
 * @returns undefined when the tree has nothing there
 */
export function tileAt(
  level: number | 'entries',
  index: number,
  size: number,
): TileCoordinate | undefined {
  const hashes = level === 'entries' ? size : Math.floor(size / TILE_WIDTH ** level)
  const width = Math.min(TILE_WIDTH, hashes - index * TILE_WIDTH)
  return width > 0 ? { level, index, width } : undefined
}

/** @throws {LogError} TILE_FORMAT – not 1 to 256 hashes of 32 bytes */
export function encodeHashTile(hashes: readonly Uint8Array[]): Uint8Array {
  checkWidth(hashes.length)
  if (hashes.some((hash) => hash.length !== HASH_BYTES))
    throw new LogError('TILE_FORMAT', `expected hashes of ${HASH_BYTES} bytes`)
  return Buffer.concat(hashes)
}

/** @throws {LogError} TILE_FORMAT – not exactly `width` hashes */
export function parseHashTile(bytes: Uint8Array, width: number): Uint8Array[] {
  checkWidth(width)
  if (bytes.length !== width * HASH_BYTES)
    throw new LogError(
      'TILE_FORMAT',
      `expected ${width * HASH_BYTES} bytes of hashes, saw ${bytes.length}`,
    )
  return Array.from({ length: width }, (_, i) =>
    bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES),
  )
}

/** @throws {LogError} TILE_FORMAT – not 1 to 256 entries of at most {@link MAX_ENTRY_BYTES} */
export function encodeEntryBundle(entries: readonly Uint8Array[]): Uint8Array {
  checkWidth(entries.length)
  const parts = entries.flatMap((entry) => {
    if (entry.length > MAX_ENTRY_BYTES)
      throw new LogError(
        'TILE_FORMAT',
        `expected an entry of at most ${MAX_ENTRY_BYTES} bytes, saw ${entry.length}`,
      )
    return [Buffer.of(entry.length >> 8, entry.length & 0xff), entry]
  })
  return Buffer.concat(parts)
}

/** @throws {LogError} TILE_FORMAT – not exactly `width` entries with nothing behind them */
export function parseEntryBundle(bytes: Uint8Array, width: number): Uint8Array[] {
  checkWidth(width)
  const entries: Uint8Array[] = []
  let offset = 0
  while (entries.length < width) {
    const [high, low] = [bytes[offset], bytes[offset + 1]]
    if (high === undefined || low === undefined) throw truncated(entries.length, width)
    const end = offset + 2 + high * 256 + low
    if (end > bytes.length) throw truncated(entries.length, width)
    entries.push(bytes.subarray(offset + 2, end))
    offset = end
  }
  if (offset !== bytes.length)
    throw new LogError(
      'TILE_FORMAT',
      `expected nothing after ${width} entries, saw ${bytes.length - offset} bytes`,
    )
  return entries
}

/** The tile that holds (or, above its bottom row, implies) a node of a tree with `size` leaves. */
export function tileOfNode(node: NodeCoordinate, size: number): TileCoordinate {
  const { level, index } = placeOfNode(node)
  const tile = tileAt(level, index, size)
  if (tile === undefined)
    throw new TypeError(`no node ${node.level}/${node.index} in a tree of ${size} leaves`)
  return tile
}

/**
 * Reads nodes of a tree with `size` leaves from its tiles, so that a client can compute roots and
 * proofs. A client that fetches finds its tiles first: `nodesNeeded`, then {@link tileOfNode}.
 * @param readTile returns the bytes of a tile of exactly that width
 * @throws {LogError} TILE_FORMAT – (from the reader) a tile of another length
 */
export function tileNodeReader(
  size: number,
  readTile: (tile: TileCoordinate) => Uint8Array,
): NodeReader {
  return (level, index) => {
    const tile = tileOfNode({ level, index }, size)
    const { offset, count } = placeOfNode({ level, index })
    let row = parseHashTile(readTile(tile), tile.width).slice(offset, offset + count)
    while (row.length > 1) row = pairUp(row)
    const [hash] = row
    if (hash === undefined) throw new TypeError(`node ${level}/${index} is not complete`)
    return hash
  }
}

function placeOfNode(node: NodeCoordinate): {
  level: number
  index: number
  offset: number
  count: number
} {
  const count = 2 ** (node.level % 8)
  const first = node.index * count
  return {
    level: Math.floor(node.level / 8),
    index: Math.floor(first / TILE_WIDTH),
    offset: first % TILE_WIDTH,
    count,
  }
}

function pairUp(row: readonly Uint8Array[]): Uint8Array[] {
  const above: Uint8Array[] = []
  for (let i = 0; i + 1 < row.length; i += 2) {
    const [left, right] = [row[i], row[i + 1]]
    if (left !== undefined && right !== undefined) above.push(nodeHash(left, right))
  }
  return above
}

function inRange({ level, width }: TileCoordinate): boolean {
  return (level === 'entries' || level <= 63) && width <= TILE_WIDTH
}

function checkWidth(width: number): void {
  if (!Number.isInteger(width) || width < 1 || width > TILE_WIDTH)
    throw new LogError('TILE_FORMAT', `expected 1 to ${TILE_WIDTH} in a tile, saw ${width}`)
}

function truncated(seen: number, expected: number): LogError {
  return new LogError('TILE_FORMAT', `expected ${expected} entries, saw an end after ${seen}`)
}
