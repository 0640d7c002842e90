import { describe, expect, test } from 'vitest'
import {
  derivationName,
  downstreamPlaceholder,
  dynamicPlaceholder,
  inputAddressedPath,
  isDerivationPath,
  outputPathName,
  ownOutputPlaceholder,
  parseStorePath,
} from '@bagcheck/nix'

const refused = expect.objectContaining({ code: 'STORE_PATH' })
const drv = parseStorePath('/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv')

describe('names', () => {
  test('a derivation is named without its suffix', () => {
    expect(derivationName(drv)).toBe('foo')
    const noName = parseStorePath(`/nix/store/${'0'.repeat(32)}-.drv`)
    const source = parseStorePath(`/nix/store/${'0'.repeat(32)}-foo`)
    for (const path of [noName, source]) {
      expect(isDerivationPath(path)).toBe(false)
      expect(() => derivationName(path)).toThrow(refused)
    }
  })

  test('only outputs other than "out" add to the name', () => {
    expect(outputPathName('foo', 'out')).toBe('foo')
    expect(outputPathName('foo', 'dev')).toBe('foo-dev')
    expect(inputAddressedPath('foo', 'dev', new Uint8Array(32))).toMatch(/-foo-dev$/)
    expect(() => inputAddressedPath('foo', 'a/b', new Uint8Array(32))).toThrow(refused)
  })
})

describe('placeholders', () => {
  // The first is in the Nix manual; the others are in Nix's own unit tests of placeholders.
  test('are those that Nix computes', () => {
    expect(ownOutputPlaceholder('out')).toBe(
      '/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9',
    )
    const downstream = downstreamPlaceholder(drv, 'out')
    expect(downstream).toBe('/0c6rn30q4frawknapgwq386zq358m8r6msvywcvc89n6m5p2dgbz')
    const dynamic = parseStorePath('/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv.drv')
    expect(dynamicPlaceholder(downstreamPlaceholder(dynamic, 'out'), 'out')).toBe(
      '/0gn6agqxjyyalf0dpihgyf49xq5hqxgw100f0wydnj6yqrhqsb3w',
    )
  })

  test('differ by derivation and by output', () => {
    const other = parseStorePath('/nix/store/h1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv')
    const all = [drv, other].flatMap((path) => [
      downstreamPlaceholder(path, 'out'),
      downstreamPlaceholder(path, 'dev'),
    ])
    expect(new Set(all).size).toBe(4)
  })

  test('of something that is no placeholder are refused', () => {
    expect(() => dynamicPlaceholder('/out', 'out')).toThrow(
      expect.objectContaining({ code: 'NIX32' }),
    )
  })
})
