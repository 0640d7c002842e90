import { describe, expect, test } from 'vitest'
import { auditFlakeLock, flakeInputs, flakeTree, parseFlakeLock } from '@bagcheck/nix'
import type { FlakeLock, LockedNode } from '@bagcheck/nix'
import { github, lockText, NAR_HASH, REV } from './locks.ts'

const git = { type: 'git', url: 'https://example.org/a', rev: REV, narHash: NAR_HASH }
const tarball = { type: 'tarball', url: 'https://example.org/a.tar.gz', narHash: NAR_HASH }

function lockOf(node: object): FlakeLock {
  return parseFlakeLock(lockText({ a: node, root: { inputs: { a: 'a' } } }))
}

/** A lock with one input, whose original is as its locked form unless it is given. */
function problems(locked: object, original: object = locked, rest: object = {}): string[] {
  return auditFlakeLock(lockOf({ locked, original, ...rest })).map(({ problem }) => problem)
}

describe('the audit of a lock', () => {
  test.each<[string, object, string[]]>([
    ['a commit with its tree hash', git, []],
    ['a commit of 64 digits', { ...git, rev: 'a'.repeat(64) }, []],
    ['a commit without tree hash', { ...git, narHash: undefined }, ['nar-hash-missing']],
    ['a tree hash without commit', { ...git, rev: undefined }, ['revision-missing']],
    ['neither', { type: 'git', url: git.url }, ['unlocked', 'revision-missing']],
    ['a short commit id', { ...git, rev: REV.slice(0, 12) }, ['revision-malformed']],
    [
      'a branch for a commit',
      { ...git, rev: 'main', narHash: undefined },
      ['revision-malformed', 'unlocked'],
    ],
    ['a dirty tree', { ...git, rev: undefined, dirtyRev: `${REV}-dirty` }, ['dirty-tree']],
    ['http', { ...git, url: 'http://example.org/a' }, ['insecure-url']],
    ['git+http', { ...git, url: 'git+http://example.org/a' }, ['insecure-url']],
    ['the git protocol', { ...git, url: 'GIT://example.org/a' }, ['insecure-url']],
    ['ssh', { ...git, url: 'ssh://git@example.org/a' }, []],
    ['a repository on this disk', { ...git, url: 'file:///home/me/a' }, ['local-path']],
    ['a relative repository', { ...git, url: './a' }, ['local-path']],
    ['a tarball', tarball, ['mutable-url']],
    ['a tarball with a commit', { ...tarball, rev: REV }, []],
    ['a tarball without hash', { ...tarball, narHash: undefined }, ['unlocked', 'mutable-url']],
    [
      'a file over http',
      { ...tarball, type: 'file', url: 'http://x/a' },
      ['mutable-url', 'insecure-url'],
    ],
    ['a directory', { type: 'path', path: '/home/me/a', narHash: NAR_HASH }, ['local-path']],
    ['a directory without hash', { type: 'path', path: '/a' }, ['unlocked', 'local-path']],
    ['a relative path that starts nowhere', { type: 'path', path: './a' }, ['parent-missing']],
    ['a registry name', { type: 'indirect', id: 'nixpkgs' }, ['unlocked', 'indirect']],
    ['a claim to be final', { ...git, __final: true }, ['final-claimed']],
    ['an unknown fetcher', { type: 'rsync', narHash: NAR_HASH }, ['type-unknown']],
  ])('of %s', (_, locked, expected) => {
    expect(problems(locked)).toEqual(expected)
  })

  test('of another repository whose name differs in case alone, where servers may tell them apart', () => {
    const other = { ...git, url: 'https://example.org/A' }
    expect(problems(other, { type: 'git', url: git.url })).toEqual(['origin-differs'])
    const forge = { type: 'github', owner: 'o', repo: 'r', rev: REV, narHash: NAR_HASH }
    expect(problems(forge, { type: 'github', owner: 'O', repo: 'R' })).toEqual([])
  })

  test('takes a relative path as fixed by its parent', () => {
    const path = { type: 'path', path: './lib' }
    expect(problems(path, path, { parent: [] })).toEqual(['relative-path'])
  })

  test('takes a relative path as fixed by its hash, as Nix before 2.26 does, unless it has a parent too', () => {
    const path = { type: 'path', path: './lib', narHash: NAR_HASH }
    expect(problems(path)).toEqual(['relative-path'])
    const [input] = flakeInputs(lockOf({ locked: path, original: path }))
    const tree = { storePath: expect.stringMatching(/-source$/), directory: '' }
    expect(input).toMatchObject({ pinnedBy: 'narHash', tree })
    expect(problems(path, path, { parent: [] })).toEqual(['parent-ambiguous'])
  })

  test('sees an input that is locked to another repository than flake.nix asks for', () => {
    const fork = lockOf(github('nixpkgs', {}, { owner: 'mallory' }))
    expect(auditFlakeLock(fork)).toEqual([
      {
        problem: 'origin-differs',
        severity: 'warning',
        node: 'a',
        path: ['a'],
        message: 'flake.nix asks for owner "owner", locked is "mallory"',
      },
    ])
    expect(problems(git, { ...git, url: 'https://example.org/b' })).toEqual(['origin-differs'])
    expect(problems(git, { ...git, rev: 'b'.repeat(40) })).toEqual(['origin-differs'])
    const asked = { type: 'github', owner: 'o', repo: 'r' }
    expect(problems(tarball, asked)).toEqual([
      'mutable-url',
      'origin-differs',
      'origin-differs',
      'origin-differs',
    ])
  })

  test('takes what a registry name or a redirected download became as given', () => {
    expect(problems(git, { type: 'indirect', id: 'nixpkgs' })).toEqual([])
    expect(problems({ ...tarball, rev: REV }, { ...tarball, url: 'https://x/latest' })).toEqual([])
    expect(auditFlakeLock(lockOf(github('a', {}, { owner: 'Owner' })))).toEqual([])
  })

  test('names unreachable nodes, and what is wrong with them', () => {
    const lock = parseFlakeLock(
      lockText({ root: {}, lost: { locked: { type: 'git' }, original: { type: 'git' } } }),
    )
    expect(auditFlakeLock(lock).map(({ problem, path }) => [problem, path])).toEqual([
      ['unreachable', undefined],
      ['unlocked', undefined],
      ['revision-missing', undefined],
    ])
  })

  test('clips what it quotes', () => {
    const long = lockOf({ locked: { ...git, url: `http://${'x'.repeat(9999)}` }, original: git })
    for (const { message } of auditFlakeLock(long)) expect(message.length).toBeLessThan(400)
  })
})

