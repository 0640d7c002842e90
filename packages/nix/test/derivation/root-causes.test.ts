import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  contentAddressedPath,
  derivationGraph,
  derivationPath,
  findRootCauses,
  ownOutputPlaceholder,
  parseStorePath,
  textPath,
} from '@bagcheck/nix'
import type { Derivation, DerivationGraph, RootCauses, StorePath } from '@bagcheck/nix'
import { flat, Instantiator, pathOf } from './instantiate.ts'
import type { Instantiated, Plan } from './instantiate.ts'

/** A small system, with some of its derivations planned otherwise. */
function system(change: Readonly<Record<string, (plan: Plan, nix: Instantiator) => Plan>> = {}) {
  const nix = new Instantiator()
  const add = (plan: Plan): Instantiated =>
    nix.add((change[plan.name.replace(/-\d.*/, '')] ?? ((same) => same))(plan, nix))
  const src = add({ name: 'zlib-src', fixed: flat('zlib'), env: { url: 'https://a.test/zlib' } })
  const zlib = add({
    name: 'zlib-1.2',
    outputs: ['dev', 'out'],
    inputs: [src],
    env: { src: pathOf(src), version: '1.2' },
  })
  const ssl = add({
    name: 'openssl-3.0.1',
    inputs: [zlib],
    env: { version: '3.0.1', buildInputs: pathOf(zlib, 'dev'), self: 'see $out' },
  })
  const curl = add({
    name: 'curl-8.0',
    inputs: [ssl, zlib],
    args: ['-c', `link ${pathOf(ssl)}/lib ${pathOf(zlib)}/lib`],
    env: { buildInputs: `${pathOf(ssl)} ${pathOf(zlib, 'dev')}` },
  })
  const units = ['a', 'b', 'c'].map((name) =>
    add({
      name: 'unit-script',
      inputs: [curl],
      env: { text: `run ${name} ${pathOf(curl)}/bin/curl` },
    }),
  )
  const root = add({
    name: 'system-24.05',
    inputs: [...units, curl],
    env: { units: units.map((unit) => pathOf(unit)).join(' ') },
  })
  return { nix, root, src, zlib, ssl, curl, graph: nix.graph(root) }
}

const before = system()
const causesOf = (after: ReturnType<typeof system>): RootCauses =>
  findRootCauses(before.graph, after.graph)
const names = ({ causes }: RootCauses): string[] => causes.map(({ name }) => name)
const withEnv =
  (env: Record<string, string>) =>
  (plan: Plan): Plan => ({ ...plan, env: { ...plan.env, ...env } })

