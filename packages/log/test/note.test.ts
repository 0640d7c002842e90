import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  formatVkey,
  generateNoteKey,
  LogError,
  MAX_NOTE_BYTES,
  MAX_NOTE_SIGNATURES,
  openNote,
  parseNoteKey,
  parseVkey,
  signNote,
} from '../src/index.ts'

// The example of C2SP signed-note.md.
const exampleVkey = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k'
const exampleNote = `This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
`
const exampleSignature = exampleNote.split('\n')[2] ?? ''

const seeded = (name: string, byte: number) =>
  generateNoteKey(name, (n) => new Uint8Array(n).fill(byte))
const keyA = seeded('a.example/log', 1)
const keyB = seeded('b.example', 2)
const signerA = parseNoteKey(keyA.secretKey)
const verifierA = parseVkey(keyA.vkey)

const format = expect.objectContaining({ code: 'NOTE_FORMAT' })
const wrongSignature = expect.objectContaining({ code: 'NOTE_SIGNATURE' })
const wrongKey = expect.objectContaining({ code: 'NOTE_KEY' })

describe('signed notes', () => {
  test('the example of the specification opens', () => {
    const { text, signers } = openNote(exampleNote, [parseVkey(exampleVkey)])
    expect(text).toBe('This is an example message.\n')
    expect(signers.map(({ name, keyId }) => [name, keyId])).toEqual([
      ['example.com/foo', '530d903a'],
    ])
  })

  test('what is signed opens, with every known signer', () => {
    const text = 'first\n\nempty lines are text\n'
    const note = signNote(text, [signerA, parseNoteKey(keyB.secretKey)])
    const opened = openNote(note, [parseVkey(keyB.vkey), verifierA])
    expect(opened.text).toBe(text)
    expect(opened.signers.map(({ name }) => name)).toEqual(['a.example/log', 'b.example'])
    expect(openNote(note, [verifierA]).signers).toEqual([verifierA])
  })

  test('any text that can be signed opens again unchanged', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (body) => {
        const text = `${body.replaceAll(/[\0-\x09\x0b-\x1f\ufffd]/g, '')}\n`
        expect(openNote(signNote(text, [signerA]), [verifierA]).text).toBe(text)
      }),
    )
  })

  test('a signature by an unknown key is skipped, even one that shares a name or an id', () => {
    const sameName = exampleSignature.replace('Uw2QOk', 'Ux2QOk')
    const sameId = exampleSignature.replace('example.com/foo', 'example.com/bar')
    const note = `${exampleNote}${sameName}\n${sameId}\n`
    expect(openNote(note, [parseVkey(exampleVkey)]).signers).toHaveLength(1)
  })

  test('a note that no known key signed is refused', () => {
    expect(() => openNote(exampleNote, [])).toThrow(wrongSignature)
    expect(() => openNote(exampleNote, [verifierA])).toThrow(wrongSignature)
  })

  test('a wrong signature by a known key refuses the note, whoever else signed', () => {
    const other = signNote('other\n', [parseNoteKey(keyB.secretKey)]).split('\n\n')[1]
    const note = `${signNote('text\n', [signerA])}${other}`
    expect(openNote(note, [verifierA]).text).toBe('text\n')
    expect(() => openNote(note, [verifierA, parseVkey(keyB.vkey)])).toThrow(wrongSignature)
  })

  test('every prefix of a note is refused', () => {
    for (let end = 0; end < exampleNote.length; end++)
      expect(() => openNote(exampleNote.slice(0, end), [parseVkey(exampleVkey)])).toThrow(LogError)
  })

  test('a note with one bit flipped is refused', () => {
    const bytes = Buffer.from(exampleNote)
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      // A client decodes bytes first; what is not UTF-8 becomes U+FFFD, which no note may contain.
      expect(() => openNote(flipped.toString(), [parseVkey(exampleVkey)])).toThrow(LogError)
    }
  })

  test.each([
    ['no empty line', 'text\n— a QUJDREVG\n'],
    ['no signature', 'text\n\n'],
    ['a hyphen for the dash', exampleNote.replace('—', '-')],
    ['two spaces', exampleNote.replace('— ', '—  ')],
    ['a space at the end of a line', exampleNote.replace('yaQM=', 'yaQM= ')],
    ['no name', exampleNote.replace('— example.com/foo', '— ')],
    ['a plus in the name', exampleNote.replace('com/foo', 'com+foo')],
    ['a no-break space in the name', exampleNote.replace('com/foo', 'com\u00a0foo')],
    ['base64 that is not canonical', exampleNote.replace('yaQM=', 'yaQN=')],
    ['base64 without padding', exampleNote.replace('yaQM=', 'yaQM')],
    ['a signature of no bytes', 'text\n\n— a QUJDRA==\n'],
    ['a carriage return', exampleNote.replace('message.', 'message.\r')],
    ['a NUL', exampleNote.replace('message.', 'message.\0')],
    ['a lone surrogate', exampleNote.replace('message.', 'message.\ud800')],
  ])('%s is refused', (_, note) => {
    expect(() => openNote(note, [parseVkey(exampleVkey)])).toThrow(format)
  })

  test('limits hold: a note of 1 MB, 100 signatures', () => {
    const verifiers = [parseVkey(exampleVkey)]
    const long = `${'x'.repeat(MAX_NOTE_BYTES)}\n\n${exampleSignature}\n`
    expect(() => openNote(long, verifiers)).toThrow(format)
    const times = (n: number) => `${exampleNote}${`${exampleSignature}\n`.repeat(n - 1)}`
    expect(openNote(times(MAX_NOTE_SIGNATURES), verifiers).signers).toHaveLength(1)
    expect(() => openNote(times(MAX_NOTE_SIGNATURES + 1), verifiers)).toThrow(format)
  })

  test.each(['', 'no newline', 'tab\there\n', 'lone \udc00\n'])('%j cannot be signed', (text) => {
    expect(() => signNote(text, [signerA])).toThrow(format)
  })
})

