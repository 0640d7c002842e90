// Requests whose `:authority` is the path of a socket, in every way that RFC 7541 writes a field.
import { describe, expect, test } from 'vitest'
import { authorityRewriter } from '../../src/front/spiffe/authority.ts'
import { frame, PREFACE } from '../fixture/http2-frames.ts'

const [DATA, HEADERS, SETTINGS, CONTINUATION] = [0, 1, 4, 9]
const END_HEADERS = 4
const text = (value: string): Buffer => Buffer.concat([Buffer.of(value.length), Buffer.from(value)])
const field = (head: number, ...strings: string[]): Buffer =>
  Buffer.concat([Buffer.of(head), ...strings.map(text)])
const SOCKET = '/run/bagcheck/spiffe.sock'
const HOST = '-run-bagcheck-spiffe.sock'
const PATH = field(0x44, '/SpiffeWorkloadAPI/FetchX509SVID')
const settings = frame(SETTINGS, 0, 0, Buffer.alloc(12))
const data = frame(DATA, 1, 1, Buffer.from(SOCKET))

const headers = (block: Buffer, flags = END_HEADERS): Buffer => frame(HEADERS, flags, 1, block)
const rewritten = (bytes: Buffer, size = bytes.length): Buffer => {
  const rewrite = authorityRewriter()
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size)
    parts.push(...rewrite(Buffer.from(bytes.subarray(at, at + size))))
  return Buffer.concat(parts)
}
const around = (...frames: Buffer[]): Buffer => Buffer.concat([PREFACE, settings, ...frames, data])
const long = `/${'a/'.repeat(100)}`
/** Longer than seven bits can say, RFC 7541 §5.1. */
const longField = (value: string): Buffer =>
  Buffer.concat([Buffer.of(0x41, 0x7f, value.length - 127), Buffer.from(value)])

describe('the path of a socket as :authority becomes a host', () => {
  test.each<[string, Buffer, Buffer]>([
    ['that enters the table', field(0x41, SOCKET), field(0x41, HOST)],
    ['that does not', field(0x01, SOCKET), field(0x01, HOST)],
    ['that never may', field(0x11, SOCKET), field(0x11, HOST)],
    ['with its name', field(0x00, ':authority', SOCKET), field(0x00, ':authority', HOST)],
    [
      'of more than 126 bytes',
      longField(long.slice(0, 190)),
      longField(long.slice(0, 190).replaceAll('/', '-')),
    ],
  ])('as a literal %s', (_how, before, after) => {
    const block = (authority: Buffer): Buffer =>
      Buffer.concat([Buffer.of(0x83, 0x20), authority, PATH])
    expect(rewritten(around(headers(block(before))))).toEqual(around(headers(block(after))))
  })

  test('with padding and a priority, whose bytes are no fields', () => {
    const block = (authority: string): Buffer =>
      Buffer.concat([
        Buffer.of(3),
        Buffer.alloc(5, 0x41),
        field(0x41, authority),
        Buffer.from('/pa'),
      ])
    const flags = END_HEADERS | 0x08 | 0x20
    expect(rewritten(around(headers(block(SOCKET), flags)))).toEqual(
      around(headers(block(HOST), flags)),
    )
  })

  test('in whatever pieces it comes, and in every request of a connection', () => {
    const request = (authority: string): Buffer =>
      headers(Buffer.concat([Buffer.of(0x83), field(0x41, authority), PATH]))
    const bytes = around(request(SOCKET), data, request(SOCKET))
    for (let size = 1; size <= bytes.length; size += 1)
      expect(rewritten(bytes, size)).toEqual(around(request(HOST), data, request(HOST)))
  })
})

describe('everything else is passed on as it came', () => {
  test.each<[string, Buffer]>([
    ['a path', headers(PATH)],
    ['a host', headers(field(0x41, 'localhost:80'))],
    ['another name', headers(field(0x00, 'x-authority', SOCKET))],
    ['a field that is cut off', headers(field(0x41, SOCKET).subarray(0, 9))],
    ['a length without end', headers(Buffer.alloc(20, 0xff))],
    ['a length beyond 28 bits', headers(Buffer.from('417fffffffffff7f2f2f', 'hex'))],
    [
      'more padding than there is',
      headers(Buffer.concat([Buffer.of(200), field(0x41, SOCKET)]), 0x0c),
    ],
    ['an empty block', headers(Buffer.alloc(0))],
    ['a continuation', frame(CONTINUATION, END_HEADERS, 1, field(0x41, SOCKET))],
    ['data that looks like headers', frame(DATA, 0, 1, headers(field(0x41, SOCKET)))],
    [
      'a frame that is too large',
      headers(Buffer.concat([field(0x41, SOCKET), Buffer.alloc(20_000)])),
    ],
  ])('%s', (_what, bytes) => {
    expect(rewritten(around(bytes), 7)).toEqual(around(bytes))
    expect(rewritten(around(bytes))).toEqual(around(bytes))
  })

  test('no frame that is not whole is held for more than it may be', () => {
    const rewrite = authorityRewriter()
    const head = Buffer.concat([PREFACE, Buffer.from('004001010400000001', 'hex')])
    const passed = Buffer.concat([...rewrite(head), ...rewrite(Buffer.alloc(100))])
    expect(passed.length).toBe(head.length + 100)
  })
})
