import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { findFlakeInput, flakeInputs, parseFlakeLock, printFlakeLock } from '@bagcheck/nix'
import type { FlakeLock } from '@bagcheck/nix'
import { github, lockText, NAR_HASH, REV } from './locks.ts'

const parse = (nodes: object, rest: object = {}): FlakeLock => parseFlakeLock(lockText(nodes, rest))
const one = (node: object): object => ({ a: node, root: { inputs: { a: 'a' } } })
const locked = (attributes: object): object => one({ ...github('a'), locked: attributes })

describe('a flake.lock', () => {
  test('leads from every input to a node, through follows that pass through follows', () => {
    const lock = parse({
      a: github('a', { inputs: { lib: 'lib', nixpkgs: ['nixpkgs'] } }),
      b: github('b', { inputs: { lib: ['a', 'lib'], self: [], pkgs: ['a', 'nixpkgs'] } }),
      lib: github('lib', { flake: false }),
      nixpkgs: github('nixpkgs'),
      root: { inputs: { a: 'a', b: 'b', nixpkgs: 'nixpkgs', deep: ['b', 'pkgs'] } },
    })
    expect(lock.root.inputs.get('deep')).toEqual({ node: 'nixpkgs', follows: ['b', 'pkgs'] })
    expect(lock.nodes.get('b')?.inputs).toEqual(
      new Map([
        ['lib', { node: 'lib', follows: ['a', 'lib'] }],
        ['self', { node: 'root', follows: [] }],
        ['pkgs', { node: 'nixpkgs', follows: ['a', 'nixpkgs'] }],
      ]),
    )
    expect(findFlakeInput(lock, ['b', 'self', 'deep'])?.key).toBe('nixpkgs')
    expect(findFlakeInput(lock, [])).toBe(lock.root)
    expect(findFlakeInput(lock, ['b', 'nothing'])).toBeUndefined()
    expect(lock.nodes.get('lib')?.flake).toBe(false)
    expect(flakeInputs(lock).map(({ path, node }) => [path.join('/'), node.key])).toEqual([
      ['a', 'a'],
      ['b', 'b'],
      ['nixpkgs', 'nixpkgs'],
      ['a/lib', 'lib'],
    ])
  })

  test('does not take what nothing bounds', () => {
    const chain = (length: number): object =>
      Object.fromEntries(
        Array.from({ length }, (_, n) => [
          `n${n}`,
          github('a', n + 1 < length ? { inputs: { i: `n${n + 1}` } } : {}),
        ]),
      )
    const root = { inputs: { i: 'n0' } }
    expect(flakeInputs(parse({ ...chain(256), root }))).toHaveLength(256)
    const limit = expect.objectContaining({ code: 'FLAKE_LOCK_LIMIT' })
    expect(() => flakeInputs(parse({ ...chain(257), root }))).toThrow(limit)

    const path = (where: string, parent: readonly string[]): object => {
      const attributes = { type: 'path', path: where }
      return { locked: attributes, original: attributes, parent }
    }
    const long = 'x'.repeat(4000)
    const inputs = { a: 'a', b: 'b', c: 'c' }
    const nested = (last: string): FlakeLock =>
      parse({ a: path(long, []), b: path('y', ['a']), c: path(last, ['b']), root: { inputs } })
    expect(flakeInputs(nested('z'))[2]?.tree?.directory).toBe(`${long}/y/z`)
    expect(() => flakeInputs(nested('z'.repeat(100)))).toThrow(limit)
  })

  test('finds the trees of relative paths once, however long the way to them', () => {
    // Each of 200 starts in the one before, by a way of 2,000 names; 4,000 more start in the last. Without
    // a memory of what was found, that is 10^9 steps and more.
    const steps = 200
    const nodes: Record<string, object> = {}
    const inputs: Record<string, string | string[]> = { self: [] }
    const around = Array.from({ length: 2000 }, () => 'self')
    const attributes = { type: 'path', path: '.' }
    const add = (name: string, parent: string[]): void => {
      nodes[name] = { locked: attributes, original: attributes, parent }
      inputs[name] = name
    }
    for (let n = 0; n < steps; n++) add(`n${n}`, n === 0 ? [] : [...around, `n${n - 1}`])
    for (let n = 0; n < 4000; n++) add(`leaf${n}`, [`n${steps - 1}`])
    expect(flakeInputs(parse({ ...nodes, root: { inputs } }))).toHaveLength(steps + 4000)
  })

  test('may have two flakes that follow each other', () => {
    const lock = parse({
      a: github('a', { inputs: { b: ['b'] } }),
      b: github('b', { inputs: { a: ['a'] } }),
      root: { inputs: { a: 'a', b: 'b' } },
    })
    expect(findFlakeInput(lock, ['a', 'b', 'a', 'b'])?.key).toBe('b')
    expect(flakeInputs(lock)).toHaveLength(2)
  })

  test('of version 5 has its "info" in "locked"', () => {
    const node = {
      ...github('a'),
      info: { narHash: NAR_HASH, lastModified: 7 },
      locked: { type: 'github', owner: 'owner', repo: 'a', rev: REV },
    }
    const { nodes } = parse(one(node), { version: 5 })
    expect(nodes.get('a')?.locked).toMatchObject({ rev: REV, narHash: NAR_HASH, lastModified: 7 })
    expect(() => parse(one(node), { version: 6 })).toThrow(/expected "info" of node "a"/)
  })

  test('names the nodes that nothing reaches, also when only follows lead to their names', () => {
    const lock = parse({
      ...one(github('a')),
      lost: github('lost', { inputs: { child: 'child', a: ['a'] } }),
      child: github('child'),
    })
    expect(lock.unreachable).toEqual(['lost', 'child'])
    expect(flakeInputs(lock).map(({ node }) => node.key)).toEqual(['a'])
  })

  test('without inputs is a lock', () => {
    expect(parse({ root: {} })).toMatchObject({ version: 7, unreachable: [] })
  })

  test.each<[string, object, object, string]>([
    ['version 4', { root: {} }, { version: 4 }, 'FLAKE_LOCK_VERSION'],
    ['version 8', { root: {} }, { version: 8 }, 'FLAKE_LOCK_VERSION'],
    ['a version that is text', { root: {} }, { version: '7' }, 'FLAKE_LOCK_VERSION'],
    ['no version', { root: {} }, { version: undefined }, 'FLAKE_LOCK_VERSION'],
    ['an unknown member', { root: {} }, { extra: 1 }, 'FLAKE_LOCK_NODE'],
    ['no root', { root: {} }, { root: undefined }, 'FLAKE_LOCK_NODE'],
    ['nodes in a list', { root: {} }, { nodes: [] }, 'FLAKE_LOCK_NODE'],
    ['a root that is no node', {}, {}, 'FLAKE_LOCK_INPUT'],
    ['a root from the prototype', {}, { root: 'toString' }, 'FLAKE_LOCK_INPUT'],
    ['a root that is locked', { root: github('a') }, {}, 'FLAKE_LOCK_NODE'],
    ['a node that is a list', one([]), {}, 'FLAKE_LOCK_NODE'],
    ['an unknown member of a node', one(github('a', { patches: [] })), {}, 'FLAKE_LOCK_NODE'],
    ['no "locked"', one({ original: { type: 'path' } }), {}, 'FLAKE_LOCK_NODE'],
    ['no "original"', one({ locked: { type: 'path' } }), {}, 'FLAKE_LOCK_NODE'],
    ['"flake" that is no boolean', one(github('a', { flake: 'no' })), {}, 'FLAKE_LOCK_NODE'],
    ['inputs that are null', one(github('a', { inputs: null })), {}, 'FLAKE_LOCK_NODE'],
    ['inputs in a list', one(github('a', { inputs: ['a'] })), {}, 'FLAKE_LOCK_NODE'],
    ['an input that is a number', one(github('a', { inputs: { b: 1 } })), {}, 'FLAKE_LOCK_NODE'],
    ['follows with a number', one(github('a', { inputs: { b: [1] } })), {}, 'FLAKE_LOCK_NODE'],
    ['attributes without type', locked({ url: 'x' }), {}, 'FLAKE_LOCK_NODE'],
    ['an attribute that is null', locked({ type: 'git', rev: null }), {}, 'FLAKE_LOCK_NODE'],
    ['an attribute below zero', locked({ type: 'git', revCount: -1 }), {}, 'FLAKE_LOCK_NODE'],
    ['an attribute of 1.5', locked({ type: 'git', revCount: 1.5 }), {}, 'FLAKE_LOCK_NODE'],
    ['a narHash in base16', locked({ type: 'git', narHash: REV }), {}, 'FLAKE_LOCK_NODE'],
    ['an empty narHash', locked({ type: 'git', narHash: '' }), {}, 'FLAKE_LOCK_NODE'],
    [
      'an unpadded narHash',
      locked({ type: 'git', narHash: NAR_HASH.slice(0, -1) }),
      {},
      'FLAKE_LOCK_NODE',
    ],
    ['an input to no node', one(github('a', { inputs: { b: 'b' } })), {}, 'FLAKE_LOCK_INPUT'],
    ['follows to no input', one(github('a', { inputs: { b: ['b'] } })), {}, 'FLAKE_LOCK_INPUT'],
    [
      'follows below no input',
      one(github('a', { inputs: { b: ['a', 'c'] } })),
      {},
      'FLAKE_LOCK_INPUT',
    ],
    ['a parent that is no input', one(github('a', { parent: ['b'] })), {}, 'FLAKE_LOCK_INPUT'],
    [
      'a follows of its own',
      one(github('a', { inputs: { b: ['a', 'b'] } })),
      {},
      'FLAKE_LOCK_CYCLE',
    ],
    ['a node in itself', one(github('a', { inputs: { b: 'a' } })), {}, 'FLAKE_LOCK_CYCLE'],
    ['the root as a node', one(github('a', { inputs: { b: 'root' } })), {}, 'FLAKE_LOCK_CYCLE'],
    ['its own parent', one(github('a', { parent: ['a'] })), {}, 'FLAKE_LOCK_CYCLE'],
  ])('is refused with %s', (_, nodes, rest, code) => {
    expect(() => parse(nodes, rest)).toThrow(expect.objectContaining({ code }))
  })

  test('is refused when follows go round in a circle through several flakes', () => {
    const nodes = {
      a: github('a', { inputs: { x: ['b', 'x'] } }),
      b: github('b', { inputs: { x: ['c'] } }),
      root: { inputs: { a: 'a', b: 'b', c: ['a', 'x'] } },
    }
    expect(() => parse(nodes)).toThrow(/expected input "\w" of node "\w+" not to follow itself/)
    expect(() => parse(nodes)).toThrow(expect.objectContaining({ code: 'FLAKE_LOCK_CYCLE' }))
  })

  test('is refused when nodes contain each other in an unreachable corner', () => {
    const nodes = {
      root: {},
      a: github('a', { inputs: { b: 'b' } }),
      b: github('b', { inputs: { a: 'a' } }),
    }
    expect(() => parse(nodes)).toThrow(expect.objectContaining({ code: 'FLAKE_LOCK_CYCLE' }))
  })

  test.each<[string, string, string]>([
    [
      'a member twice',
      '{"nodes":{"root":{}},"root":"root","version":7,"version":7}',
      'JSON_DUPLICATE_KEY',
    ],
    [
      'a node twice, once escaped',
      '{"nodes":{"r\\u006fot":{},"root":{}},"root":"root","version":7}',
      'JSON_DUPLICATE_KEY',
    ],
    ['a byte order mark', '\ufeff{}', 'JSON_SYNTAX'],
    ['a comment', '{} // lock', 'JSON_SYNTAX'],
    ['half of a surrogate pair', '{"\\ud800":1}', 'JSON_SYNTAX'],
    ['an integer of 2^53', '{"version":9007199254740992}', 'JSON_SYNTAX'],
    ['65 levels', `{"nodes":${'['.repeat(64)}${']'.repeat(64)}}`, 'JSON_LIMIT'],
    ['a million levels', '['.repeat(1e6), 'JSON_SYNTAX'],
    ['text that is no object', '"lock"', 'FLAKE_LOCK_NODE'],
    ['nothing', '', 'JSON_SYNTAX'],
  ])('is refused with %s', (_, text, code) => {
    expect(() => parseFlakeLock(Buffer.from(text))).toThrow(expect.objectContaining({ code }))
  })

  test('with follows that double at every step is read in one pass', () => {
    const doubling = Object.fromEntries(
      Array.from({ length: 200 }, (_, n) => [`x${n}`, n === 199 ? [] : [`x${n + 1}`, `x${n + 1}`]]),
    )
    expect(findFlakeInput(parse({ root: { inputs: doubling } }), ['x0'])?.key).toBe('root')
  })

  test('made of anything is refused with a code', () => {
    const json = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom('root', 'a', 'path', 7, true, null),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(
          fc.constantFrom('nodes', 'root', 'version', 'inputs', 'locked', 'original', 'type', 'a'),
          tie('value'),
        ),
      ),
    })).value
    fc.assert(
      fc.property(json, (nodes) => {
        try {
          parse({ root: {}, a: nodes }, {})
        } catch (error) {
          expect(error).toMatchObject({ name: 'NixError' })
        }
      }),
    )
  })
})

