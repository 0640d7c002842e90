import { createServer, createConnection, type Socket } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Channel } from '../../src/channel.ts'
import { parseAnswer, parseNotice, parseQuestion } from '../../src/measure/protocol.ts'

const instance = {
  pid: 7,
  startTicks: 100,
  device: '8:1',
  inode: '42',
  startCode: 4096,
  startStack: 8192,
}
const file = { path: '/bin/true' }
const measurement = {
  unit: { launcher: 'none', name: '', cgroup: '/', contract: null },
  processes: [{ executable: file, files: [file], told: 'by a later release of nobody' }],
  containerStore: null,
  init: null,
  measuredAtMs: 1,
}
const path = '/nix/store/0c9a3v5dpbi0ffhl46kjd7vmwzq2cn1s-orders-1.0'
const store = { directory: '0:58/12', device: '0:58', place: '0:58 /nix/store' }
const request = { store, paths: [path], maxAgeMs: 1000, owner: 0 }
const hash = { path, narHash: null, hashedAtMs: 5, read: true, deviation: 'it is not there' }
const contained = {
  ...measurement,
  unit: { ...measurement.unit, container: { userMaps: null } },
  ...{ containerStore: store, init: instance },
}

describe('a question', () => {
  test.each([
    { id: 0, ask: 'instance', pid: 1 },
    { id: 1, ask: 'check', instance },
    { id: 2, ask: 'measure', instance },
    { id: 3, ask: 'hash', instance, request },
  ])('%j is understood', (frame) => {
    expect(parseQuestion(frame)).toEqual(frame)
  })

  test.each([
    {},
    { id: 1 },
    { id: -1, ask: 'instance', pid: 1 },
    { id: 1.5, ask: 'instance', pid: 1 },
    { id: 1, ask: 'instance' },
    { id: 1, ask: 'instance', pid: 0 },
    { id: 1, ask: 'instance', pid: '1' },
    { id: 1, ask: 'instance', pid: 4_194_305 },
    { id: 1, ask: 'instance', pid: 1, path: '/etc/shadow' },
    { id: 1, ask: 'read', pid: 1 },
    { id: 1, ask: 'measure', pid: 1 },
    { id: 1, ask: 'measure', instance: { ...instance, device: '../..' } },
    { id: 1, ask: 'measure', instance: { ...instance, unitsDir: '/tmp' } },
    { id: 1, ask: 'measure', instance: { ...instance, startTicks: undefined } },
    { id: 1, ask: 'check', instance: [instance] },
    { id: 1, ask: 'hash', instance },
    { id: 1, ask: 'hash', instance, request: { ...request, paths: [] } },
    { id: 1, ask: 'hash', instance, request: { ...request, paths: Array(129).fill(path) } },
    ...['/etc', '/nix/store', `${path}/bin`, `${path}/../..`, `/nix/store/../etc`].map((other) => ({
      ...{ id: 1, ask: 'hash', instance, request: { ...request, paths: [other] } },
    })),
    { id: 1, ask: 'hash', instance, request: { ...request, owner: -1 } },
    { id: 1, ask: 'hash', instance, request: { ...request, storeDir: '/etc' } },
    { id: 1, ask: 'hash', instance, request: { ...request, store: { ...store, device: 7 } } },
  ])('%j is not', (frame) => {
    expect(() => parseQuestion(frame)).toThrow(
      expect.objectContaining({ code: 'MEASURER_PROTOCOL' }),
    )
  })
})

describe('an answer', () => {
  test.each([
    { id: 1, ok: true },
    { id: 1, ok: true, instance },
    { id: 1, ok: true, measurement },
    { id: 1, ok: true, measurement: contained },
    { id: 1, ok: true, hashes: [hash, { ...hash, narHash: `sha256-${'A'.repeat(43)}=` }] },
    { id: 1, ok: false, code: 'PROCESS_GONE', message: 'gone' },
  ])('%j is understood', (frame) => {
    expect(parseAnswer(frame)).toEqual(frame)
  })

  test.each([
    { ok: true },
    { id: 1 },
    { id: 1, ok: 1 },
    { id: 1, ok: true, allow: true },
    { id: 1, ok: true, instance, measurement },
    { id: 1, ok: false, code: 'ALLOW', message: '' },
    { id: 1, ok: false, code: 'PROCESS_GONE' },
    { id: 1, ok: true, measurement: null },
    { id: 1, ok: true, measurement: { ...contained, init: null } },
    { id: 1, ok: true, measurement: { ...contained, containerStore: {} } },
    { id: 1, ok: true, hashes: [{ ...hash, path: '/etc' }] },
    { id: 1, ok: true, hashes: [{ ...hash, narHash: 'sha256-A=' }] },
    { id: 1, ok: true, hashes: [{ ...hash, allow: true }] },
    { id: 1, ok: true, hashes: Array(129).fill(hash) },
    { id: 1, ok: true, measurement: { ...measurement, measuredAtMs: 'now' } },
    { id: 1, ok: true, measurement: { ...measurement, unit: { launcher: 'none' } } },
    { id: 1, ok: true, measurement: { ...measurement, processes: [{ executable: file }] } },
    {
      id: 1,
      ok: true,
      measurement: { ...measurement, processes: [{ executable: {}, files: [] }] },
    },
    {
      id: 1,
      ok: true,
      measurement: { ...measurement, unit: { ...measurement.unit, contract: {} } },
    },
  ])('%j is not', (frame) => {
    expect(() => parseAnswer(frame)).toThrow(expect.objectContaining({ code: 'MEASURER_PROTOCOL' }))
  })
})

