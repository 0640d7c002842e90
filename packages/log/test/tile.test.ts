import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  consistencyProof,
  encodeEntryBundle,
  encodeHashTile,
  formatTilePath,
  inclusionProof,
  leafHash,
  LogError,
  MAX_ENTRY_BYTES,
  nodesNeeded,
  parseEntryBundle,
  parseHashTile,
  parseTilePath,
  rootAt,
  tileAt,
  tileNodeReader,
  tileOfNode,
  type TileCoordinate,
} from '../src/index.ts'
import { memoryTree } from './memory-tree.ts'

const badPath = expect.objectContaining({ code: 'TILE_PATH' })
const badTile = expect.objectContaining({ code: 'TILE_FORMAT' })

describe('tile paths', () => {
  test.each([
    ['tile/0/x001/x234/067', { level: 0, index: 1234067, width: 256 }],
    ['tile/0/x001/x234/067.p/17', { level: 0, index: 1234067, width: 17 }],
    ['tile/63/000', { level: 63, index: 0, width: 256 }],
    ['tile/3/x001/000.p/1', { level: 3, index: 1000, width: 1 }],
    ['tile/entries/999.p/255', { level: 'entries' as const, index: 999, width: 255 }],
    [
      'tile/entries/x009/x007/x199/x254/x740/991',
      { level: 'entries' as const, index: 2 ** 53 - 1, width: 256 },
    ],
  ])('%s', (path, tile) => {
    expect(parseTilePath(path)).toEqual(tile)
    expect(formatTilePath(tile)).toBe(path)
  })

  test.each([
    ...['tile/64/000', 'tile/00/000', 'tile/-1/000', 'tile/0/0', 'tile/0/00', 'tile/0/1000'],
    ...['tile/0/x000/001', 'tile/0/x001', 'tile/0/001/002', 'tile/0/x001/x002', 'tile/0/x001/'],
    ...['tile/0/000.p/0', 'tile/0/000.p/256', 'tile/0/000.p/01', 'tile/0/000.p/', 'tile/0/000.p'],
    ...['/tile/0/000', 'tile/0/000/', 'tile/0/000\n', 'tile/0/../000', 'tile/entry/000', ''],
    'tile/0/x009/x007/x199/x254/x740/992',
    'tile/0/x001/x000/x000/x000/x000/x000/000',
  ])('%j is refused', (path) => {
    expect(() => parseTilePath(path)).toThrow(badPath)
  })

  test('format and parse are inverse', () => {
    const level = fc.oneof(fc.nat(63), fc.constant('entries' as const))
    const index = fc.maxSafeNat()
    const width = fc.integer({ min: 1, max: 256 })
    fc.assert(
      fc.property(fc.record({ level, index, width }), (tile) => {
        expect(parseTilePath(formatTilePath(tile))).toEqual(tile)
      }),
    )
  })

  test.each([{ level: 64 }, { level: 0.5 }, { width: 0 }, { width: 257 }])(
    '%o cannot be written',
    (wrong) => {
      expect(() => formatTilePath({ level: 0, index: 0, width: 1, ...wrong })).toThrow(badPath)
    },
  )
})

describe('tiles', () => {
  test('hash tiles: encode and parse are inverse, other lengths are refused', () => {
    const hashes = [1, 2, 3].map((i) => leafHash(Buffer.of(i)))
    const tile = encodeHashTile(hashes)
    expect(parseHashTile(tile, 3).map((h) => Buffer.from(h))).toEqual(hashes)
    for (let end = 0; end < tile.length; end++)
      expect(() => parseHashTile(tile.subarray(0, end), 3)).toThrow(badTile)
    for (const width of [0, 2, 4, 257, 1.5])
      expect(() => parseHashTile(tile, width)).toThrow(badTile)
    expect(() => encodeHashTile([new Uint8Array(31)])).toThrow(badTile)
    expect(() => encodeHashTile([])).toThrow(badTile)
  })

  test('entry bundles: encode and parse are inverse, every prefix is refused', () => {
    const entry = fc.uint8Array({ maxLength: 300 })
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 5 }), fc.nat(), (entries, cut) => {
        const bundle = encodeEntryBundle(entries)
        const parsed = parseEntryBundle(bundle, entries.length)
        expect(parsed.map((e) => Uint8Array.from(e))).toEqual(entries)
        const prefix = bundle.subarray(0, cut % bundle.length)
        expect(() => parseEntryBundle(prefix, entries.length)).toThrow(badTile)
        expect(() => parseEntryBundle(bundle, entries.length + 1)).toThrow(badTile)
        if (entries.length > 1)
          expect(() => parseEntryBundle(bundle, entries.length - 1)).toThrow(badTile)
      }),
    )
  })

  test('an entry is at most 65,535 bytes', () => {
    const largest = new Uint8Array(MAX_ENTRY_BYTES)
    expect(parseEntryBundle(encodeEntryBundle([largest]), 1)[0]).toHaveLength(MAX_ENTRY_BYTES)
    expect(() => encodeEntryBundle([new Uint8Array(MAX_ENTRY_BYTES + 1)])).toThrow(badTile)
  })

  test.each([
    [0, 0, 0, undefined],
    [0, 0, 1, 1],
    [0, 0, 256, 256],
    [0, 1, 256, undefined],
    [0, 1, 257, 1],
    [1, 0, 255, undefined],
    [1, 0, 256, 1],
    [1, 0, 70_000, 256],
    [1, 1, 70_000, 17],
    [2, 0, 70_000, 1],
    ['entries', 273, 70_000, 112],
  ] as const)('tile %s/%d of %d leaves has width %s', (level, index, size, width) => {
    expect(tileAt(level, index, size)?.width).toBe(width)
  })
})

describe('a client with tiles alone', () => {
  // 66,000 leaves fill tiles of three levels.
  const size = 66_000
  const tree = memoryTree(size)
  const readTile = ({ level, index, width }: TileCoordinate) => {
    if (level === 'entries') throw new TypeError('no hashes in entries')
    return encodeHashTile(
      Array.from({ length: width }, (_, i) => tree.readNode(level * 8, index * 256 + i)),
    )
  }

  test.each([1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, size])(
    'computes the root and proofs at size %d',
    (at) => {
      const fromTiles = tileNodeReader(at, readTile)
      expect(rootAt(at, fromTiles)).toEqual(tree.root(at))
      for (const index of [0, Math.floor(at / 2), at - 1])
        expect(inclusionProof(index, at, fromTiles)).toEqual(
          inclusionProof(index, at, tree.readNode),
        )
      for (const from of [1, Math.ceil(at / 3), at])
        expect(consistencyProof(from, at, fromTiles)).toEqual(
          consistencyProof(from, at, tree.readNode),
        )
    },
  )

  test('knows beforehand which tiles it needs', () => {
    const nodes = nodesNeeded((read) => inclusionProof(65_536, size, read))
    const paths = new Set(nodes.map((node) => formatTilePath(tileOfNode(node, size))))
    expect([...paths]).toEqual(['tile/2/000.p/1', 'tile/0/257.p/208', 'tile/0/256'])
  })

  test('refuses a tile of another length', () => {
    const short = tileNodeReader(300, (tile) => readTile(tile).subarray(1))
    expect(() => rootAt(300, short)).toThrow(LogError)
  })
})
