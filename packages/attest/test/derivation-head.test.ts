import { makeStorePath, sha256Hex } from '@bagcheck/nix'
import type { StorePath } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import { readDerivationHead } from '../src/derivation-head.ts'
import { inventPath } from './small-closure.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const input = inventPath('input.drv')
const source = inventPath('source.sh')
const output = inventPath('orders-1.0')
const text =
  `Derive([("dev","","r:sha256",""),("out","${output}","","")],[("${input}",["dev","out"])],` +
  `["${source}"],"x86_64-linux","/bin/sh",["-c","echo \\"hi\\"\\n"],[("name","orders")])`

function drvPathOf(content: string, references: readonly string[]): StorePath {
  const inner = new Uint8Array(Buffer.from(sha256Hex(content), 'hex'))
  return makeStorePath(['text', ...references.toSorted()].join(':'), inner, 'orders-1.0.drv')
}
const drvPath = drvPathOf(text, [input, source])

describe('a derivation', () => {
  test('names its outputs and its system', () => {
    const head = readDerivationHead(drvPath, bytes(text))
    expect(head).toEqual({ outputs: new Map([['out', output]]), system: 'x86_64-linux' })
  })

  test('is not believed under another path', () => {
    expect(readDerivationHead(drvPathOf(text, [input]), bytes(text))).toBeUndefined()
    expect(readDerivationHead(inventPath('orders-1.0.drv'), bytes(text))).toBeUndefined()
  })

  test('is not believed after any change of a byte or when cut off', () => {
    const data = bytes(text)
    for (let at = 0; at < data.length; at += 1) {
      const changed = data.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(readDerivationHead(drvPath, changed)).toBeUndefined()
      expect(readDerivationHead(drvPath, data.subarray(0, at))).toBeUndefined()
    }
  })

  test.each([
    ['another constructor', 'DrvWithVersion("xp-dyn-drv",[],[],[],"x")'],
    ['no fields', 'Derive()'],
    ['outputs that are text', 'Derive("a",[],[],"x")'],
    ['inputs that are text', 'Derive([],"a",[],"x")'],
    ['a system that is a list', 'Derive([],[],[],[])'],
    ['sources that are lists', 'Derive([],[],[["a"]],"x")'],
    ['lists in lists in lists', `Derive(${'['.repeat(1000)}`],
    ['a string without end', `Derive([("${'\\"'.repeat(1_000_000)}`],
  ])('with %s is none', (_claim, content) => {
    expect(readDerivationHead(drvPathOf(content, []), bytes(content))).toBeUndefined()
  })
})