describe('root causes', () => {
  test('of a graph and itself are none', () => {
    expect(causesOf(before)).toMatchObject({
      same: before.graph.derivations.size,
      causes: [],
      propagated: [],
      added: [],
      removed: [],
    })
  })

  test('hide no variable that has the name of an output and another value', () => {
    const alter = (out: string): RootCauses => {
      const [from, to] = ['', out].map((value) => {
        const { derivation } = new Instantiator().add({ name: 'x' })
        const one: Derivation = {
          ...derivation,
          outputs: new Map([['out', { kind: 'floating', method: 'nar', algorithm: 'sha256' }]]),
          env: new Map([...derivation.env, ['out', value]]),
        }
        const path = derivationPath(one)
        return derivationGraph([path], new Map([[path, one]]))
      })
      return findRootCauses(from as DerivationGraph, to as DerivationGraph)
    }
    const change = { field: 'env', key: 'out', from: '', to: '/bin/evil' }
    expect(alter('/bin/evil').causes).toMatchObject([{ changes: [change] }])
    // What stands for the path is the same in both, so this is no less of a change.
    expect(alter(ownOutputPlaceholder('out')).causes).toHaveLength(1)
  })

  test('tell large numbers of structured attributes apart', () => {
    const withNumber = (number: string): ReturnType<typeof system> =>
      system({ zlib: withEnv({ __json: `{"n":${number},"version":"${number}"}` }) })
    const found = findRootCauses(
      withNumber('9007199254740992').graph,
      withNumber('9007199254740993').graph,
    )
    expect(found.causes[0]?.changes).toContainEqual({
      field: 'attribute',
      key: 'n',
      from: '9007199254740992',
      to: '9007199254740993',
    })
  })

  test('are what changed by itself; the rest is propagated, with its causes', () => {
    const after = system({ zlib: withEnv({ patches: '/fix.patch' }), 'unit-script': withEnv({}) })
    const found = causesOf(after)
    expect(found.causes).toEqual([
      {
        name: 'zlib-1.2',
        from: before.zlib.path,
        to: after.zlib.path,
        changes: [{ field: 'env', key: 'patches', from: null, to: '/fix.patch' }],
        rebuilt: 6,
      },
    ])
    expect(found.propagated).toHaveLength(6)
    for (const { causes } of found.propagated) expect(causes).toEqual([0])
    expect(found).toMatchObject({ same: 1, added: [], removed: [] })
  })

  test('a new version is one cause, although its name is in every text that uses it', () => {
    const after = system({
      openssl: (plan) => ({
        ...plan,
        name: 'openssl-3.0.2',
        env: { ...plan.env, version: '3.0.2' },
      }),
    })
    const found = causesOf(after)
    expect(names(found)).toEqual(['openssl-3.0.2'])
    expect(found.causes[0]?.changes).toEqual([
      { field: 'name', from: 'openssl-3.0.1', to: 'openssl-3.0.2' },
      { field: 'env', key: 'version', from: '3.0.1', to: '3.0.2' },
    ])
  })

  test('the source of a package changes in what fetches it', () => {
    const found = causesOf(
      system({
        'zlib-src': (plan) => ({ ...plan, fixed: flat('new'), env: { url: 'https://b.test' } }),
      }),
    )
    expect(names(found)).toEqual(['zlib-src'])
    expect(found.causes[0]?.changes).toEqual([
      {
        field: 'output',
        key: 'out',
        from: expect.stringMatching(/^fixed:sha256:/),
        to: expect.stringMatching(/^fixed:sha256:/),
      },
      { field: 'env', key: 'url', from: 'https://a.test/zlib', to: 'https://b.test' },
    ])
  })

  test('two changes are two causes, and each derivation says which it has', () => {
    const after = system({ zlib: withEnv({ x: '1' }), curl: withEnv({ y: '2' }) })
    const found = causesOf(after)
    expect(names(found)).toEqual(['zlib-1.2', 'curl-8.0'])
    expect(found.causes.map(({ rebuilt }) => rebuilt)).toEqual([6, 4])
    const byName = Object.fromEntries(found.propagated.map((one) => [one.name, one.causes]))
    expect(byName).toMatchObject({ 'openssl-3.0.1': [0], 'unit-script': [0, 1] })
  })

  test('builder, platform, arguments and outputs are named', () => {
    const change = (plan: Plan): Plan => ({
      ...plan,
      builder: '/bin/bash',
      platform: 'riscv64-linux',
      args: ['-e'],
      outputs: ['dev', 'man', 'out'],
    })
    const [cause] = causesOf(system({ zlib: change })).causes
    expect(cause?.changes).toEqual([
      { field: 'output', key: 'man', from: null, to: 'input-addressed' },
      { field: 'platform', from: 'x86_64-linux', to: 'riscv64-linux' },
      { field: 'builder', from: '/bin/sh', to: '/bin/bash' },
      { field: 'args', from: ['-c', 'true'], to: ['-e'] },
    ])
  })

  test('an input that is added or taken away is a change of what uses it', () => {
    const extra = new Instantiator().add({ name: 'brotli-1' })
    const { graph } = system({
      curl: (plan, nix) => ({
        ...plan,
        inputs: [...(plan.inputs ?? []), nix.add({ name: 'brotli-1' })],
      }),
    })
    const found = findRootCauses(before.graph, graph)
    expect(found.added).toEqual([{ name: 'brotli-1', path: extra.path }])
    expect(found.causes).toMatchObject([
      {
        name: 'curl-8.0',
        changes: [
          {
            field: 'input',
            key: 'brotli-1',
            from: null,
            to: { path: extra.path, outputs: ['out'] },
          },
        ],
      },
    ])
    const back = findRootCauses(graph, before.graph)
    expect(back.removed).toEqual(found.added)
    expect(back.causes).toMatchObject([{ changes: [{ field: 'input', to: null }] }])
  })

  test('an input put in the place of another is no new version of it', () => {
    const after = system({
      curl: (plan, nix) => {
        const [ssl, ...rest] = plan.inputs ?? []
        const instead = nix.add({ name: 'libressl-3.0.2' })
        const swap = (text: string): string =>
          text.replaceAll(pathOf(ssl as Instantiated), pathOf(instead))
        return {
          ...plan,
          inputs: [instead, ...rest],
          args: plan.args?.map(swap) ?? [],
          env: { buildInputs: swap(plan.env?.['buildInputs'] ?? '') },
        }
      },
    })
    const found = causesOf(after)
    expect(names(found)).toEqual(['curl-8.0'])
    const fields = found.causes[0]?.changes.map((one) => one.field)
    expect(fields).toEqual(['input', 'input', 'args', 'env'])
  })

  test('which outputs of an input are used is a change', () => {
    const after = system({
      openssl: (plan) => ({
        ...plan,
        env: { ...plan.env, buildInputs: pathOf(plan.inputs?.[0] as Instantiated, 'out') },
      }),
    })
    expect(causesOf(after).causes).toMatchObject([
      { name: 'openssl-3.0.1', changes: [{ field: 'env', key: 'buildInputs' }] },
    ])
  })

  test('a source of the same name is one change, and its new path is none beside it', () => {
    const source = (text: string): StorePath => textPath('config', Buffer.from(text))
    const using = (text: string) =>
      system({
        curl: (plan) => ({
          ...plan,
          sources: [source(text)],
          env: { ...plan.env, config: source(text) },
        }),
      }).graph
    const found = findRootCauses(using('old'), using('new'))
    expect(found.causes.map(({ changes }) => changes)).toEqual([
      [{ field: 'source', key: 'config', from: source('old'), to: source('new') }],
    ])
  })

  test('a path that no derivation accounts for is never masked', () => {
    const foreign = (text: string): StorePath => contentAddressedPath('openssl-3.0.1', flat(text))
    const using = (text: string) => system({ curl: withEnv({ foreign: foreign(text) }) }).graph
    const found = findRootCauses(using('old'), using('new'))
    expect(found.causes.map(({ changes }) => changes)).toEqual([
      [{ field: 'env', key: 'foreign', from: foreign('old'), to: foreign('new') }],
    ])
  })

  test('structured attributes are compared one by one', () => {
    const attributes = (value: unknown) => (plan: Plan) => ({
      ...plan,
      env: {
        ...plan.env,
        __json: JSON.stringify({
          input: pathOf(plan.inputs?.[0] as Instantiated),
          ...(value as object),
        }),
      },
    })
    const using = (value: unknown) =>
      system({ curl: attributes(value), zlib: withEnv({ value: JSON.stringify(value) }) }).graph
    const found = findRootCauses(
      using({ version: '1', list: [1], gone: null }),
      using({ version: '2', list: [1] }),
    )
    const curl = found.causes.find(({ name }) => name === 'curl-8.0')
    expect(curl?.changes).toEqual([
      { field: 'attribute', key: 'gone', from: 'null', to: null },
      { field: 'attribute', key: 'version', from: '"1"', to: '"2"' },
    ])
  })

  test('derivations of one name are told apart by their place', () => {
    const nix = (extra: string) => {
      const one = new Instantiator()
      const parts = ['x', 'y', 'z'].map((text) =>
        one.add({ name: 'part', env: { text: text === 'y' ? `${text}${extra}` : text } }),
      )
      const paths = parts.map((part) => pathOf(part)).join(' ')
      return one.graph(one.add({ name: 'whole', inputs: parts, env: { paths } }))
    }
    expect(findRootCauses(nix(''), nix('!')).causes.map(({ changes }) => changes)).toEqual([
      [{ field: 'env', key: 'text', from: 'y', to: 'y!' }],
    ])
  })

  test('derivations that fetch the same content are not taken for each other', () => {
    const graph = (changed: boolean) => {
      const nix = new Instantiator()
      const fetch = (url: string, content: string) =>
        nix.add({ name: 'src', fixed: flat(content), env: { url } })
      const suffix = changed ? '/mirror' : ''
      const one = fetch(`https://one.test${suffix}`, 'same')
      const two = fetch(`https://two.test${suffix}`, changed ? 'new' : 'same')
      const use = (name: string, src: Instantiated) =>
        nix.add({ name, inputs: [src], env: { src: pathOf(src) } })
      const users = [use('a', one), use('b', two)]
      return nix.graph(nix.add({ name: 'root', inputs: users }))
    }
    const found = findRootCauses(graph(false), graph(true))
    expect(names(found)).toEqual(['src', 'src'])
    expect(found.propagated.map(({ name }) => name)).toEqual(['a', 'b', 'root'])
  })

  test('roots of other names are compared all the same', () => {
    const renamed = system({ system: (plan) => ({ ...plan, name: 'machine' }) })
    expect(causesOf(renamed).causes).toMatchObject([
      { name: 'machine', changes: [{ field: 'name', from: 'system-24.05', to: 'machine' }] },
    ])
  })

  test('of any graph are exactly the derivations that were changed, however they were', () => {
    const mutations = fc.constantFrom('none', 'none', 'env', 'args', 'order', 'less', 'outputs')
    const plans = fc.array(
      fc.record({ inputs: fc.array(fc.nat(), { maxLength: 4 }), mutation: mutations }),
      { minLength: 1, maxLength: 25 },
    )
    fc.assert(
      fc.property(plans, fc.integer({ min: 1, max: 9 }), (all, unique) => {
        const mutated = new Set<number>()
        const build = (mutating: boolean) => {
          const nix = new Instantiator()
          const made: Instantiated[] = []
          for (const [index, { inputs, mutation }] of all.entries()) {
            const does = (one: typeof mutation): boolean => mutating && mutation === one
            let used = [...new Set(inputs.map((n) => n % Math.max(index, 1)))]
              .filter((n) => n < index)
              .map((n) => made[n] as Instantiated)
            const several = used.length > 1
            if (several ? mutation !== 'none' : !['none', 'order', 'less'].includes(mutation))
              mutated.add(index)
            if (several && does('less')) used = used.slice(1)
            const paths = used.map((one) => pathOf(one))
            made.push(
              nix.add({
                // Some share a name; their text tells them apart.
                name: `drv-${index % (unique * 5)}`,
                outputs: does('outputs') ? ['dev', 'out'] : ['out'],
                inputs: used,
                args: does('args') ? ['-x'] : ['-c'],
                env: {
                  index: `${index}`,
                  inputs: (several && does('order') ? paths.toReversed() : paths).join(':'),
                  ...(does('env') ? { changed: '1' } : {}),
                },
              }),
            )
          }
          return nix.graph(nix.add({ name: 'root', inputs: made }))
        }
        const from = build(false)
        const to = build(true)
        const { causes, propagated, added, removed, same } = findRootCauses(from, to)
        expect(same + causes.length + propagated.length + added.length).toBe(to.derivations.size)
        expect(same + causes.length + propagated.length + removed.length).toBe(
          from.derivations.size,
        )
        for (const one of propagated) {
          expect(one.causes.length).toBeGreaterThan(0)
          for (const cause of one.causes) expect(causes[cause]).toBeDefined()
        }
        if (from.roots[0] !== to.roots[0]) expect(causes.length).toBeGreaterThan(0)
        // More outputs are more inputs of whatever takes all of them.
        const outputs = all.some(({ mutation }) => mutation === 'outputs')
        if (unique * 5 < all.length || outputs) return
        const expected = [...mutated].map((index) => `drv-${index}`)
        expect(new Set(causes.map(({ name }) => name))).toEqual(new Set(expected))
      }),
      { numRuns: 300 },
    )
  })

  test('are told however many there are in one derivation', () => {
    const withSources = (letter: string) => {
      const nix = new Instantiator()
      const sources = Array.from({ length: 75_000 }, (_, index) =>
        parseStorePath(`/nix/store/${letter.repeat(32)}-${letter}${index}`),
      )
      return nix.graph(nix.add({ name: 'root', sources }))
    }
    const { causes } = findRootCauses(withSources('a'), withSources('b'))
    expect(causes.map(({ changes }) => changes.length)).toEqual([150_000])
  })
})
