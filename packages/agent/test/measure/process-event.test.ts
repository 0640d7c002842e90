import { endianness } from 'node:os'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseProcessEvent, PROCESS_EVENTS } from '../../src/measure/process-event.ts'

/** A datagram as the kernel sends it: 76 bytes, the data first in its union. */
function datagram(what: number, data: readonly number[], idx = 1): DataView {
  const view = new DataView(new ArrayBuffer(76))
  const put = (offset: number, value: number): void =>
    view.setUint32(offset, value, endianness() === 'LE')
  put(0, 76)
  put(16, idx)
  put(20, 1)
  put(36, what)
  data.forEach((value, index) => put(52 + index * 4, value))
  return view
}
const parse = (view: DataView, length = view.byteLength) => parseProcessEvent(view, length)

describe('an event of the process connector', () => {
  test.each([
    ['a fork', PROCESS_EVENTS.fork, [11, 10, 20, 20], { kind: 'fork', parent: 10, child: 20 }],
    ['an exec', PROCESS_EVENTS.exec, [11, 10], { kind: 'exec', pid: 10 }],
    ['another user', PROCESS_EVENTS.uid, [11, 10, 5, 5], { kind: 'credentials', pid: 10 }],
    ['another group', PROCESS_EVENTS.gid, [11, 10, 5, 5], { kind: 'credentials', pid: 10 }],
    ['a tracer', PROCESS_EVENTS.ptrace, [11, 10, 7, 7], { kind: 'ptrace', pid: 10 }],
  ])('%s is told of the process', (_title, what, data, event) => {
    expect(parse(datagram(what, data))).toEqual(event)
  })

  test.each([
    ['a new thread', datagram(PROCESS_EVENTS.fork, [11, 10, 12, 10])],
    ['an exit', datagram(0x8000_0000, [11, 10])],
    ['the answer to listening', datagram(0, [0])],
    ['another connector', datagram(PROCESS_EVENTS.exec, [11, 10], 2)],
  ])('%s is none of ours', (_title, view) => {
    expect(parse(view)).toBeUndefined()
  })

  test('that is cut off anywhere before its fields end is nothing', () => {
    const exec = datagram(PROCESS_EVENTS.exec, [11, 10])
    for (let length = 0; length < 60; length += 1) expect(parse(exec, length)).toBeUndefined()
    expect(parse(exec, 60)).toEqual({ kind: 'exec', pid: 10 })
    const fork = datagram(PROCESS_EVENTS.fork, [11, 10, 20, 20])
    for (let length = 0; length < 68; length += 1) expect(parse(fork, length)).toBeUndefined()
  })

  test('is read without an exception, whatever the bytes and whatever the length says', () => {
    const property = fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.nat({ max: 1000 }),
      (bytes, length) => {
        parse(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), length)
      },
    )
    fc.assert(property, { numRuns: 500 })
  })
})
