import { describe, expect, test } from 'vitest'
import { compareIntents, intentDigest, narHashFromDigest, parseFlakeLock } from '@bagcheck/nix'
import type { BuildIntent, FlakeLock } from '@bagcheck/nix'

const treeHash = (byte: number) => narHashFromDigest(new Uint8Array(32).fill(byte))

function lock(rev: string, hash = 1, more: Record<string, unknown> = {}): FlakeLock {
  const locked = { type: 'github', owner: 'o', repo: 'r', rev, narHash: treeHash(hash), ...more }
  const nodes = {
    root: { inputs: { nixpkgs: 'nixpkgs' } },
    nixpkgs: { locked, original: { type: 'github', owner: 'o', repo: 'r' } },
  }
  return parseFlakeLock(Buffer.from(JSON.stringify({ version: 7, root: 'root', nodes })))
}

const rev = 'a'.repeat(40)
const full: BuildIntent = {
  lock: lock(rev),
  revision: rev,
  tree: treeHash(9),
  attribute: 'packages.x86_64-linux.default',
  system: 'x86_64-linux',
}

describe('the intent of two builds', () => {
  test('is the same where all of it is', () => {
    const compared = compareIntents(full, { ...full, lock: lock(rev, 1, { lastModified: 5 }) })
    expect(compared).toMatchObject({ result: 'same', differences: [], missing: [] })
    expect(compared.from).toBe(compared.to)
    expect(compared.from).toBe(intentDigest(full))
  })

  test.each<[string, BuildIntent, string]>([
    ['another revision of an input', { ...full, lock: lock('b'.repeat(40)) }, 'lock.nixpkgs'],
    ['another tree of an input', { ...full, lock: lock(rev, 2) }, 'lock.nixpkgs'],
    ['another commit', { ...full, revision: 'b'.repeat(40) }, 'revision'],
    ['another tree', { ...full, tree: treeHash(8) }, 'tree'],
    ['another attribute', { ...full, attribute: 'x' }, 'attribute'],
    ['another system', { ...full, system: 'aarch64-linux' }, 'system'],
  ])('is different for %s', (_, other, what) => {
    const compared = compareIntents(full, other)
    expect(compared.result).toBe('different')
    expect(compared.differences.map((one) => one.what)).toEqual([what])
    expect(compared.from).not.toBe(compared.to)
  })

  test('is different for an input more or less', () => {
    const empty = parseFlakeLock(Buffer.from('{"version":7,"root":"root","nodes":{"root":{}}}'))
    expect(compareIntents(full, { ...full, lock: empty }).differences).toMatchObject([
      { what: 'lock.nixpkgs', to: null },
    ])
  })

  test.each<[string, BuildIntent, BuildIntent, string[]]>([
    ['nothing is said', {}, {}, ['lock', 'revision']],
    ['one side says nothing', full, {}, ['lock', 'revision', 'attribute', 'system', 'tree']],
    [
      'the trees had changes that no commit holds',
      { lock: lock(rev), revision: null },
      { lock: lock(rev), revision: null },
      ['revision'],
    ],
    [
      'only one side says the attribute',
      full,
      { ...full, attribute: undefined as never },
      ['attribute'],
    ],
  ])('is unknown where %s', (_, a, b, missing) => {
    expect(compareIntents(a, b)).toMatchObject({ result: 'unknown', missing })
  })

  test('is known from the trees, whatever commits they were in', () => {
    expect(compareIntents({ ...full, revision: null }, { ...full, revision: null }).result).toBe(
      'same',
    )
    expect(compareIntents(full, { ...full, revision: null }).result).toBe('same')
  })

  test('has no digest where the lock or the sources are not known', () => {
    expect(intentDigest({ lock: lock(rev), revision: null })).toBeNull()
    expect(intentDigest({ revision: rev })).toBeNull()
    expect(intentDigest({ lock: lock(rev), revision: rev })).toMatch(/^[0-9a-f]{64}$/)
  })
})