describe('the tree of an input', () => {
  test('has the path that nix-store --add-fixed --recursive gives to its hash', () => {
    // The file of test/store-path.test.ts, which Nix 2.8 has at the same path but for the name.
    const digest = '1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13'
    const narHash = `sha256-${Buffer.from(digest, 'hex').toString('base64')}`
    const lock = lockOf(github('hello', {}, { narHash, name: 'hello' }))
    const tree = flakeTree(lock, lock.nodes.get('a') as LockedNode)
    const storePath = '/nix/store/gwina1sjk7g95wq6fxc6b7s1hza53h74-hello'
    expect(tree).toEqual({ storePath, directory: '' })
  })

  const path = (path: string, parent: string[] | undefined, inputs: object = {}): object => ({
    locked: { type: 'path', path },
    original: { type: 'path', path },
    parent,
    inputs,
  })

  test('of a relative path is inside its parent, below the directory of its flake.nix', () => {
    const lock = parseFlakeLock(
      lockText({
        a: github('a', { inputs: { lib: 'lib' } }, { dir: 'nix/flake' }),
        lib: path('../lib', ['a'], { deep: 'deep' }),
        deep: path('./deep', ['a', 'lib']),
        own: path('./own', []),
        root: { inputs: { a: 'a', own: 'own' } },
      }),
    )
    const trees = Object.fromEntries(flakeInputs(lock).map(({ node, tree }) => [node.key, tree]))
    const storePath = trees['a']?.storePath
    expect(trees).toEqual({
      a: { storePath, directory: '' },
      lib: { storePath, directory: 'nix/lib' },
      deep: { storePath, directory: 'nix/lib/deep' },
      own: { storePath: undefined, directory: 'own' },
    })
    expect(flakeInputs(lock).map(({ pinnedBy }) => pinnedBy)).toEqual([
      'narHash',
      'parent',
      'parent',
      'parent',
    ])
  })

  test('has a path that is not written once for each of its inputs, however long the names are', () => {
    const nodes = Object.fromEntries(
      Array.from({ length: 100 }, (_, level) => [
        `n${level}`,
        github('x', { inputs: level < 99 ? { ['a'.repeat(20)]: `n${level + 1}` } : {} }),
      ]),
    )
    const lock = parseFlakeLock(lockText({ ...nodes, root: { inputs: { a: 'n0' } } }))
    for (const use of [flakeInputs, auditFlakeLock])
      expect(() => use(lock)).toThrow(expect.objectContaining({ code: 'FLAKE_LOCK_LIMIT' }))
  })

  test('does not lie outside of its parent', () => {
    const lock = parseFlakeLock(
      lockText({
        a: github('a', { inputs: { lib: 'lib' } }),
        lib: path('x/../../lib', ['a']),
        root: { inputs: { a: 'a' } },
      }),
    )
    expect(() => flakeInputs(lock)).toThrow(expect.objectContaining({ code: 'FLAKE_LOCK_NODE' }))
  })

  test.each<[string, object, string]>([
    ['nothing', { type: 'git', url: 'https://example.org/a' }, 'nothing'],
    ['a commit', { type: 'git', url: 'https://example.org/a', rev: REV }, 'commit'],
  ])('is not known of an input that is pinned by %s', (_, locked, pinnedBy) => {
    expect(flakeInputs(lockOf({ locked, original: locked }))).toMatchObject([
      { pinnedBy, tree: undefined },
    ])
  })
})
