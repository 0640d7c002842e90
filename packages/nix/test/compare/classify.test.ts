import { hash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  BUILD_VERDICTS,
  buildManifest,
  classifyBuilds,
  narHashFromDigest,
  parseFlakeLock,
  storePathHash,
} from '@bagcheck/nix'
import type { Build, BuildIntent, PathInfo, StorePath } from '@bagcheck/nix'
import { flat, Instantiator, pathOf } from '../derivation/instantiate.ts'
import type { Plan } from '../derivation/instantiate.ts'

/** Stands for archives: what is hashed and read as if it were one. */
type Contents = Map<StorePath, string>

const lock = parseFlakeLock(Buffer.from('{"version":7,"root":"root","nodes":{"root":{}}}'))
const intent: BuildIntent = { lock, revision: 'a'.repeat(40) }
const other: BuildIntent = { lock, revision: 'b'.repeat(40) }

interface Options {
  readonly library?: Partial<Plan>
  readonly url?: string
  readonly intent?: BuildIntent
  /** What the build of the library wrote. */
  readonly content?: string
}

/** A tool that uses a library, whose path is in both. */
function build({ library: change = {}, url = 'a', intent, content = 'code' }: Options = {}) {
  const nix = new Instantiator()
  const source = nix.add({ name: 'src', fixed: flat('source'), env: { url } })
  const library = nix.add({
    name: 'lib-1.0',
    inputs: [source],
    ...change,
    env: { src: pathOf(source), ...change.env },
  })
  const tool = nix.add({ name: 'tool', inputs: [library], env: { lib: pathOf(library) } })
  const lib = pathOf(library)
  const root = pathOf(tool)
  const contents: Contents = new Map([
    [lib, `${content} of ${lib}`],
    [root, `calls ${lib}/x from ${root}`],
  ])
  const info = (path: StorePath, references: StorePath[]): PathInfo => {
    const text = contents.get(path) ?? ''
    return {
      path,
      references,
      narSize: text.length,
      narHash: narHashFromDigest(hash('sha256', text, 'buffer')),
    }
  }
  const closure = buildManifest(root, [info(lib, [lib]), info(root, [lib, root])])
  const made: Build = { closure, derivations: nix.graph(tool), ...(intent && { intent }) }
  return { made, contents, lib, root, derivation: tool.path }
}

type Made = ReturnType<typeof build>

const classify = (a: Made, b: Made) =>
  classifyBuilds(a.made, b.made, {
    openNar: (path) => {
      const text = a.contents.get(path)
      return text === undefined ? undefined : ReadableStream.from([Buffer.from(text)])
    },
  })

