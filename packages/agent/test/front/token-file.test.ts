import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { removeTokenFile, writeTokenFile } from '../../src/front/token-file.ts'

const root = process.getuid?.() === 0
const OTHER = 65_534
let top: string
let directory: string
let path: string

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'bagcheck-token-file-'))
  directory = join(top, 'orders')
  mkdirSync(directory, { mode: 0o750 })
  path = join(directory, 'api.token')
})
afterEach(() => rmSync(top, { recursive: true }))

const write = (token = 'secret', owner: { uid: number; gid: number } | null = null): void =>
  writeTokenFile({ path, owner, mode: 0o440 }, token)
const refused = expect.objectContaining({ code: 'TOKEN_FILE_PATH' })

describe('a token file', () => {
  test('is replaced whole, with its mode, and leaves nothing beside it', () => {
    write('first')
    const before = statSync(path).ino
    write('second')
    expect(readFileSync(path, 'utf8')).toBe('second')
    expect(statSync(path).mode & 0o7777).toBe(0o440)
    expect(statSync(path).ino).not.toBe(before)
    writeFileSync(join(directory, '.api.token.0123456789ab'), 'left by a crash')
    writeFileSync(join(directory, '.api.token.bak'), "somebody else's")
    removeTokenFile({ path, owner: null, mode: 0o440 })
    expect(readdirSync(directory)).toEqual(['.api.token.bak'])
  })

  test.runIf(root)('gets its group from a set-group-id directory, and its owner from root', () => {
    chownSync(directory, 0, OTHER)
    chmodSync(directory, 0o2750)
    write()
    expect(statSync(path)).toMatchObject({ uid: 0, gid: OTHER })
    write('again', { uid: OTHER, gid: OTHER })
    expect(statSync(path)).toMatchObject({ uid: OTHER, gid: OTHER })
    expect(statSync(path).mode & 0o7777).toBe(0o440)
  })
})

describe('no token is written', () => {
  test('through a link that stands in its place', () => {
    const victim = join(top, 'victim')
    writeFileSync(victim, 'precious', { mode: 0o644 })
    symlinkSync(victim, path)
    write()
    expect(readFileSync(victim, 'utf8')).toBe('precious')
    expect(lstatSync(path).isFile()).toBe(true)
    expect(readFileSync(path, 'utf8')).toBe('secret')
  })

  test('into a file that somebody keeps another name of', () => {
    const kept = join(top, 'kept')
    writeFileSync(path, '', { mode: 0o666 })
    linkSync(path, kept)
    write()
    expect(readFileSync(kept, 'utf8')).toBe('')
  })

  test.each([
    ['others may enter', 0o751],
    ['others may read', 0o754],
    ['others may write to', 0o752],
    ['its group may write to', 0o770],
  ])('in a directory that %s', (_what, mode) => {
    chmodSync(directory, mode)
    expect(() => write()).toThrow(refused)
    expect(readdirSync(directory)).toEqual([])
  })

  test('in a directory reached over a link, whatever it leads to', () => {
    const link = join(top, 'link')
    symlinkSync(directory, link)
    path = join(link, 'api.token')
    expect(() => write()).toThrow(refused)
    const deeper = join(directory, 'deeper')
    mkdirSync(deeper, { mode: 0o700 })
    path = join(link, 'deeper', 'api.token')
    expect(() => write()).toThrow(refused)
    expect(readdirSync(deeper)).toEqual([])
  })

  test('where a directory above can be exchanged by others', () => {
    chmodSync(top, 0o777)
    expect(() => write()).toThrow(refused)
    chmodSync(top, 0o1777)
    write()
  })

  test.runIf(root)("in another user's directory, unless the file is that user's", () => {
    chownSync(directory, OTHER, OTHER)
    expect(() => write()).toThrow(refused)
    write('mine', { uid: OTHER, gid: OTHER })
    expect(statSync(path).uid).toBe(OTHER)
  })

  test('where there is no directory', () => {
    path = join(top, 'none', 'api.token')
    expect(() => write()).toThrow(refused)
    mkdirSync(join(directory, 'api.token'))
    path = join(directory, 'api.token')
    expect(() => write()).toThrow()
    expect(readdirSync(directory)).toEqual(['api.token'])
  })
})