describe('note keys', () => {
  test('a vkey and its text are one', () => {
    expect(formatVkey(parseVkey(exampleVkey))).toBe(exampleVkey)
    expect(formatVkey(signerA)).toBe(keyA.vkey)
    expect(keyA.secretKey).toMatch(/^PRIVATE\+KEY\+a\.example\/log\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$/)
  })

  test('without a given source of randomness two keys differ', () => {
    expect(generateNoteKey('a').vkey).not.toBe(generateNoteKey('a').vkey)
  })

  test('every prefix of a vkey and of a secret key is refused', () => {
    for (let end = 0; end < exampleVkey.length; end++)
      expect(() => parseVkey(exampleVkey.slice(0, end))).toThrow(wrongKey)
    for (let end = 0; end < keyA.secretKey.length; end++)
      expect(() => parseNoteKey(keyA.secretKey.slice(0, end))).toThrow(wrongKey)
  })

  test.each([
    ['another name', exampleVkey.replace('foo', 'fop')],
    ['another id', exampleVkey.replace('530d', '530e')],
    ['another key', exampleVkey.replace('yeRrm', 'yeRrn')],
    ['an id in capitals', exampleVkey.replace('903a', '903A')],
    ['ECDSA', exampleVkey.replace('AekyeR', 'AukyeR')],
    ['a trailing newline', `${exampleVkey}\n`],
    ['a secret key', keyA.secretKey],
  ])('%s is no vkey', (_, vkey) => {
    expect(() => parseVkey(vkey)).toThrow(wrongKey)
  })

  test('a secret key never shows in a message', () => {
    const secret = keyA.secretKey.split('+').at(-1) ?? ''
    for (const broken of [keyA.secretKey.slice(1), keyA.secretKey.replace('a.ex', 'b.ex')]) {
      const refused = { code: 'NOTE_KEY', message: expect.not.stringContaining(secret) }
      expect(() => parseNoteKey(broken)).toThrow(expect.objectContaining(refused))
    }
  })

  test.each(['', 'a b', 'a+b', 'a\nb', 'a\u2003b'])('%j is no name', (name) => {
    expect(() => generateNoteKey(name)).toThrow(wrongKey)
  })
})
