import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { diffClosures, storePathName } from '@bagcheck/nix'
import type { ClosureDiff, PackageChange } from '@bagcheck/nix'
import { at, bag, closure } from './closures.ts'
import type { Row } from './closures.ts'

/** The changes between two bags, without that of the root, which refers to them. */
function changes(before: Row[], after: Row[]): PackageChange[] {
  return diffClosures(bag(...before), bag(...after)).packages.filter(
    ({ pname }) => pname !== 'root',
  )
}

const one = (before: Row[], after: Row[]): PackageChange | undefined => changes(before, after)[0]

describe('the difference of two closures', () => {
  test('is nothing between a closure and itself', () => {
    const same = bag(['a-glibc-2.38', 'x', 100, 'a-glibc-2.38'], ['b-hello-1', 'y', 20])
    expect(diffClosures(same, same)).toEqual({
      schema: 'bagcheck.closure-diff/v1',
      before: { root: at('z-root'), closureDigest: same.digest, paths: 3, narBytes: 130 },
      after: { root: at('z-root'), closureDigest: same.digest, paths: 3, narBytes: 130 },
      narBytesDelta: 0,
      pathsKept: 3,
      pathsAdded: 0,
      pathsRemoved: 0,
      pathsAltered: 0,
      packages: [],
    } satisfies ClosureDiff)
  })

  test('names what is added and removed, with sizes', () => {
    expect(changes([['a-foo-1.0', 'x', 100]], [['b-bar-2.0', 'y', 70]])).toMatchObject([
      {
        pname: 'bar',
        change: 'added',
        versionsBefore: [],
        versionsAfter: ['2.0'],
        narBytesDelta: 70,
      },
      { pname: 'foo', change: 'removed', versionsBefore: ['1.0'], narBytesDelta: -100 },
    ])
  })

  test('tells upgrades from downgrades by the order of Nix', () => {
    const before: Row[] = [
      ['a-up-1.9', 'x', 1],
      ['b-down-2.0', 'x', 1],
      ['c-pre-1.0pre1', 'x', 1],
    ]
    const after: Row[] = [
      ['d-up-1.10', 'y', 1],
      ['f-down-2.0pre1', 'y', 1],
      ['g-pre-1.0', 'y', 1],
    ]
    expect(changes(before, after).map(({ pname, direction }) => [pname, direction])).toEqual([
      ['down', 'downgrade'],
      ['pre', 'upgrade'],
      ['up', 'upgrade'],
    ])
  })

  test('keeps the versions of a package apart, and shows those that stay', () => {
    const before: Row[] = [
      ['a-ssl-1.1', 'x', 10],
      ['b-ssl-3.0', 'x', 20],
    ]
    const after: Row[] = [
      ['a-ssl-1.1', 'x', 10],
      ['c-ssl-3.1', 'x', 25],
    ]
    expect(one(before, after)).toMatchObject({
      change: 'version',
      direction: 'upgrade',
      versionsBefore: ['1.1', '3.0'],
      versionsAfter: ['1.1', '3.1'],
      narBytesBefore: 30,
      narBytesAfter: 35,
      removed: [{ path: at('b-ssl-3.0'), version: '3.0', output: 'out' }],
      added: [{ path: at('c-ssl-3.1') }],
    })
  })

  test('has no direction where the newest version stays', () => {
    const before: Row[] = [
      ['a-ssl-1.1', 'x', 1],
      ['b-ssl-3.0', 'x', 1],
    ]
    const change = one(before, [['b-ssl-3.0', 'x', 1]])
    expect(change?.change).toBe('version')
    expect(change).not.toHaveProperty('direction')
  })

  test('shows other content behind the same name and version, of any size', () => {
    expect(one([['a-curl-8.0', 'x', 5000]], [['b-curl-8.0', 'patched', 5000]])).toMatchObject({
      change: 'content',
      narBytesDelta: 0,
      added: [],
      removed: [],
      replaced: [
        {
          name: 'curl-8.0',
          before: { path: at('a-curl-8.0') },
          after: { path: at('b-curl-8.0') },
          sameContent: false,
          referencesAdded: [],
          referencesRemoved: [],
        },
      ],
    })
  })

  test('tells a rebuild that changed nothing from one that did', () => {
    expect(one([['a-data-1', 'x', 7]], [['b-data-1', 'x', 7]])).toMatchObject({
      change: 'identical',
      replaced: [{ sameContent: true }],
    })
  })

  test('names the references that a rebuild gained and lost, by name', () => {
    const before = closure(
      ['a-lib-1', 'l', 1],
      ['b-old-1', 'o', 1],
      ['c-app-1', 'x', 1, 'a-lib-1', 'b-old-1'],
    )
    const after = closure(
      ['d-lib-1', 'm', 1],
      ['f-new-1', 'n', 1],
      ['g-app-1', 'y', 1, 'd-lib-1', 'f-new-1'],
    )
    const app = diffClosures(before, after).packages.find(({ pname }) => pname === 'app')
    expect(app?.replaced).toMatchObject([
      { referencesRemoved: ['old-1'], referencesAdded: ['new-1'] },
    ])
  })

  test('puts a path with two contents first: that is no update', () => {
    const before: Row[] = [
      ['a-bash-5', 'good', 100],
      ['b-foo-1', 'x', 1],
    ]
    const after: Row[] = [
      ['a-bash-5', 'evil', 100],
      ['c-foo-2', 'x', 1],
    ]
    expect(changes(before, after)).toMatchObject([
      {
        pname: 'bash',
        change: 'altered',
        altered: [
          { sameContent: false, before: { path: at('a-bash-5') }, after: { path: at('a-bash-5') } },
        ],
      },
      { pname: 'foo', change: 'version' },
    ])
    expect(diffClosures(bag(...before), bag(...after))).toMatchObject({
      pathsAltered: 2,
      pathsKept: 2,
    })
  })

  test('takes the same path with other references for altered, content or not', () => {
    const rows: Row[] = [
      ['a-lib-1', 'l', 1],
      ['b-app-1', 'x', 1],
    ]
    expect(
      one(rows, [
        ['a-lib-1', 'l', 1],
        ['b-app-1', 'x', 1, 'a-lib-1'],
      ]),
    ).toMatchObject({
      pname: 'app',
      change: 'altered',
      altered: [{ sameContent: true, referencesAdded: ['lib-1'] }],
    })
  })

  test('sees an output or a copy more of a version as paths, not as a version', () => {
    const before: Row[] = [['a-ssl-3.0', 'x', 10]]
    expect(
      one(before, [
        ['a-ssl-3.0', 'x', 10],
        ['b-ssl-3.0-bin', 'y', 5],
      ]),
    ).toMatchObject({
      change: 'paths',
      versionsBefore: ['3.0'],
      versionsAfter: ['3.0'],
      added: [{ output: 'bin' }],
    })
    expect(
      one(before, [
        ['a-ssl-3.0', 'x', 10],
        ['c-ssl-3.0', 'z', 12],
      ]),
    ).toMatchObject({
      change: 'paths',
      added: [{ path: at('c-ssl-3.0') }],
    })
  })

  test('pairs paths of one name by content before it pairs them by order', () => {
    const before: Row[] = [
      ['a-src', '1', 1],
      ['b-src', '2', 1],
      ['c-src', '3', 1],
    ]
    const after: Row[] = [
      ['d-src', '2', 1],
      ['f-src', '4', 1],
    ]
    const change = one(before, after)
    expect(change?.replaced.map((pair) => [pair.before.path, pair.after.path])).toEqual([
      [at('a-src'), at('f-src')],
      [at('b-src'), at('d-src')],
    ])
    expect(change?.removed).toMatchObject([{ path: at('c-src') }])
  })

  test('takes the identity from the derivation where there is one', () => {
    const before = bag(['a-bash-interactive-5.1', 'x', 1], ['c-foo', 'x', 1])
    const after = bag(['b-bash-interactive-5.2', 'y', 1], ['d-foo', 'y', 1])
    const { packages } = diffClosures(before, after, (path) => {
      const name = storePathName(path)
      if (!name.startsWith('bash')) return undefined
      return { pname: 'bash', version: name.slice(-3), output: 'out' }
    })
    expect(packages).toMatchObject([
      { pname: 'root', change: 'altered' },
      { pname: 'bash', identity: 'drv', versionsBefore: ['5.1'], versionsAfter: ['5.2'] },
      { pname: 'foo', identity: 'name', replaced: [{ name: 'foo' }] },
    ])
    expect(packages[1]?.added[0]?.identity).toBe('drv')
  })

  test('adds up, and turns round, for any two closures', () => {
    const row = fc.tuple(
      fc.constantFrom(...'abcdfghijklm'.split('')),
      fc.constantFrom('-foo-1', '-foo-2', '-foo-2-bin', '-bar', '-bar-0.1'),
      fc.constantFrom('x', 'y'),
      fc.nat(100),
    )
    const rows = fc
      .uniqueArray(row, { selector: ([letter, name]) => letter + name, maxLength: 12 })
      .map((all) => all.map(([letter, name, content, size]): Row => [letter + name, content, size]))
    fc.assert(
      fc.property(rows, rows, (left, right) => {
        const [before, after] = [bag(...left), bag(...right)]
        const there = diffClosures(before, after)
        const back = diffClosures(after, before)
        expect(there.pathsAdded - there.pathsRemoved).toBe(
          after.entries.length - before.entries.length,
        )
        expect(there.packages.reduce((sum, { narBytesDelta }) => sum + narBytesDelta, 0)).toBe(
          there.narBytesDelta,
        )
        const count = ({ removed, added, replaced }: PackageChange): [number, number] => [
          removed.length + replaced.length,
          added.length + replaced.length,
        ]
        const counts = there.packages.map(count)
        expect(counts.reduce((sum, [gone]) => sum + gone, 0)).toBe(there.pathsRemoved)
        expect(counts.reduce((sum, [, come]) => sum + come, 0)).toBe(there.pathsAdded)
        const turned = { added: 'removed', removed: 'added' } as const
        const kinds = (diff: ClosureDiff): string[] =>
          diff.packages.map(({ pname, change }) => `${pname} ${change}`).sort()
        const turnedKinds = back.packages
          .map(({ pname, change }) => `${pname} ${turned[change as 'added'] ?? change}`)
          .sort()
        expect(kinds(there)).toEqual(turnedKinds)
        expect(JSON.parse(JSON.stringify(there))).toEqual(there)
      }),
    )
  })
})