describe('the text of a lock', () => {
  test('is what Nix writes', () => {
    const nodes = {
      a: {
        inputs: { b: ['b'], empty: [] },
        ...github('a', { parent: [] }),
      },
      b: github('b', { flake: false }),
      root: { inputs: { b: 'b', a: 'a' } },
    }
    const sorted = (value: unknown): unknown =>
      typeof value !== 'object' || value === null || Array.isArray(value)
        ? value
        : Object.fromEntries(
            Object.entries(value)
              .toSorted(([x], [y]) => (x < y ? -1 : 1))
              .map(([name, member]) => [name, sorted(member)]),
          )
    const expected = `${JSON.stringify(sorted({ nodes, root: 'root', version: 7 }), null, 2)}\n`
    expect(printFlakeLock(parse(nodes))).toBe(expected)
  })

  test('of any lock parses to the same lock', () => {
    const name = fc.oneof(fc.constantFrom('1', '10', 'é', '__proto__', 'b'), fc.string())
    const edges = fc.dictionary(name, fc.nat(), { maxKeys: 4 })
    fc.assert(
      fc.property(
        fc.uniqueArray(name, { minLength: 1, maxLength: 8 }),
        fc.array(edges),
        (keys, inputs) => {
          const nodes = keys.map((key, index): [string, object] => {
            const later = keys.slice(index + 1)
            const own = Object.entries(inputs[index] ?? {}).flatMap(([input, to]) =>
              later.length === 0 ? [] : [[input, later[to % later.length]]],
            )
            const member = { inputs: Object.fromEntries(own) }
            return [key, index === 0 ? member : github(key.toWellFormed(), member)]
          })
          const lock = parse(Object.fromEntries(nodes), { root: keys[0] })
          const again = parseFlakeLock(Buffer.from(printFlakeLock(lock)))
          expect(printFlakeLock(again)).toBe(printFlakeLock(lock))
          for (const [key, node] of again.nodes) expect(node).toEqual(lock.nodes.get(key))
          expect(again.nodes.size).toBe(lock.nodes.size - lock.unreachable.length)
        },
      ),
    )
  })
})
