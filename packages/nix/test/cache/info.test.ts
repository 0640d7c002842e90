import { describe, expect, test } from 'vitest'
import { formatCacheInfo, parseCacheInfo } from '@bagcheck/nix'

const parse = (text: string): unknown => parseCacheInfo(Buffer.from(text))

describe('nix-cache-info', () => {
  test('is read, and prints as Nix writes it', () => {
    const text = 'StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n'
    expect(parse(text)).toEqual({ wantMassQuery: true, priority: 40 })
    expect(formatCacheInfo({ wantMassQuery: true, priority: 40 })).toBe(text)
  })

  test.each([
    ['StoreDir: /nix/store', { wantMassQuery: false, priority: 50 }],
    ['StoreDir:/nix/store  \n\n  Priority:  7\n', { wantMassQuery: false, priority: 7 }],
    ['StoreDir: /nix/store\r\nFuture: x\r\n', { wantMassQuery: false, priority: 50 }],
  ])('%j is taken, as Nix takes it', (text, expected) => {
    expect(parse(text)).toEqual(expected)
  })

  test.each([
    ['nothing', ''],
    ['no store directory', 'Priority: 1\n'],
    ['another store directory', 'StoreDir: /gnu/store\n'],
    ['an empty store directory', 'StoreDir:\n'],
    ['a key twice', 'StoreDir: /nix/store\nPriority: 1\nPriority: 2\n'],
    ['a priority that is no number', 'StoreDir: /nix/store\nPriority: high\n'],
    ['a flag that is no flag', 'StoreDir: /nix/store\nWantMassQuery: yes\n'],
    ['an error page', '<html>\nStoreDir: /nix/store\n'],
    ['too many bytes', `StoreDir: /nix/store\nX: ${'x'.repeat(4096)}\n`],
  ])('%s is CACHE_INFO', (_, text) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'CACHE_INFO' }))
  })
})
