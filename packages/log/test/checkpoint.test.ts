import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  formatCheckpoint,
  formatVkey,
  generateNoteKey,
  LogError,
  openCheckpoint,
  parseCheckpoint,
  parseEntryBundle,
  encodeEntryBundle,
  encodeHashTile,
  leafHash,
  parseNoteKey,
  parseTilePath,
  signCheckpoint,
  signNote,
} from '../src/index.ts'
import { memoryTree } from './memory-tree.ts'

const root = leafHash(Buffer.from('x'))
const rootText = Buffer.from(root).toString('base64')
const key = generateNoteKey('log.example', (n) => new Uint8Array(n).fill(7))
const signer = parseNoteKey(key.secretKey)
const checkpoint = { origin: 'log.example', size: 42, root }

describe('checkpoints', () => {
  test('format and parse are inverse, with and without extensions', () => {
    for (const c of [checkpoint, { ...checkpoint, size: 0, extensions: ['one', 'two 2'] }]) {
      const parsed = parseCheckpoint(formatCheckpoint(c))
      expect({ ...parsed, root: Uint8Array.from(parsed.root) }).toEqual({
        ...c,
        root: Uint8Array.from(root),
      })
    }
    expect(formatCheckpoint(checkpoint)).toBe(`log.example\n42\n${rootText}\n`)
  })

  test.each([
    ['a plus', `log.example\n+42\n${rootText}\n`],
    ['a leading zero', `log.example\n042\n${rootText}\n`],
    ['hexadecimal', `log.example\n0x2a\n${rootText}\n`],
    ['a negative size', `log.example\n-1\n${rootText}\n`],
    ['no size', `log.example\n\n${rootText}\n`],
    ['a space', `log.example\n42 \n${rootText}\n`],
    ['20 digits', `log.example\n18446744073709551616\n${rootText}\n`],
    ['no origin', `\n42\n${rootText}\n`],
    ['no root', 'log.example\n42\n'],
    ['a short root', 'log.example\n42\nQUJD\n'],
    ['an unpadded root', `log.example\n42\n${rootText.replaceAll('=', '')}\n`],
    ['an empty extension', `log.example\n42\n${rootText}\n\n`],
    ['no last newline', `log.example\n42\n${rootText}`],
    ['nothing', ''],
  ])('%s is refused', (_, text) => {
    expect(() => parseCheckpoint(text)).toThrow(
      expect.objectContaining({ code: 'CHECKPOINT_FORMAT' }),
    )
  })

  test('a size above 2^53 - 1 is refused and not rounded', () => {
    expect(parseCheckpoint(`o\n9007199254740991\n${rootText}\n`).size).toBe(2 ** 53 - 1)
    expect(() => parseCheckpoint(`o\n9007199254740993\n${rootText}\n`)).toThrow(
      expect.objectContaining({ code: 'LOG_SIZE' }),
    )
  })

  test.each([{ origin: '' }, { origin: 'two\nlines' }, { extensions: [''] }])(
    '%o cannot be written',
    (wrong) => {
      expect(() => formatCheckpoint({ ...checkpoint, ...wrong })).toThrow(
        expect.objectContaining({ code: 'CHECKPOINT_FORMAT' }),
      )
    },
  )

  test('a signed checkpoint opens with the key of its origin and no other', () => {
    const note = signCheckpoint(checkpoint, signer)
    expect(openCheckpoint(note, [key.vkey])).toMatchObject({ origin: 'log.example', size: 42 })
    const other = generateNoteKey('log.example')
    expect(() => openCheckpoint(note, [other.vkey])).toThrow(
      expect.objectContaining({ code: 'NOTE_SIGNATURE' }),
    )
    expect(openCheckpoint(note, [other.vkey, key.vkey]).size).toBe(42)
  })

  test('a checkpoint of one log is refused under the key of another', () => {
    const elsewhere = generateNoteKey('elsewhere.example')
    const note = signNote(formatCheckpoint(checkpoint), [parseNoteKey(elsewhere.secretKey)])
    const refused = expect.objectContaining({ code: 'CHECKPOINT_ORIGIN' })
    expect(() => openCheckpoint(note, [elsewhere.vkey, key.vkey])).toThrow(refused)
    expect(() => signCheckpoint({ ...checkpoint, origin: 'o' }, signer)).toThrow(refused)
  })

  test('every prefix and every flipped bit of a signed checkpoint is refused', () => {
    const note = signCheckpoint(checkpoint, signer)
    for (let end = 0; end < note.length; end++)
      expect(() => openCheckpoint(note.slice(0, end), [key.vkey])).toThrow(LogError)
    const bytes = Buffer.from(note)
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      expect(() => openCheckpoint(flipped.toString(), [key.vkey])).toThrow(LogError)
    }
  })
})

describe('a log written by Tessera', () => {
  const golden: { secretKey: string; checkpoints: string[]; files: Record<string, string> } =
    JSON.parse(readFileSync(new URL('../testdata/tessera-log.json', import.meta.url), 'utf8'))
  const theirs = parseNoteKey(golden.secretKey)
  const fullest = Buffer.from(golden.files['tile/entries/000.p/15'] ?? '', 'base64')
  const entries = parseEntryBundle(fullest, 15)

  test('is rebuilt from its entries byte for byte: checkpoints, tiles, bundles', () => {
    const tree = memoryTree()
    for (const [size, note] of golden.checkpoints.entries()) {
      const { origin } = parseCheckpoint(note.split('\n\n')[0] + '\n')
      expect(signCheckpoint({ origin, size, root: tree.root() }, theirs)).toBe(note)
      expect(openCheckpoint(note, [formatVkey(theirs)]).size).toBe(size)
      const entry = entries[size]
      if (entry !== undefined) tree.append([entry])
    }
    for (const [path, base64] of Object.entries(golden.files)) {
      const { level, width } = parseTilePath(path)
      const built =
        level === 'entries'
          ? encodeEntryBundle(entries.slice(0, width))
          : encodeHashTile(entries.slice(0, width).map(leafHash))
      expect(Buffer.from(built).toString('base64')).toBe(base64)
    }
  })
})
