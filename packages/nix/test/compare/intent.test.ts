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

  // Two nixpkgs, of which `app` has the second as its own; then it follows the first.
  const linked = (more: Record<string, unknown>, keys = ['nixpkgs', 'app', 'other']): FlakeLock => {
    const [nixpkgs = '', app = '', other = ''] = keys
    const node = (byte: number, extra: object = {}): object => ({
      locked: { type: 'github', owner: 'o', repo: 'r', rev, narHash: treeHash(byte) },
      original: { type: 'github', owner: 'o', repo: 'r' },
      ...extra,
    })
    const nodes = {
      root: { inputs: { nixpkgs, app, other } },
      [nixpkgs]: node(1),
      [app]: node(2, more),
      [other]: node(3),
    }
    return parseFlakeLock(Buffer.from(JSON.stringify({ version: 7, root: 'root', nodes })))
  }
  const follows = (path: string[] | string) => linked({ inputs: { nixpkgs: path } })

  test('is different where an input of an input is another one of the same lock', () => {
    const compared = compareIntents(
      { ...full, lock: follows(['nixpkgs']) },
      { ...full, lock: follows(['other']) },
    )
    expect(compared.differences).toEqual([
      { what: 'lock.app/nixpkgs', from: '= nixpkgs', to: '= other' },
    ])
    const flake = compareIntents(
      { ...full, lock: linked({}) },
      { ...full, lock: linked({ flake: false }) },
    )
    expect(flake.differences.map(({ what }) => what)).toEqual(['lock.app'])
  })

  test('is the same whatever keys the nodes have, and whether a link names the node or its path', () => {
    for (const lock of [follows('nixpkgs'), linked({ inputs: { nixpkgs: 'x' } }, ['x', 'y', 'z'])])
      expect(
        compareIntents({ ...full, lock: follows(['nixpkgs']) }, { ...full, lock }).result,
      ).toBe('same')
  })

  test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['another repository', { owner: 'a' }, { owner: 'b' }],
    ['a value that holds a field', { dir: 'x rev=1' }, { dir: 'x', rev: 1 }],
    ['another name in a registry', { type: 'indirect', id: 'a' }, { type: 'indirect', id: 'b' }],
  ])('is different for %s of an input that nothing pins', (_, a, b) => {
    const unpinned = (locked: object): FlakeLock => {
      const node = { original: { type: 'github' }, locked: { type: 'github', ...locked } }
      const nodes = { root: { inputs: { x: 'x' } }, x: node }
      return parseFlakeLock(Buffer.from(JSON.stringify({ version: 7, root: 'root', nodes })))
    }
    expect(
      compareIntents({ ...full, lock: unpinned(a) }, { ...full, lock: unpinned(b) }).result,
    ).toBe('different')
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
