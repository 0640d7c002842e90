import { hash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { diffFlakeLocks, parseFlakeLock } from '@bagcheck/nix'
import type { FlakeInputChange, FlakeLock } from '@bagcheck/nix'
import { github, lockText } from './locks.ts'

const tree = (content: string): string => `sha256-${hash('sha256', content, 'base64')}`
const next = { rev: 'b'.repeat(40), narHash: tree('next'), lastModified: 2 }

function lock(nodes: Record<string, object>, inputs?: object): FlakeLock {
  const all = Object.fromEntries(Object.keys(nodes).map((key) => [key, key]))
  return parseFlakeLock(lockText({ ...nodes, root: { inputs: inputs ?? all } }))
}

const changes = (before: FlakeLock, after: FlakeLock): readonly FlakeInputChange[] =>
  diffFlakeLocks(before, after).inputs

describe('the difference of two locks', () => {
  const one = lock({ a: github('a') })

  test('is nothing between a lock and itself, whatever its nodes are called', () => {
    const renamed = lock({ x: github('a') }, { a: 'x' })
    expect(diffFlakeLocks(one, renamed)).toEqual({
      schema: 'bagcheck.flake-lock-diff/v1',
      inputs: [],
    })
  })

  test.each<[string, object, object, string, string[]]>([
    ['a new revision', {}, next, 'updated', ['lastModified', 'narHash', 'rev']],
    [
      'an older revision',
      { lastModified: 3 },
      next,
      'downgraded',
      ['lastModified', 'narHash', 'rev'],
    ],
    ['another tree of the same commit', {}, { narHash: tree('x') }, 'altered', ['narHash']],
    [
      'a fork',
      {},
      { ...next, owner: 'mallory' },
      'retargeted',
      ['lastModified', 'narHash', 'owner', 'rev'],
    ],
    ['a fork at the same commit', {}, { owner: 'mallory' }, 'retargeted', ['owner']],
    ['another directory of the same tree', {}, { dir: 'x' }, 'retargeted', ['dir']],
    ['a tree hash that was missing', { narHash: undefined }, {}, 'updated', ['narHash']],
  ])('sees %s', (_, before, after, change, attributes) => {
    const inputs = changes(
      lock({ a: github('a', {}, before) }),
      lock({ a: github('a', {}, after) }),
    )
    expect(inputs).toMatchObject([{ path: ['a'], change, attributes }])
  })

  test('sees inputs that come, go, and are asked for otherwise', () => {
    const asked = { original: { owner: 'owner', ref: 'v2', repo: 'a', type: 'github' } }
    const other = lock({ a: github('a', asked), b: github('b') })
    expect(changes(one, other).map(({ path, change }) => [path[0], change])).toEqual([
      ['b', 'added'],
      ['a', 'asked'],
    ])
    expect(changes(other, one)[0]).toMatchObject({ path: ['b'], change: 'removed', before: {} })
    expect(changes(other, one)[0]).not.toHaveProperty('after')
  })

  test('names an update once, and not again for all inputs that follow it', () => {
    const following = { a: github('a', { inputs: { pkgs: ['pkgs'] } }) }
    const before = lock({ ...following, pkgs: github('pkgs') })
    const after = lock({ ...following, pkgs: github('pkgs', {}, next) })
    expect(changes(before, after).map(({ path }) => path)).toEqual([['pkgs']])
  })

  test('sees an input that starts to follow another, with what that does to it', () => {
    const own = lock(
      { a: github('a', { inputs: { pkgs: 'own' } }), own: github('pkgs'), pkgs: github('pkgs') },
      { a: 'a', pkgs: 'pkgs' },
    )
    const follows = { a: github('a', { inputs: { pkgs: ['pkgs'] } }) }
    const same = lock({ ...follows, pkgs: github('pkgs') })
    expect(changes(own, same)).toMatchObject([
      { path: ['a', 'pkgs'], change: 'relinked', after: { follows: ['pkgs'] } },
    ])
    const newer = lock({ ...follows, pkgs: github('pkgs', {}, next) })
    expect(changes(own, newer).map(({ path, change }) => [path.join('/'), change])).toEqual([
      ['a/pkgs', 'updated'],
      ['pkgs', 'updated'],
    ])
  })

  test('passes over inputs that follow the flake itself', () => {
    const self = (locked: object): FlakeLock =>
      lock({ a: github('a', { inputs: { self: [] } }, locked) })
    expect(changes(self({}), self(next)).map(({ path }) => path)).toEqual([['a']])
  })
})