describe('a notice', () => {
  const notice = { event: 'changed', cgroup: '/orders', pids: [7, 8], change: 'exec' }

  test('says which unit changed, and how', () => {
    const { event: _name, ...said } = notice
    expect(parseNotice(notice)).toEqual(said)
  })

  test('is no answer, and an answer is none', () => {
    expect(parseNotice({ id: 1, ok: true })).toBeUndefined()
    expect(() => parseAnswer(notice)).toThrow(
      expect.objectContaining({ code: 'MEASURER_PROTOCOL' }),
    )
  })

  test.each([
    { ...notice, event: 'gone' },
    { ...notice, change: 'none' },
    { ...notice, pids: [-1] },
    { ...notice, pids: '7' },
    { ...notice, pids: Array.from({ length: 1025 }, () => 1) },
    { ...notice, id: 1 },
    { event: 'changed' },
  ])('%j is refused', (frame) => {
    expect(() => parseNotice(frame)).toThrow(expect.objectContaining({ code: 'MEASURER_PROTOCOL' }))
  })
})

describe('a channel', () => {
  const limits = { maxFrameBytes: 64, maxUnsentBytes: 1024 * 1024 }
  let directory: string
  let close: () => Promise<void>
  let raw: Socket
  let heard: unknown[]
  let ended: Promise<Error | undefined>

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-channel-'))
    const server = createServer()
    const path = join(directory, 'sock')
    await new Promise<void>((resolve) => server.listen(path, resolve))
    heard = []
    ended = new Promise((resolve) => {
      server.once('connection', (socket) => {
        new Channel(socket, limits, { frame: (frame) => heard.push(frame), end: resolve })
      })
    })
    raw = createConnection(path)
    await new Promise((resolve) => raw.once('connect', resolve))
    close = () => new Promise((resolve) => server.close(() => resolve()))
  })
  afterEach(async () => {
    raw.destroy()
    await close()
    rmSync(directory, { recursive: true })
  })

  const framed = (text: string | Buffer): Buffer => {
    const body = Buffer.from(text as string)
    const header = Buffer.alloc(4)
    header.writeUInt32BE(body.length)
    return Buffer.concat([header, body])
  }

  test('carries frames however they are cut', async () => {
    const bytes = Buffer.concat([framed('{"a":1}'), framed('{}'), framed('{"b":"ü"}')])
    for (const byte of bytes) raw.write(Buffer.of(byte))
    raw.write(bytes)
    raw.end()
    expect(await ended).toBeUndefined()
    expect(heard).toEqual([{ a: 1 }, {}, { b: 'ü' }, { a: 1 }, {}, { b: 'ü' }])
  })

  test.each([
    ['longer than the receiver takes, before any of it came', Buffer.from([0, 0, 0, 65])],
    ['of four gigabytes', Buffer.from([255, 255, 255, 255])],
    ['that is empty', framed('')],
    ['that is no JSON', framed('{')],
    ['that is no object', framed('[]')],
    ['that is null', framed('null')],
    ['that is not UTF-8', framed(Buffer.from([0x22, 0xff, 0x22]))],
  ])('ends with a frame %s', async (_title, bytes) => {
    raw.write(bytes)
    expect(await ended).toMatchObject({ code: 'MEASURER_PROTOCOL' })
    expect(heard).toEqual([])
  })

  test('ends with a frame that is cut off', async () => {
    raw.end(framed('{"a":1}').subarray(0, 7))
    expect(await ended).toMatchObject({ code: 'MEASURER_PROTOCOL' })
    expect(heard).toEqual([])
  })
})