describe('two builds', () => {
  test('that are one', async () => {
    const found = await classify(build({ intent }), build({ intent }))
    expect(found).toMatchObject({
      schema: 'bagcheck.build-comparison/v1',
      verdict: 'identical',
      meaning: BUILD_VERDICTS.identical,
      caveats: [],
      intent: { result: 'same' },
      derivation: { result: 'same' },
      content: { result: 'same', same: 2 },
      rootCauses: null,
    })
    expect((await classify(build({ intent }), build({ intent: other }))).verdict).toBe('identical')
  })

  test('of one intent with other derivations: evaluation was impure, with where it went in', async () => {
    const found = await classify(
      build({ intent }),
      build({ intent, library: { env: { now: '1' } } }),
    )
    expect(found).toMatchObject({
      verdict: 'impure-evaluation',
      intent: { result: 'same' },
      derivation: { result: 'different' },
      rootCauses: {
        causes: [{ name: 'lib-1.0', changes: [{ field: 'env', key: 'now', to: '1' }] }],
      },
    })
    const harmless = await classify(build({ intent }), build({ intent, url: 'b' }))
    expect(harmless).toMatchObject({ verdict: 'impure-evaluation', content: { result: 'same' } })
  })

  test('with one path and one content, but other references: what is approved is not the same', async () => {
    const a = build({ intent })
    const entries = a.made.closure.entries.map((entry) =>
      entry.path === a.lib ? { ...entry, references: [] } : entry,
    )
    const closure = buildManifest(a.root, entries)
    expect(closure.digest).not.toBe(a.made.closure.digest)
    expect(await classify(a, { ...a, made: { ...a.made, closure } })).toMatchObject({
      verdict: 'altered',
      content: { same: 1, altered: [{ from: a.lib, to: a.lib }] },
    })
  })

  test('with one path and two contents: not deterministic or altered, whatever else', async () => {
    const a = build({ intent })
    for (const b of [
      build({ intent, content: 'edoc' }),
      build({ intent: other, content: 'edoc', url: 'b' }),
      build({ content: 'edoc' }),
    ])
      expect(await classify(a, b)).toMatchObject({
        verdict: 'altered',
        root: { result: 'same' },
        content: { result: 'altered', altered: [{ from: a.lib, to: a.lib }], same: 1 },
      })
  })

  test('with other derivations and the same content: cut off early', async () => {
    expect(
      await classify(build({ intent }), build({ intent: other, url: 'mirror' })),
    ).toMatchObject({
      verdict: 'cut-off',
      root: { result: 'same' },
      derivation: { result: 'different' },
      rootCauses: { causes: [{ name: 'src', changes: [{ key: 'url' }] }] },
    })
  })

  test('that differ by where dependencies lie alone: rebuilt only', async () => {
    const a = build({ intent })
    const b = build({ intent: other, library: { env: { flag: '1' } } })
    const found = await classify(a, b)
    expect(found).toMatchObject({
      verdict: 'rebuild',
      root: { from: a.root, to: b.root, result: 'different' },
      content: { result: 'moved', changed: [] },
      caveats: [],
    })
    expect(new Set(found.content.moved.map(({ name }) => name))).toEqual(
      new Set(['lib-1.0', 'tool']),
    )
  })

  test('with other content: changed, with the root causes', async () => {
    const a = build({ intent })
    const b = build({ intent: other, library: { args: ['-O3'] }, content: 'fast' })
    const found = await classify(a, b)
    expect(found).toMatchObject({
      verdict: 'change',
      content: { result: 'different', moved: [{ name: 'tool' }], changed: [{ name: 'lib-1.0' }] },
      rootCauses: { causes: [{ name: 'lib-1.0', changes: [{ field: 'args' }] }] },
    })
  })

  test('whose archives cannot be read count as changed, and it is said', async () => {
    const a = build({ intent })
    const b = build({ intent: other, library: { env: { flag: '1' } } })
    const found = await classifyBuilds(a.made, b.made)
    expect(found).toMatchObject({ verdict: 'change', content: { unread: [{}, {}] } })
    expect(found.caveats).toEqual([expect.stringContaining('Not every path could be read (2 not)')])
  })

  test('of unknown intent are never called impure, and it is said', async () => {
    const found = await classify(build(), build({ library: { env: { flag: '1' } } }))
    expect(found).toMatchObject({ verdict: 'rebuild', intent: { result: 'unknown' } })
    expect(found.caveats).toEqual([expect.stringContaining('lock, revision')])
  })

  test('without derivations are paired by name, and it is said', async () => {
    const a = build({ intent })
    const b = build({ intent: other, library: { env: { flag: '1' } } })
    const found = await classifyBuilds(
      { closure: a.made.closure },
      { closure: b.made.closure },
      {
        openNar: (path) => ReadableStream.from([Buffer.from(a.contents.get(path) ?? '')]),
      },
    )
    expect(found).toMatchObject({ verdict: 'rebuild', derivation: { result: 'unknown' } })
    expect(found.caveats).toEqual([expect.stringContaining('derivations of both builds')])
  })

  test('that exchange a dependency for another are changed, even at the same place', async () => {
    const a = build({ intent })
    const b = build({ intent: other, library: { name: 'bil-1.0' } })
    expect(storePathHash(a.lib)).not.toBe(storePathHash(b.lib))
    expect(await classify(a, b)).toMatchObject({
      verdict: 'change',
      content: { added: [b.lib], removed: [a.lib], changed: [{ name: 'tool' }] },
    })
  })
})
